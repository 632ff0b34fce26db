//! The newest database is lost: `docs/handbook/backup.md`, from outside, with the signatures of real
//! OpenSSH keys.

use std::path::{Path, PathBuf};
use std::process::Command;

use custodyd_tests::app::said;
use custodyd_tests::codes::policy;
use custodyd_tests::device::unb64;
use custodyd_tests::slots::code_id;
use custodyd_tests::{Device, MailServer, Setup, SoftAuthenticator, TestApp};
use serde_json::json;

use crate::delivered_codes::{enter, fetch, new_phone, owner};

const PIN: &str = "830517";
const WRONG: &str = "830518";
const ROUNDS: &str = "[[pin.rounds]]\nattempts = 5\n";

/// A key pair of OpenSSH's own making.
pub(crate) fn key(dir: &Path, name: &str, kind: &str) -> PathBuf {
    let path = dir.join(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", name, "-t", kind, "-f"])
        .arg(&path)
        .output()
        .expect("ssh-keygen, of Debian's openssh-client");
    assert!(made.status.success(), "{}", said(&made));
    path
}

pub(crate) fn sign(key: &Path, namespace: &str, file: &Path) -> PathBuf {
    let signature = PathBuf::from(format!("{}.sig", file.display()));
    let _ = std::fs::remove_file(&signature);
    let signed = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", namespace, "-f"])
        .args([key, file])
        .output()
        .unwrap();
    assert!(signed.status.success(), "{}", said(&signed));
    let kept = key.with_extension("sig");
    std::fs::rename(signature, &kept).unwrap();
    kept
}

/// A daemon with two approvers, and people of several kinds.
struct Scene {
    app: TestApp,
    keys: [PathBuf; 2],
    /// With a passkey, a PIN, recovery codes.
    ann: Device,
    passkey: SoftAuthenticator,
    codes: Vec<String>,
    /// With a PIN alone.
    bob: Device,
    /// With a PIN and a mailbox, which somebody else reads.
    carol: Device,
    mail: MailServer,
}

/// Last night's backup.
const OLDER: &str = "older";

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap().keep();
        let keys = [("ann", "ed25519"), ("bob", "ecdsa")].map(|(name, kind)| key(&dir, name, kind));
        let public = |key: &PathBuf| std::fs::read_to_string(key.with_extension("pub")).unwrap();
        let [one, two] = [&keys[0], &keys[1]].map(|key| public(key).trim().to_owned());
        let mail = MailServer::start();
        let app = TestApp::with(Setup {
            policies: vec![policy("notes", "", ROUNDS)],
            config: format!(
                "{}\n[ledger.restore]\napprovals = 2\n[ledger.restore.approvers]\none = \"{one}\"\ntwo = \"{two}\"\n",
                mail.config()
            ),
            ..Setup::default()
        })
        .await;
        let (mut ann, mut passkey) = (app.device("notes"), SoftAuthenticator::new("notes"));
        ann.enrol().await;
        ann.add_passkey(&mut passkey).await.expect(201);
        ann.set_pin(PIN).await.expect(200);
        ann.back_up("device-secret", b"of ann").await.expect(200);
        let codes = ann.set_recovery_codes().await;
        let slot = code_id(&unb64(codes.first().unwrap()));
        let slot = json!({"type": "recovery-code", "credential": slot, "ciphertext": "AAAA"});
        let content = json!({"sealed": "AAAA", "server_slot": "AAAA", "slots": [slot]});
        let put = ann.put("app-key", "If-None-Match", "*", content).await;
        put.expect(200);
        let mut bob = app.device("notes");
        bob.enrol().await;
        bob.set_pin(PIN).await.expect(200);
        bob.back_up("device-secret", b"of bob").await.expect(200);
        let carol = owner(&app, &mail).await;
        let mut scene = Self {
            app,
            keys,
            ann,
            passkey,
            codes,
            bob,
            carol,
            mail,
        };
        assert!(scene.app.stop());
        scene.app.keep_database(OLDER);
        scene.app.launch().await;
        scene
    }

    fn statement(&self) -> PathBuf {
        self.app.path("restore.json")
    }

    /// The disk is gone; last night's backup takes its place.
    fn lose_the_newest(&mut self) {
        assert!(self.app.stop());
        self.app.put_database(OLDER);
    }

    fn run(&self, arguments: &str) -> (bool, String) {
        let output = self.app.command(arguments).output().unwrap();
        (output.status.success(), said(&output))
    }

    fn propose(&self, guesses: u32) -> (bool, String) {
        let _ = std::fs::remove_file(self.statement());
        self.run(&format!(
            "ledger propose-restore --guesses-left {guesses} {}",
            self.statement().display()
        ))
    }

    fn accept(&self, approvals: &[PathBuf]) -> (bool, String) {
        let approvals = approvals
            .iter()
            .map(|path| format!(" --approval {}", path.display()));
        self.run(&format!(
            "ledger accept-restore {}{}",
            self.statement().display(),
            approvals.collect::<String>()
        ))
    }

    fn approved(&self) -> [PathBuf; 2] {
        let [one, two] = &self.keys;
        [one, two].map(|key| sign(key, "custodyd-restore", &self.statement()))
    }

    async fn restore(&mut self, guesses: u32) {
        let (good, text) = self.propose(guesses);
        assert!(good && text.contains("ssh-keygen -Y sign"), "{text}");
        let (good, text) = self.accept(&self.approved());
        assert!(good && text.contains("log epoch 2"), "{text}");
        self.app.launch().await;
    }
}

