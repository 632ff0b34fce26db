//! Two SoftHSM2 tokens of one realm, in two slots of one module, with the same keys: made by the escrow's
//! ceremony, as an operator makes them. Either can be taken away and brought back, with all that it remembers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use custodyd_hsm::escrow::Identity;

use crate::app::said;
use crate::token::{LABEL, SoftToken, copy_tokens, module, run};
use crate::{Setup, TestApp};

/// The label of the second token.
pub const SPARE: &str = "custodyd-spare";
const CUSTODIANS: [&str; 2] = ["ann", "bob"];

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Primary,
    Spare,
}

/// The two tokens' directories, and what the custodians hold.
#[derive(Debug)]
pub struct Pair {
    /// Of SoftHSM2.
    tokens: PathBuf,
    /// Where a token is while it is away, and copies are: on the same file system.
    away: PathBuf,
    /// Everything of the ceremony.
    home: PathBuf,
    primary: String,
    spare: String,
}

impl Pair {
    /// A daemon with both, before their first key.
    ///
    /// # Panics
    /// When one of them cannot be made.
    #[must_use]
    pub fn prepared(setup: Setup) -> (Self, TestApp) {
        let token = SoftToken::blank();
        let primary = only(&token.tokens(), &[]);
        initialise_spare(&token);
        let spare = only(&token.tokens(), &[&primary]);
        let section = section(&token, true);
        let tokens = token.tokens();
        let away = token.dir().join("away");
        fs::create_dir(&away).unwrap();
        let setup = Setup {
            token: Some(section),
            ..setup
        };
        let app = TestApp::prepared(setup, token);
        let home = app.path("ceremony");
        fs::create_dir(&home).unwrap();
        let pair = Self {
            tokens,
            away,
            home,
            primary,
            spare,
        };
        (pair, app)
    }

    /// The same with a realm on both, served.
    ///
    /// # Panics
    /// When the realm cannot be made.
    pub async fn founded(setup: Setup) -> (Self, TestApp) {
        let (pair, mut app) = Self::prepared(setup);
        pair.create_keys(&app);
        app.found().await;
        (pair, app)
    }

