//! The attack that the token can not see: database and token put back together. Only somebody who is
//! not on this machine remembers.

use custodyd_tests::app::said;
use custodyd_tests::token::copy_tokens;
use custodyd_tests::witness::Manner;
use custodyd_tests::{TestApp, Witness};

use super::{ALONE, ORIGIN, Scene, disputed, scene, signatures};

/// The database and the token as they were, which no start can tell from the newest.
struct Backup {
    database: Vec<u8>,
    tokens: tempfile::TempDir,
}

impl Backup {
    /// Of a stopped daemon.
    fn of(app: &TestApp) -> Self {
        let tokens = tempfile::tempdir_in("/dev/shm").unwrap();
        copy_tokens(&app.token.tokens(), tokens.path()).unwrap();
        Self {
            database: std::fs::read(app.path("custodyd.sqlite")).unwrap(),
            tokens,
        }
    }

    fn put_back(&self, app: &TestApp) {
        for beside in ["custodyd.sqlite-wal", "custodyd.sqlite-shm"] {
            let _ = std::fs::remove_file(app.path(beside));
        }
        std::fs::write(app.path("custodyd.sqlite"), &self.database).unwrap();
        std::fs::remove_dir_all(app.token.tokens()).unwrap();
        copy_tokens(self.tokens.path(), &app.token.tokens()).unwrap();
    }
}

/// A daemon whose database and token were put back to before `longer`, the witness's size.
async fn put_back(witness: &Witness, keep_file: bool) -> (Scene, u64) {
    let mut scene = scene(Witness::section(1, "", &[witness])).await;
    witness.follow(ORIGIN, &scene.jwks);
    scene.note_with(ALONE + 1).await;
    assert!(scene.app.stop());
    let backup = Backup::of(&scene.app);
    scene.app.launch().await;
    scene.grow(5).await;
    let longer = scene.size().await;
    witness.wait_for(ORIGIN, longer).await;
    scene.note_with(ALONE + 1).await;
    assert!(scene.app.stop());
    backup.put_back(&scene.app);
    if !keep_file {
        std::fs::remove_file(scene.app.path("custodyd.sqlite-witnessed")).unwrap();
    }
    scene.app.launch().await;
    (scene, longer)
}

/// The one attack that the token can not see: an administrator of everything on this machine puts
/// back the database and the token together. Guesses are won back; a witness tells of it.
#[tokio::test]
async fn a_witness_has_seen_a_longer_log_than_the_one_that_was_put_back() {
    let witness = Witness::start("one.example/w").await;
    let (mut scene, longer) = put_back(&witness, false).await;
    scene.metric(&disputed("w0", 1)).await;
    let said = format!("it says that it has cosigned {longer} entries of this log");
    scene.logged(&said).await;
    // Both checkpoints are evidence, each with the realm's own signature.
    scene
        .logged("a witness knows another log of this realm")
        .await;
    let log = scene.app.log();
    assert!(
        log.contains(&format!("log/1\\n{longer}\\n")),
        "the witness's checkpoint"
    );
    let ours = scene.size().await;
    assert!(ours < longer);
    // It serves: one witness must not be able to stop a daemon. Nobody vouches for the log.
    assert_eq!(scene.app.operator("/readyz").await.0, 200);
    assert_eq!(signatures(&scene.auditor.note().await), ALONE);
    assert_eq!(scene.witnessed().await, None);
    // Longer than what was seen, the fork does not continue it.
    scene.grow(10).await;
    assert!(scene.size().await > longer);
    scene
        .logged(&format!(
            "do not continue the {longer} that it has cosigned"
        ))
        .await;
    scene.metric(&disputed("w0", 1)).await;
    assert_eq!(signatures(&scene.auditor.note().await), ALONE);
    assert_eq!(witness.size(ORIGIN), longer, "it cosigned the fork");
    // A restart takes nothing back, whether the witness can be asked or not.
    witness.set(Manner::Failing(503));
    scene.app.restart().await;
    scene.metric(&disputed("w0", 1)).await;
    scene.logged("and nothing was taken back").await;
}

/// Control: a witness that looks at nothing lets the same attack pass, so it is the witness's
/// memory that tells.
#[tokio::test]
async fn without_a_witness_that_looks_nobody_notices_what_was_put_back() {
    let witness = Witness::start("one.example/w").await;
    witness.set(Manner::Blind);
    let (mut scene, longer) = put_back(&witness, false).await;
    scene.note_with(ALONE + 1).await;
    scene.grow(10).await;
    assert!(scene.size().await > longer);
    scene.note_with(ALONE + 1).await;
    scene.metric(&disputed("w0", 0)).await;
    let log = scene.app.log();
    assert!(!log.contains("another log"), "{log}");
}

/// What is kept of cosignatures tells of the same, while no witness can be reached, as long as it
/// was forgotten when the rest was put back.
#[tokio::test]
async fn kept_cosignatures_tell_of_a_longer_log_than_the_one_that_was_put_back() {
    let witness = Witness::start("one.example/w").await;
    let (scene, longer) = {
        let (scene, longer) = put_back(&witness, true).await;
        witness.set(Manner::Failing(503));
        (scene, longer)
    };
    scene.metric(&disputed("(kept)", 1)).await;
    scene
        .logged("witnesses have cosigned another log under this name")
        .await;
    assert_eq!(scene.witnessed().await, None);
    assert!(scene.size().await < longer);
}

/// An approver, who has nothing to sign here.
const APPROVERS: &str = "[ledger.restore]\napprovals = 1\n[ledger.restore.approvers]\nann = \"\
    ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILdHOdMKAO9p2Qf6IkukisypM23ts50gFZBfBBOgcxPb ann@example.com\"\n";

/// A restore gives up what a witness has cosigned only where its approvers sign that.
// The witness serves while this waits for the command.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_asks_the_witnesses_what_would_be_lost() {
    let witness = Witness::start("one.example/w").await;
    let section = Witness::section(1, "", &[&witness]);
    let mut scene = scene(format!("{APPROVERS}{section}")).await;
    witness.follow(ORIGIN, &scene.jwks);
    scene.note_with(ALONE + 1).await;
    assert!(scene.app.stop());
    let older = std::fs::read(scene.app.path("custodyd.sqlite")).unwrap();
    scene.app.launch().await;
    scene.grow(5).await;
    let longer = scene.size().await;
    witness.wait_for(ORIGIN, longer).await;
    assert!(scene.app.stop());
    std::fs::write(scene.app.path("custodyd.sqlite"), &older).unwrap();
    let statement = scene.app.path("restore.json");
    let propose = |more: &str| {
        let file = statement.display();
        let arguments = format!("ledger propose-restore --guesses-left 3{more} {file}");
        let output = scene.app.command(&arguments).output().unwrap();
        (output.status.success(), said(&output))
    };
    let (good, text) = propose("");
    assert!(!good && text.contains("auditors hold a log of"), "{text}");
    let (good, text) = propose(" --lose-known-entries");
    assert!(good && !text.contains("not asked"), "{text}");
    let written: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&statement).unwrap()).unwrap();
    assert_eq!(
        written["auditors_hold"]["log_entries"],
        witness.size(ORIGIN)
    );
}
