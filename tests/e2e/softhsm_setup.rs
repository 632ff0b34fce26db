//! The scripts of `softhsm-setup`, as an operator runs them: made once, checked, destroyed only when meant.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use custodyd_tests::TestApp;
use custodyd_tests::app::said;
use custodyd_tests::token::{self, LABEL};

fn script(name: &str, arguments: &[&str]) -> Output {
    let path = token::repository().join("softhsm-setup").join(name);
    Command::new(path)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn softhsm_setup_destroys_only_what_is_named_and_its_own() {
    let folder = token::in_memory("custodyd-setup-");
    let dir = folder.path().join("token");
    let at = dir.to_str().unwrap();
    let named = |label: &'static str| ["--dir", at, "--label", label];
    assert!(script("provision", &named("one")).status.success());
    let fingerprint = || files(&dir);
    let before = fingerprint();
    // Again: nothing is initialised a second time.
    assert!(said(&script("provision", &named("one"))).contains("nothing was changed"));
    for arguments in [vec![], vec!["--yes-destroy", "two"], vec!["--yes-destroy"]] {
        let output = script("destroy", &[&named("one")[..], &arguments].concat());
        assert!(!output.status.success(), "{arguments:?}: {}", said(&output));
    }
    let other = script(
        "destroy",
        &[&named("two")[..], &["--yes-destroy", "two"]].concat(),
    );
    assert!(
        said(&other).contains("not exactly one named two"),
        "{}",
        said(&other)
    );
    assert_eq!(fingerprint(), before);
    // A folder that is somebody else's.
    let foreign = folder.path().join("foreign");
    std::fs::create_dir_all(foreign.join("tokens")).unwrap();
    let foreign = foreign.to_str().unwrap();
    let refused = script(
        "destroy",
        &["--dir", foreign, "--label", "one", "--yes-destroy", "one"],
    );
    assert!(
        said(&refused).contains("was not made by provision"),
        "{}",
        said(&refused)
    );
    assert!(Path::new(foreign).join("tokens").is_dir());
    let done = script(
        "destroy",
        &[&named("one")[..], &["--yes-destroy", "one"]].concat(),
    );
    assert!(done.status.success(), "{}", said(&done));
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_token_that_a_daemon_uses_is_not_destroyed() {
    let mut app = TestApp::start().await;
    let dir = app.token.dir().to_owned();
    let named = [
        "--dir",
        dir.to_str().unwrap(),
        "--label",
        LABEL,
        "--yes-destroy",
        LABEL,
    ];
    let refused = script("destroy", &named);
    assert!(
        said(&refused).contains("stop it first"),
        "{}",
        said(&refused)
    );
    assert!(app.token.tokens().is_dir());
    // The control: the daemon was the only reason. One that has ended and that nobody has asked about yet is none.
    assert!(app.stop());
    let mut ended = a_custodyd_that_has_ended(&app.path("ended"));
    let done = script("destroy", &named);
    ended.wait().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    assert!(!app.token.tokens().exists());
}

/// As its parent leaves it that has not asked how it ended.
fn a_custodyd_that_has_ended(folder: &Path) -> Child {
    std::fs::create_dir(folder).unwrap();
    let program = folder.join("custodyd");
    std::fs::copy("/bin/true", &program).unwrap();
    let child = Command::new(program).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    while !std::fs::read_to_string(&status)
        .unwrap()
        .contains("State:\tZ")
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// Programs that kill the script that calls them, and all it has started, before the `AT`th of them does anything.
fn deadly_tools(folder: &Path) -> PathBuf {
    let tools = folder.join("tools");
    std::fs::create_dir(&tools).unwrap();
    for name in ["mv", "find", "shred", "rm", "rmdir", "sync"] {
        let text = format!(
            "#!/bin/sh\necho >>\"$COUNT\"\n[ \"$(wc -l <\"$COUNT\")\" -lt \"$AT\" ] || kill -KILL 0\n\
             exec /usr/bin/{name} \"$@\"\n"
        );
        let path = tools.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    tools
}

#[test]
fn a_destroy_that_was_interrupted_goes_on_and_leaves_no_key_and_no_pin() {
    let folder = token::in_memory("custodyd-setup-");
    let dir = folder.path().join("token");
    let at = dir.to_str().unwrap();
    let named = ["--dir", at, "--label", "one"];
    let meant = [&named[..], &["--yes-destroy", "one"]].concat();
    let path = format!(
        "{}:{}",
        deadly_tools(folder.path()).display(),
        std::env::var("PATH").unwrap()
    );
    let mut kept_a_token = 0;
    let mut interrupted = 0;
    for step in 1.. {
        assert!(script("provision", &named).status.success());
        let count = folder.path().join("count");
        let _ = std::fs::remove_file(&count);
        let program = token::repository().join("softhsm-setup/destroy");
        let destroyed = Command::new(program)
            .args(&meant)
            .env("PATH", &path)
            .env("COUNT", &count)
            .env("AT", step.to_string())
            .stdin(Stdio::null())
            .process_group(0)
            .output()
            .unwrap();
        if destroyed.status.success() {
            break;
        }
        interrupted += 1;
        // Either the token is whole, or no other one is made beside what is left of it.
        let left = files(&dir);
        let whole = dir.join("tokens").exists();
        let again = said(&script("provision", &named));
        if whole {
            assert!(again.contains("nothing was changed"), "{step}: {again}");
            kept_a_token += 1;
        } else if left.iter().any(|(path, _)| path.ends_with("destroying")) {
            assert!(again.contains("destroy was interrupted"), "{step}: {again}");
            let red = script("check", &named);
            assert!(
                said(&red).contains("RED   destroy was interrupted"),
                "{}",
                said(&red)
            );
            let two = ["--dir", at, "--label", "two", "--yes-destroy", "two"];
            let refused = script("destroy", &two);
            assert!(!refused.status.success(), "{}", said(&refused));
            assert!(!script("destroy", &named).status.success());
            assert_eq!(files(&dir), left);
        } else {
            // Everything was gone but the folder, in which that run of `provision` has made a new token.
            assert!(again.contains("Made the token"), "{step}: {again}");
        }
        let done = script("destroy", &meant);
        assert!(done.status.success(), "{step}: {}", said(&done));
        assert!(!dir.exists(), "{step}: {:?}", files(&dir));
    }
    assert!(kept_a_token == 1 && interrupted >= 8, "{interrupted}");
    assert!(!dir.exists());
}

#[test]
fn what_is_wrong_with_a_token_is_a_red_line_each() {
    let folder = token::in_memory("custodyd-setup-");
    let dir = folder.path().join("token");
    let at = dir.to_str().unwrap();
    let named = ["--dir", at, "--label", "one"];
    let checked = |label: &str| {
        let output = script("check", &["--dir", at, "--label", label]);
        (output.status.code(), said(&output))
    };
    let (status, text) = checked("one");
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("tokens is missing"), "{text}");
    assert!(script("provision", &named).status.success());
    // The control: nothing is wrong, and nothing is red.
    let fine = || {
        let (status, text) = checked("one");
        assert_eq!(status, Some(0), "{text}");
        assert!(!text.contains("RED"), "{text}");
    };
    fine();
    let mode = |name: &str, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(dir.join(name), permissions).unwrap();
    };
    let red = |label: &str, what: &str, todo: &str| {
        let (status, text) = checked(label);
        assert_eq!(status, Some(1), "{text}");
        let mut lines = text.lines();
        let line = lines.find(|line| line.starts_with("RED") && line.contains(what));
        assert!(line.is_some(), "{what}: {text}");
        let next = lines.next().unwrap_or_default();
        assert!(next.contains(todo), "{what}: {text}");
    };
    for (name, open, shut) in [
        ("user-pin", 0o644, 0o600),
        ("so-pin", 0o640, 0o600),
        ("tokens", 0o755, 0o700),
        ("", 0o755, 0o700),
    ] {
        mode(name, open);
        red(
            "one",
            &format!("has mode {open:o}"),
            &format!("chmod {shut:o}"),
        );
        mode(name, shut);
        fine();
    }
    for name in ["user-pin", "so-pin", "softhsm2.conf"] {
        let (path, aside) = (dir.join(name), folder.path().join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        red("one", &format!("{name} is missing"), "run provision");
        std::fs::rename(&aside, &path).unwrap();
        fine();
    }
    let conf = dir.join("softhsm2.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, text.replace("/tokens", "/elsewhere")).unwrap();
    red(
        "one",
        "is not what provision writes",
        "path of this directory",
    );
    std::fs::write(&conf, text).unwrap();
    fine();
    red("two", "no token two", "its right label: one");
    let other = script("provision", &["--dir", at, "--label", "two"]);
    assert!(!other.status.success());
    assert!(said(&other).contains("is called 'one'"), "{}", said(&other));
    fine();
    // A token that nobody has given a user PIN.
    std::fs::remove_dir_all(dir.join("tokens")).unwrap();
    std::fs::create_dir(dir.join("tokens")).unwrap();
    mode("tokens", 0o700);
    let initialised = Command::new("pkcs11-tool")
        .env("SOFTHSM2_CONF", &conf)
        .args([
            "--module",
            &token::module(),
            "--init-token",
            "--slot-index",
            "0",
        ])
        .args(["--label", "one", "--so-pin", "12345678"])
        .output()
        .unwrap();
    assert!(initialised.status.success(), "{}", said(&initialised));
    red("one", "the user PIN is not set", "use another directory");
}

/// Names and contents below a folder.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}