    /// The ceremony that brings the same keys into both.
    ///
    /// # Panics
    /// When it is refused.
    pub fn create_keys(&self, app: &TestApp) {
        for name in CUSTODIANS {
            let identity = Identity::generate();
            let file = self.home.join(format!("{name}.key"));
            fs::write(&file, identity.to_file().expose()).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let command = format!("escrow create {}", self.shared_in("shares"));
        done(app, &command);
    }

    /// That both custodians get a share, in this folder.
    fn shared_in(&self, directory: &str) -> String {
        let custodians = CUSTODIANS.map(|name| {
            let file = fs::read(self.home.join(format!("{name}.key"))).unwrap();
            let identity = Identity::from_file(&file).unwrap();
            format!("--custodian {name}={} ", identity.recipient())
        });
        let directory = self.home.join(directory);
        format!("--needed 2 {}{}", custodians.concat(), directory.display())
    }

    /// The command of the ceremony that adds versions of these keys, with its shares in this folder.
    ///
    /// # Panics
    /// Where the first ceremony did not take place.
    #[must_use]
    pub fn add_version(&self, keys: &str, directory: &str) -> String {
        format!("escrow add-version {keys} {}", self.shared_in(directory))
    }

    /// Where the shares of a ceremony are.
    #[must_use]
    pub fn shares(&self, directory: &str) -> PathBuf {
        self.home.join(directory)
    }

    /// A custodian looks at their share of a ceremony, with the manifest as another one has left it.
    #[must_use]
    pub fn verify(&self, directory: &str, manifest: &str) -> String {
        format!(
            "escrow verify --identity {} --manifest {} {}",
            self.home.join("bob.key").display(),
            self.home.join(manifest).join("manifest.json").display(),
            self.home.join(directory).join("bob.age").display()
        )
    }

    /// What a custodian reads out of the manifest of that ceremony.
    ///
    /// # Panics
    /// When their share is not of it.
    #[must_use]
    pub fn read_out(&self, app: &TestApp, directory: &str) -> String {
        let command = format!("{} --json", self.verify(directory, directory));
        let output = app.command(&command).output().unwrap();
        assert!(output.status.success(), "{command}: {}", said(&output));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["result"]["manifest"].as_str().unwrap().to_owned()
    }

    /// The custodians bring the keys into a token that has none.
    ///
    /// # Panics
    /// When it is refused.
    pub fn restore_keys(&self, app: &TestApp, token: &str) {
        self.restore_from(app, &format!("--token {token}"), &["shares"]);
    }

    /// The same with the shares of these ceremonies.
    ///
    /// # Panics
    /// When it is refused.
    pub fn restore_from(&self, app: &TestApp, options: &str, directories: &[&str]) {
        done(app, &self.restore(app, options, directories));
    }

    /// The same, which must be refused so.
    ///
    /// # Panics
    /// When it is not.
    pub fn restore_keys_refused(
        &self,
        app: &TestApp,
        token: &str,
        directories: &[&str],
        what: &str,
    ) {
        let command = self.restore(app, &format!("--token {token}"), directories);
        let output = app.command(&command).output().unwrap();
        let text = said(&output);
        assert!(!output.status.success() && text.contains(what), "{text}");
        fs::remove_file(self.home.join("host.key")).unwrap();
    }

    fn restore(&self, app: &TestApp, options: &str, directories: &[&str]) -> String {
        let host = self.home.join("host.key");
        done(app, &format!("escrow receive {}", host.display()));
        let text = fs::read_to_string(&host).unwrap();
        let mut lines = text.lines();
        let recipient = lines.find_map(|line| line.strip_prefix("# public key: "));
        let mut sent = Vec::new();
        for directory in directories {
            let shares = self.home.join(directory);
            for name in CUSTODIANS {
                let out = self.home.join(format!("{directory}-{name}.sent"));
                let _ = fs::remove_file(&out);
                done(
                    app,
                    &format!(
                        "escrow reencrypt --identity {} --manifest {} --to {} {} {}",
                        self.home.join(format!("{name}.key")).display(),
                        shares.join("manifest.json").display(),
                        recipient.unwrap(),
                        shares.join(format!("{name}.age")).display(),
                        out.display()
                    ),
                );
                sent.push(out.display().to_string());
            }
        }
        format!(
            "escrow restore {options} --identity {} {}",
            host.display(),
            sent.join(" ")
        )
    }

    fn name(&self, which: Which) -> &str {
        match which {
            Which::Primary => &self.primary,
            Which::Spare => &self.spare,
        }
    }

    /// Its serial number: the end of the name of its directory.
    #[must_use]
    pub fn serial(&self, which: Which) -> String {
        let digits: String = self.name(which).chars().filter(|c| *c != '-').collect();
        digits[digits.len() - 16..].to_owned()
    }

    /// It is gone, with everything in it, whatever uses it.
    ///
    /// # Panics
    /// When it is away already.
    pub fn take_away(&self, which: Which) {
        let name = self.name(which);
        fs::rename(self.tokens.join(name), self.away.join(name)).unwrap();
    }

    /// # Panics
    /// When it is there.
    pub fn bring_back(&self, which: Which) {
        let name = self.name(which);
        fs::rename(self.away.join(name), self.tokens.join(name)).unwrap();
    }

    /// A copy of both tokens' directories, as they are now.
    ///
    /// # Panics
    /// When they cannot be read.
    pub fn copy_to(&self, name: &str) {
        copy_tokens(&self.tokens, &self.away.join(name)).unwrap();
    }

    /// One of them as it was when that copy was made.
    ///
    /// # Panics
    /// When there is no such copy.
    pub fn put_back(&self, which: Which, copy: &str) {
        let name = self.name(which);
        fs::remove_dir_all(self.tokens.join(name)).unwrap();
        fs::rename(self.away.join(copy).join(name), self.tokens.join(name)).unwrap();
    }

    /// The spare token is lost for good; another one of its label, and nothing in it, takes its place.
    ///
    /// # Panics
    /// When that cannot be made.
    pub fn another_spare(&mut self, app: &TestApp) {
        initialise_spare(&app.token);
        self.spare = only(&self.tokens, &[&self.primary]);
    }

    /// The configuration names the spare, too, or the first alone, or the spare as the only one.
    ///
    /// # Panics
    /// When the configuration cannot be written.
    pub fn configure(&self, app: &TestApp, as_one: Option<Which>) {
        let path = app.path("custodyd.toml");
        let text = fs::read_to_string(&path).unwrap();
        let start = text.find("[token]\n").unwrap();
        let end = text.find("[store]\n").unwrap();
        let both = section(&app.token, true);
        let one = section(&app.token, false);
        let section = match as_one {
            None => both,
            Some(Which::Primary) => one,
            Some(Which::Spare) => one.replace(LABEL, SPARE),
        };
        let text = format!("{}[token]\n{section}{}", &text[..start], &text[end..]);
        fs::write(&path, text).unwrap();
    }
}

/// `[token]`, with the second one where there are both.
fn section(token: &SoftToken, both: bool) -> String {
    let mut text = format!(
        "{}escrow = \"escrow.json\"\nfailover_after = \"1s\"\n",
        token.section()
    );
    if both {
        let spare = token.section().replace(LABEL, SPARE);
        text.push_str(&format!("[token.replicas.spare]\n{spare}"));
    }
    text
}

fn done(app: &TestApp, command: &str) {
    let output = app.command(command).output().unwrap();
    assert!(output.status.success(), "{command}: {}", said(&output));
}

/// The token's directory that is none of these.
fn only(tokens: &Path, others: &[&String]) -> String {
    let entries = fs::read_dir(tokens).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !others.contains(&name)).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names.remove(0)
}

fn initialise_spare(token: &SoftToken) {
    let (name, value) = token.environment();
    let pin = |file: &str| fs::read_to_string(token.dir().join(file)).unwrap();
    // These PINs are of this test alone; whoever reads its command line reads its files.
    run(Command::new("softhsm2-util")
        .env(name, value)
        .args([
            "--module",
            &module(),
            "--init-token",
            "--free",
            "--label",
            SPARE,
        ])
        .args(["--so-pin", &pin("so-pin"), "--pin", &pin("user-pin")]));
}
