//! The token is lost: `docs/ESCROW.md`, from outside. A realm whose keys are in an escrow comes back on another
//! token, and on another kind of token; and what does not belong together is refused before anything is changed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use custodyd_hsm::escrow::Identity;
use custodyd_tests::app::{policy, said};
use custodyd_tests::token::SoftToken;
use custodyd_tests::tpm::SwTpm;
use custodyd_tests::{Device, Setup, TestApp};

use crate::restoring::{key, sign};

const PIN: &str = "830517";
const SECRET: &[u8] = b"the device secret";
const NAMES: [&str; 3] = ["ann", "bob", "carol"];
/// For TPMs; a SoftHSM2 token stands it too.
const BOUNDED: &str =
    "[ledger]\nanchor = \"bounded\"\nanchor_interval = \"1s\"\nruntime_directory = \".\"\n";
const ESCROW: &str = "escrow = \"escrow.json\"\n";

/// A daemon before its first key, three custodians, two approvers.
struct Scene {
    app: TestApp,
    home: PathBuf,
    approvers: [PathBuf; 2],
}

fn write_private(path: &Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

impl Scene {
    fn new(ledger: &str) -> Self {
        let home = tempfile::tempdir().unwrap().keep();
        for name in NAMES {
            let identity = Identity::generate();
            write_private(
                &home.join(format!("{name}.key")),
                identity.to_file().expose(),
            );
            std::fs::write(
                home.join(format!("{name}.pub")),
                identity.recipient().to_string(),
            )
            .unwrap();
        }
        let approvers = ["one", "two"].map(|name| key(&home, name, "ed25519"));
        let public = |key: &PathBuf| {
            let text = std::fs::read_to_string(key.with_extension("pub")).unwrap();
            text.trim().to_owned()
        };
        let [one, two] = [&approvers[0], &approvers[1]].map(public);
        let token = SoftToken::blank();
        let app = TestApp::prepared(
            Setup {
                policies: vec![("notes".into(), policy("notes", ""))],
                config: format!(
                    "{ledger}[ledger.restore]\napprovals = 2\n[ledger.restore.approvers]\none = \"{one}\"\ntwo = \"{two}\"\n"
                ),
                token: Some(format!("{}{ESCROW}", token.section())),
                ..Setup::default().in_a_file()
            },
            token,
        );
        Self {
            app,
            home,
            approvers,
        }
    }

    fn run(&self, arguments: &str) -> (bool, String) {
        let output = self.app.command(arguments).output().unwrap();
        (output.status.success(), said(&output))
    }

    #[track_caller]
    fn done(&self, arguments: &str) -> String {
        let (good, text) = self.run(arguments);
        assert!(good, "{arguments}: {text}");
        text
    }

    #[track_caller]
    fn refused(&self, arguments: &str, what: &str) {
        let (good, text) = self.run(arguments);
        assert!(!good && text.contains(what), "{arguments}: {text}");
    }

    fn home(&self, name: &str) -> String {
        self.home.join(name).display().to_string()
    }

    fn create(&self, directory: &str, more: &str) -> String {
        format!("escrow create {more}{}", self.shared(directory, &NAMES))
    }

    /// That these custodians get a share.
    fn shared(&self, directory: &str, names: &[&str]) -> String {
        let custodians = names.iter().map(|name| {
            let recipient = std::fs::read_to_string(self.home(&format!("{name}.pub"))).unwrap();
            format!("--custodian {name}={recipient} ")
        });
        format!(
            "--needed 2 {}{}",
            custodians.collect::<String>(),
            self.home(directory)
        )
    }

    fn verify(&self, name: &str, directory: &str) -> String {
        format!(
            "escrow verify --identity {} --manifest {} {}",
            self.home(&format!("{name}.key")),
            self.home(&format!("{directory}/manifest.json")),
            self.home(&format!("{directory}/{name}.age"))
        )
    }

    /// A realm with an account, whose keys are in an escrow; the shares are in `shares`.
    async fn founded(ledger: &str) -> (Self, Device) {
        let mut scene = Self::new(ledger);
        scene.done(&scene.create("shares", ""));
        scene.app.found().await;
        let mut device = scene.app.device("notes");
        device.enrol().await;
        device.set_pin(PIN).await.expect(200);
        device.back_up("device-secret", SECRET).await.expect(200);
        assert!(scene.app.stop());
        (scene, device)
    }

    /// The token is gone with its files; another of the same label, and nothing in it, takes its place.
    fn lose_the_token(&mut self) {
        let old = self.app.token.section();
        self.app.token = SoftToken::blank();
        self.configure(&old, &self.app.token.section());
    }

    fn configure(&self, from: &str, to: &str) {
        let path = self.app.path("custodyd.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }

    /// The host makes an address; these custodians send their shares of `directory` to it.
    fn sent(&self, directory: &str, names: &[&str]) -> Vec<String> {
        let host = self.home("host.key");
        if !Path::new(&host).exists() {
            self.done(&format!("escrow receive {host}"));
        }
        let text = std::fs::read_to_string(&host).unwrap();
        let recipient = text
            .lines()
            .find_map(|line| line.strip_prefix("# public key: "));
        let send = |name: &&str| {
            let out = self.home(&format!("{directory}-{name}.sent"));
            if !Path::new(&out).exists() {
                let share = self.home(&format!("{directory}/{name}.age"));
                self.done(&format!(
                    "escrow reencrypt --identity {} --manifest {} --to {} {share} {out}",
                    self.home(&format!("{name}.key")),
                    self.home(&format!("{directory}/manifest.json")),
                    recipient.unwrap()
                ));
            }
            out
        };
        names.iter().map(send).collect()
    }

    fn restore(&self, shares: &[String]) -> String {
        format!(
            "escrow restore --identity {} {}",
            self.home("host.key"),
            shares.join(" ")
        )
    }

    /// The token has the keys again and remembers nothing: the ceremony of the ledger, then everybody is back.
    async fn go_on(&mut self, mut device: Device) {
        self.refused("serve", "no anchor of this realm");
        let statement = self.app.path("restore.json");
        self.done(&format!(
            "ledger propose-restore --without-anchor --guesses-left 3 {}",
            statement.display()
        ));
        let approvals = [&self.approvers[0], &self.approvers[1]]
            .map(|key| sign(key, "custodyd-restore", &statement))
            .map(|path| format!(" --approval {}", path.display()));
        self.done(&format!(
            "ledger accept-restore {}{}",
            statement.display(),
            approvals.concat()
        ));
        self.app.launch().await;
        let back = device.try_pin(PIN, &["device-secret"]).await.expect(201);
        assert_eq!(
            back.body["secrets"]["device-secret"]["server_slot"],
            custodyd_tests::device::b64(SECRET)
        );
        let mut newcomer = self.app.device("notes");
        newcomer.enrol().await;
        assert!(self.app.stop());
        self.done("ledger verify --open");
        let check = self.done("token check");
        assert!(check.contains("2 of ann, bob, carol"), "{check}");
    }

    /// Nothing of ours is in the token.
    fn is_blank(&self) {
        let (_, text) = self.run("token check");
        assert!(!text.contains("CKA_TOKEN"), "{text}");
    }
}

#[tokio::test]
async fn a_lost_token_is_restored_and_what_does_not_fit_is_refused_before() {
    let (mut scene, device) = Scene::founded("").await;
    let manifest = scene.app.path("escrow.json");
    let good = std::fs::read_to_string(&manifest).unwrap();
    // A second ceremony of the same realm: another new token, other keys.
    scene.lose_the_token();
    scene.refused("serve", "are missing");
    scene.refused("init", "escrow restore");
    let database = scene.app.path("custodyd.sqlite");
    let aside = scene.app.path("aside.sqlite");
    std::fs::rename(&database, &aside).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    scene.done(&scene.create("others", ""));
    // Neither again over it, nor the first keys into it.
    scene.refused(&scene.create("third", ""), "is there already");
    std::fs::write(&manifest, &good).unwrap();
    std::fs::rename(&aside, &database).unwrap();
    let sent = scene.sent("shares", &["ann", "carol"]);
    scene.refused(&scene.restore(&sent), "holds custodyd-wrap-v1 already");
    scene.refused("serve", "not made by this token");
    let (_, text) = scene.run("token check");
    assert!(text.contains("not the one of the escrow"), "{text}");

    scene.lose_the_token();
    let others = scene.sent("others", &["bob"]);
    let both = [sent[0].clone(), others[0].clone()];
    scene.refused(&scene.restore(&both), "two ceremonies");
    scene.refused(&scene.restore(&sent[..1]), "1 of 2 shares");
    let twice = [sent[0].clone(), sent[0].clone()];
    scene.refused(&scene.restore(&twice), "given twice");
    let not_sent = [scene.home("shares/ann.age"), sent[1].clone()];
    scene.refused(&scene.restore(&not_sent), "opens with none");
    std::fs::write(&manifest, good.replace("\"needed\": 2", "\"needed\": 3")).unwrap();
    scene.refused(&scene.restore(&sent), "was edited");
    std::fs::write(
        &manifest,
        good.replace(custodyd_tests::app::REALM, "b.example"),
    )
    .unwrap();
    scene.refused(&scene.restore(&sent), "b.example");
    std::fs::write(&manifest, &good).unwrap();
    scene.is_blank();

    let dry = scene
        .restore(&sent)
        .replace("restore ", "restore --dry-run ");
    assert!(scene.done(&dry).contains("Nothing was changed"));
    scene.is_blank();
    let text = scene.done(&scene.restore(&sent));
    assert!(text.contains("propose-restore"), "{text}");
    assert!(!Path::new(&scene.home("host.key")).exists());
    scene.go_on(device).await;
}

#[tokio::test]
async fn keys_of_a_soft_token_come_back_in_a_tpm() {
    let (mut scene, device) = Scene::founded(BOUNDED).await;
    let tpm = SwTpm::blank();
    let section = |more: &str| {
        format!(
            "kind = \"tpm\"\ntcti = \"{}\"\nstate_directory = \"{}\"\npin_file = \"{}\"\nnv_writes_per_day = 1000000\n{more}",
            tpm.tcti(),
            tpm.anchors().display(),
            tpm.dir().join("pin").display(),
        )
    };
    scene.configure(&scene.app.token.section(), &section(""));
    scene.app.token = SoftToken::blank();
    let sent = scene.sent("shares", &["carol", "bob"]);
    // A look, and what is refused, leave no secret and no lock behind.
    let dry = scene
        .restore(&sent)
        .replace("restore ", "restore --dry-run ");
    assert!(scene.done(&dry).contains("Nothing was changed"));
    scene.refused(&scene.restore(&sent[..1]), "1 of 2 shares");
    assert!(!tpm.dir().join("pin").exists() && !tpm.anchors().exists());
    let text = scene.done(&scene.restore(&sent));
    assert!(tpm.dir().join("pin").exists() && tpm.anchors().exists());
    let at = text.find("storage_key = ").unwrap();
    let line: String = text[at..].chars().take(84).collect();
    scene.configure(&section(""), &section(&format!("{line}\n")));
    scene.go_on(device).await;
    let check = scene.done("token check");
    assert!(check.contains("fixedTPM=false"), "{check}");
    // What an escrow has brought in does not pass for what a TPM has made.
    scene.configure(ESCROW, "");
    scene.refused("serve", "fixedTPM");
}

/// With a password of its owner, as docs/TPM.md sets it up. Whatever it refuses, the same command works once that is mended.
#[tokio::test]
async fn a_tpm_that_refuses_the_keys_leaves_nothing_of_the_ceremony_behind() {
    const OWNER: &str = "the owner's";
    let scene = Scene::new(BOUNDED);
    let tpm = SwTpm::blank();
    tpm.tool("tpm2_changeauth", &["-c", "owner", OWNER]);
    let secret = tpm.dir().join("pin");
    let section = format!(
        "kind = \"tpm\"\ntcti = \"{}\"\nstate_directory = \"{}\"\npin_file = \"{}\"\nnv_writes_per_day = 1000000\n",
        tpm.tcti(),
        tpm.anchors().display(),
        secret.display(),
    );
    scene.configure(&scene.app.token.section(), &section);
    let given = |name: &str, content: &str| {
        write_private(&scene.home.join(name), content.as_bytes());
        format!("--owner-password-file {} ", scene.home(name))
    };
    let (wrong, right) = (given("wrong", "another's"), given("right", OWNER));
    let left = || {
        let manifest = scene.app.path("escrow.json").exists();
        manifest || scene.home.join("shares").exists() || scene.home.join("shares.new").exists()
    };
    let before = tpm.tool("tpm2_getcap", &["handles-persistent"]);
    for more in ["", &wrong, &format!("--dry-run {wrong}")] {
        scene.refused(&scene.create("shares", more), "--owner-password-file");
        assert!(
            !left() && !secret.exists() && !tpm.anchors().exists(),
            "{more}"
        );
    }
    assert_eq!(tpm.tool("tpm2_getcap", &["handles-persistent"]), before);
    let dry = scene.done(&scene.create("shares", &format!("--dry-run {right}")));
    assert!(dry.contains("Nothing was changed"), "{dry}");
    assert!(!left());
    // What no look can tell: the TPM has no room for them.
    let others = crate::rotation::fill(&tpm, OWNER);
    scene.refused(&scene.create("shares", &right), "no room for another");
    assert!(!left());
    for index in others {
        tpm.tool("tpm2_nvundefine", &["-C", "o", "-P", OWNER, &index]);
    }
    let made = scene.done(&scene.create("shares", &right));
    assert!(left() && made.contains("storage_key = "), "{made}");
}

#[tokio::test]
async fn the_two_kinds_of_realm_are_kept_apart() {
    let (mut scene, _) = Scene::founded("").await;
    scene.app.launch().await;
    let doctor = scene.done("doctor");
    assert!(doctor.contains("ready"), "{doctor}");
    assert!(doctor.contains("2 of 3 custodians"), "{doctor}");
    scene.refused("key rotate wrap", "escrow add-version wrap");
    assert!(scene.app.stop());
    let check = scene.done("token check");
    assert!(check.contains("CKA_ALWAYS_SENSITIVE=false"), "{check}");
    assert!(check.contains("CKA_EXTRACTABLE=false"), "{check}");
    // A custodian's yearly drill.
    let verify = |share: &str| {
        format!(
            "escrow verify --identity {} --manifest {} {}",
            scene.home("ann.key"),
            scene.home("shares/manifest.json"),
            scene.home(share)
        )
    };
    assert!(
        scene
            .done(&verify("shares/ann.age"))
            .contains("share of ann opens")
    );
    scene.refused(&verify("shares/bob.age"), "opens with none");
    // Without the line in the configuration imported keys are refused.
    scene.configure(ESCROW, "");
    scene.refused("serve", "CKA_ALWAYS_SENSITIVE");
    scene.refused(&scene.create("late", ""), "token.escrow is not set");

    // And a realm of the other kind: its keys were made in the token, and stay there.
    let mut made = TestApp::with(Setup::default().in_a_file()).await;
    assert!(made.stop());
    let section = made.token.section();
    let path = made.path("custodyd.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&section, &format!("{section}{ESCROW}"))).unwrap();
    let say = |arguments: &str| said(&made.command(arguments).output().unwrap());
    assert!(
        say("serve").contains("CKA_ALWAYS_SENSITIVE"),
        "{}",
        say("serve")
    );
    let create = scene.create("late", "");
    assert!(say(&create).contains("cannot be"), "{}", say(&create));
    std::fs::remove_file(made.path("custodyd.sqlite")).unwrap();
    assert!(
        say(&create).contains("holds custodyd-wrap-v1 already"),
        "{}",
        say(&create)
    );
    assert!(!Path::new(&scene.home("late")).exists());
    assert!(!made.path("escrow.json").exists());
}

#[tokio::test]
async fn a_token_that_is_lost_after_a_rotation_is_restored_from_both_ceremonies() {
    let (mut scene, mut device) = Scene::founded("").await;
    scene.app.launch().await;
    let first = std::fs::read_to_string(scene.app.path("escrow.json")).unwrap();
    // Bob has left; the others need none of his shares, nor any of before.
    let add = format!(
        "escrow add-version wrap,webhook {}",
        scene.shared("second", &["ann", "carol"])
    );
    scene.done(&add);
    scene.app.restart().await;
    let heard = scene.done(&scene.verify("carol", "second"));
    for said in [
        "custodyd-wrap-v2, custodyd-webhook-v2",
        "custodyd-mac-v1",
        "which this one does not replace",
    ] {
        assert!(heard.contains(said), "{heard}");
    }
    let at = heard.find("the manifest is ").unwrap() + "the manifest is ".len();
    let heard: String = heard[at..].chars().take(64).collect();
    scene.done(&format!("key rotate wrap --manifest {heard}"));
    // One record is under the newer key, the other stays under the older one.
    let mut newcomer = scene.app.device("notes");
    newcomer.enrol().await;
    assert!(scene.app.stop());
    let check = scene.done("token check");
    assert!(
        check.contains("custodyd-wrap-v2, custodyd-webhook-v2: 2 of ann, carol"),
        "{check}"
    );

    scene.lose_the_token();
    let old = scene.sent("shares", &["ann", "bob"]);
    let new = scene.sent("second", &["ann", "carol"]);
    let manifest = scene.app.path("escrow.json");
    let newest = std::fs::read_to_string(&manifest).unwrap();
    assert!(newest.starts_with(&first));
    let both = [old.as_slice(), new.as_slice()].concat();
    scene.refused(
        &scene.restore(&old),
        "custodyd-wrap-v2, custodyd-webhook-v2",
    );
    scene.refused(&scene.restore(&new), "custodyd-mac-v1");
    scene.refused(&scene.restore(&both[..3]), "1 of 2 shares");
    // With the manifest of before nobody knows whose shares those are.
    std::fs::write(&manifest, &first).unwrap();
    scene.refused(&scene.restore(&both), "two ceremonies");
    // And the older keys alone do not pass for all of them.
    let host = std::fs::read(scene.home("host.key")).unwrap();
    scene.done(&scene.restore(&old));
    scene.refused("serve", "custodyd-wrap-v2");
    std::fs::write(&manifest, &newest).unwrap();
    write_private(Path::new(&scene.home("host.key")), &host);
    scene.refused("serve", "custodyd-wrap-v2");
    let text = scene.done(&scene.restore(&both));
    assert!(
        text.contains("imported custodyd-wrap-v2, custodyd-webhook-v2"),
        "{text}"
    );
    device.token = None;
    scene.go_on(device).await;

    // The day after: another token, everything at once.
    scene.lose_the_token();
    write_private(Path::new(&scene.home("host.key")), &host);
    let dry = scene
        .restore(&both)
        .replace("restore ", "restore --dry-run ");
    let told = scene.done(&dry);
    assert!(
        told.contains(&heard) && told.contains("and that of the ceremony before"),
        "{told}"
    );
    scene.done(&scene.restore(&both));
    let check = scene.done("token check");
    assert!(check.contains("the token holds exactly those"), "{check}");
}