#[tokio::test]
async fn the_realm_goes_on_from_a_backup_and_everybody_comes_back() {
    let mut scene = Scene::new().await;
    // What the backup does not know: guesses, a code that was used, a device that was removed.
    scene.bob.try_pin(WRONG, &[]).await.refused("401 pin-wrong");
    let code = scene.codes.first().unwrap().clone();
    scene
        .ann
        .try_recovery_code(&code, json!({}))
        .await
        .expect(201);
    let session = scene.ann.token.clone();
    scene.lose_the_newest();
    let (good, text) = scene.run("serve");
    assert!(!good && text.contains("rolled back"), "{text}");
    scene.restore(3).await;

    // No session of before.
    scene.ann.token = session;
    let view = scene.ann.call("GET", "/v1/account", None).await;
    view.refused("401 session-invalid");
    // The code is not good again, nor is any other.
    let again = scene.ann.try_recovery_code(&code, json!({})).await;
    again.refused("409 recovery-code-not-set");
    // Ann's PIN waits for her passkey; then it serves again.
    let first = "403 confirm-first";
    scene.ann.try_pin(PIN, &[]).await.refused(first);
    scene.ann.try_device(&[]).await.refused(first);
    let release = json!({"release": ["device-secret"]});
    let back = scene.ann.try_passkey(&mut scene.passkey, release).await;
    assert_eq!(
        back.expect(201).body["secrets"]["device-secret"]["server_slot"],
        custodyd_tests::device::b64(b"of ann")
    );
    // The slots of codes that are void are gone, where something else opens the secret: who writes them back is refused.
    let kept = scene.ann.recover("app-key").await.expect(200);
    assert_eq!(kept.body["slots"], json!([]));
    scene.ann.try_pin(PIN, &[]).await.expect(201);
    // Bob has no passkey: his PIN is the strongest that he has, within three guesses.
    scene.bob.try_pin(WRONG, &[]).await.refused("401 pin-wrong");
    let wrong = scene.bob.try_pin(WRONG, &[]).await;
    assert_eq!(wrong.body["attempts_left"], 1);
    scene.bob.try_pin(PIN, &["device-secret"]).await.expect(201);
    let wrong = scene.bob.try_pin(WRONG, &[]).await;
    assert_eq!(wrong.body["attempts_left"], 4);

    // Everything is in the log, for whoever looks.
    assert!(scene.app.stop());
    let (good, text) = scene.run("ledger verify --open");
    assert!(good, "{text}");
    let (_, text) = scene.run("ledger tail -n 100");
    assert!(text.contains("2 approvals of"), "{text}");
    scene.app.launch().await;
}

#[tokio::test]
async fn with_no_guess_left_a_pin_alone_stays_shut() {
    let mut scene = Scene::new().await;
    scene.bob.try_pin(WRONG, &[]).await.refused("401 pin-wrong");
    scene.lose_the_newest();
    scene.restore(0).await;
    let shut = "403 pin-exhausted";
    scene.bob.try_pin(PIN, &[]).await.refused(shut);
    scene
        .ann
        .try_passkey(&mut scene.passkey, json!({}))
        .await
        .expect(201);
    scene.ann.try_pin(PIN, &[]).await.expect(201);
}

#[tokio::test]
async fn half_a_sign_in_changes_nothing_before_the_owner_has_come_back() {
    let mut scene = Scene::new().await;
    scene.bob.try_pin(PIN, &[]).await.expect(201);
    scene.lose_the_newest();
    scene.restore(3).await;
    let by_account = json!({"account": scene.carol.account});
    let mut phone = new_phone(&scene.app);
    phone.account.clone_from(&scene.carol.account);
    let code = fetch(&mut phone, &scene.mail, by_account.clone()).await;
    let half = enter(&mut phone, by_account, &code, json!({})).await;
    assert_eq!(half.expect(201).body["session"]["scope"], "pin-only");
    // A forgotten PIN may be replaced by a code, and a device bound: not now.
    let first = "403 confirm-first";
    phone.set_pin("271828").await.refused(first);
    let bind = ("POST", "/v1/account/devices", Some(json!({})));
    phone
        .call(bind.0, bind.1, bind.2.clone())
        .await
        .refused(first);
    scene.carol.try_pin(PIN, &[]).await.expect(201);
    // That half sign-in is over.
    let again = phone.call(bind.0, bind.1, bind.2).await;
    again.refused("401 session-ended");
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_said_and_changes_nothing() {
    let mut scene = Scene::new().await;
    let (good, text) = scene.propose(3);
    assert!(!good && text.contains("held by another"), "{text}");
    assert!(scene.app.stop());
    let (good, text) = scene.propose(3);
    assert!(!good && text.contains("nothing to restore"), "{text}");
    scene.app.launch().await;
    scene.bob.try_pin(PIN, &[]).await.expect(201);
    scene.lose_the_newest();
    let (good, text) = scene.propose(3);
    assert!(good, "{text}");
    let approved = scene.approved();
    for (approvals, what) in [
        (vec![approved[0].clone()], "1 of 2 approvals"),
        (
            vec![approved[0].clone(), approved[0].clone()],
            "same approver",
        ),
        (
            vec![
                approved[0].clone(),
                sign(&scene.keys[1], "file", &scene.statement()),
            ],
            "namespace",
        ),
    ] {
        let (good, text) = scene.accept(&approvals);
        assert!(!good && text.contains(what), "{text}");
    }
    let (good, text) = scene.run("serve");
    assert!(!good && text.contains("rolled back"), "{text}");
    let approved = scene.approved();
    let (good, text) = scene.accept(&approved);
    assert!(good, "{text}");
    // The backup once more, with the same approvals.
    scene.app.put_database(OLDER);
    let (good, text) = scene.accept(&approved);
    assert!(!good && text.contains("remembers another batch"), "{text}");
    let (good, text) = scene.run("serve");
    assert!(!good && text.contains("after, a restore"), "{text}");
}
