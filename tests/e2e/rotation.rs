//! Keys are rotated, from outside: a real daemon and its token, requests that go on, and a daemon that
//! is killed in between.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use custodyd_tests::admin::literal;
use custodyd_tests::app::said;
use custodyd_tests::device::b64;
use custodyd_tests::tpm::SwTpm;
use custodyd_tests::{Device, Setup, TestApp};
use serde_json::Value;

use crate::tpm;

const PIN: &str = "830517";
const ACCOUNTS: usize = 24;

pub(crate) fn run(app: &TestApp, arguments: &str) -> (bool, String) {
    let output = app.command(arguments).output().unwrap();
    (output.status.success(), said(&output))
}

pub(crate) fn done(app: &TestApp, arguments: &str) -> String {
    let (well, text) = run(app, arguments);
    assert!(well, "{arguments}: {text}");
    text
}

pub(crate) fn refused(app: &TestApp, arguments: &str, what: &str) {
    let (well, text) = run(app, arguments);
    assert!(!well && text.contains(what), "{arguments}: {text}");
}

/// Records under a key, as `key list` counts them; `None` where it is not listed.
fn under(app: &TestApp, key: &str) -> Option<u64> {
    let output = app.command("key list --json").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys = answer["result"]["keys"].as_array().unwrap().clone();
    let found = keys.into_iter().find(|one| one["key"] == key);
    found.and_then(|one| one["records"].as_u64())
}

pub(crate) async fn owners(app: &TestApp, count: usize) -> Vec<Device> {
    let mut owners = Vec::with_capacity(count);
    for number in 0..count {
        let mut owner = app.device("notes");
        owner.enrol().await;
        let secret = format!("secret of {number}");
        owner
            .back_up("device-secret", secret.as_bytes())
            .await
            .expect(200);
        owners.push(owner);
    }
    owners
}

/// A move that goes slowly, so that there is time to kill the daemon beneath it.
fn slowly(app: &TestApp) -> Child {
    begun(app, "key rewrap --share 2 --json")
}

pub(crate) fn begun(app: &TestApp, arguments: &str) -> Child {
    app.command(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn records_move_to_a_newer_key_while_the_daemon_serves_and_is_killed() {
    let mut app = TestApp::start().await;
    let mut owners = owners(&app, ACCOUNTS).await;
    let all = u64::try_from(ACCOUNTS).unwrap() + 1;
    assert_eq!(under(&app, "custodyd-wrap-v1"), Some(all));
    assert!(done(&app, "key rotate wrap").contains("custodyd-wrap-v2 is used"));
    let mut admin = app.admin().await;
    let victim = admin.accounts().await.pop().unwrap();
    admin.close().await;
    // What is new is under it at once; the older is still needed, and may not go.
    owners[0].recover("device-secret").await.expect(200);
    assert_eq!(under(&app, "custodyd-wrap-v1"), Some(all - 1));
    assert_eq!(under(&app, "custodyd-wrap-v2"), Some(1));
    refused(
        &app,
        "key retire wrap-v1",
        "records are sealed under custodyd-wrap-v1",
    );
    refused(&app, "key retire wrap-v2", "used for what is new");
    // A slip of the pen is not told that the key is gone.
    for never in ["key retire wrap-v7", "key retire wrap-v7 --destroy --yes"] {
        refused(
            &app,
            never,
            "has never used it: its newest is custodyd-wrap-v2",
        );
    }
    for round in 0..3 {
        let mut moving = slowly(&app);
        // Requests go on meanwhile: no one of them fails.
        for owner in owners.iter_mut().skip(round * 4).take(4) {
            owner.recover("device-secret").await.expect(200);
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        app.kill();
        let _ = moving.wait();
        app.launch().await;
        let (old, new) = (
            under(&app, "custodyd-wrap-v1"),
            under(&app, "custodyd-wrap-v2"),
        );
        assert_eq!(old.unwrap() + new.unwrap(), all, "round {round}");
    }
    let text = done(&app, "key rewrap --share 100");
    assert!(text.contains("no record is left"), "{text}");
    assert_eq!(under(&app, "custodyd-wrap-v1"), Some(0));
    assert_eq!(under(&app, "custodyd-wrap-v2"), Some(all));
    let careful = done(&app, "key retire wrap-v1 --destroy");
    assert!(careful.contains("a backup") && careful.contains("nothing was changed"));
    let text = done(&app, "key retire wrap-v1");
    assert!(text.contains("custodyd-wrap-v1 is retired"), "{text}");
    for owner in &mut owners {
        owner.recover("device-secret").await.expect(200);
    }
    put_back(&mut app, victim, owners.last_mut().unwrap()).await;
    let text = done(&app, "key retire wrap-v1 --destroy --yes");
    assert!(text.contains("is destroyed in the token"), "{text}");
    assert_eq!(under(&app, "custodyd-wrap-v1"), None);
    // The daemon does not mind that the key is gone, now or when it starts again.
    for owner in &mut owners {
        owner.recover("device-secret").await.expect(200);
    }
    assert_eq!(app.operator("/readyz").await.0, 200);
    assert!(app.stop(), "{}", app.log());
    let text = done(&app, "ledger verify --open");
    assert!(!text.contains("custodyd-wrap-v1"), "{text}");
    let tail = done(&app, "ledger tail --entries 400");
    for said in ["custodyd-wrap-v2 is in use", "custodyd-wrap-v1 is retired"] {
        assert!(tail.contains(said), "{tail}");
    }
    app.launch().await;
    for (number, owner) in owners.iter_mut().enumerate() {
        let secret = owner.recover("device-secret").await.expect(200);
        let expected = b64(format!("secret of {number}").as_bytes());
        assert!(
            secret.body.to_string().contains(&expected),
            "{}",
            secret.body
        );
    }
}

/// The administrator puts a record back that is under the retired key.
async fn put_back(app: &mut TestApp, victim: (Vec<u8>, i64, Vec<u8>), owner: &mut Device) {
    let (id, generation, old) = victim;
    // Without a cache in memory, so that the row is what is read.
    app.restart().await;
    let mut admin = app.admin().await;
    let place = format!("WHERE id = {}", literal(&id));
    let honest = admin
        .blob(&format!("SELECT sealed FROM records {place}"))
        .await;
    assert_ne!(honest, old);
    let put = |generation: i64, sealed: &[u8]| {
        format!(
            "UPDATE records SET generation = {generation}, sealed = {} {place}",
            literal(sealed)
        )
    };
    let now = admin.accounts().await;
    let newest = now.iter().find(|row| row.0 == id).unwrap().1;
    assert_eq!(admin.run(&put(generation, &old)).await, 1);
    admin.close().await;
    owner
        .recover("device-secret")
        .await
        .refused("500 record-tampered");
    let mut admin = app.admin().await;
    assert_eq!(admin.run(&put(newest, &honest)).await, 1);
    admin.close().await;
    owner.recover("device-secret").await.expect(200);
}

#[tokio::test]
async fn signing_keys_are_rotated_and_what_the_older_ones_signed_still_verifies() {
    let mut app = TestApp::start().await;
    let mut owner = owners(&app, 1).await.remove(0);
    owner.set_pin(PIN).await.expect(200);
    // Published before they are used, so that who pins keys can add them.
    for purpose in ["bind", "checkpoint", "webhook"] {
        done(&app, &format!("key rotate {purpose} --announce"));
        refused(
            &app,
            &format!("key rotate {purpose} --announce"),
            "announced already",
        );
    }
    let set = owner.call("GET", "/.well-known/jwks.json", None).await;
    assert_eq!(set.body["keys"].as_array().unwrap().len(), 6);
    let listed = done(&app, "key list");
    assert!(listed.contains("signs nothing yet"), "{listed}");
    refused(&app, "key rotate wrap --announce", "nothing to announce");
    for purpose in ["bind", "checkpoint", "webhook"] {
        done(&app, &format!("key rotate {purpose}"));
    }
    let again = owner.call("GET", "/.well-known/jwks.json", None).await;
    assert_eq!(again.body["keys"].as_array().unwrap().len(), 6);
    // An owner of before by the older binding key, one of now by the newer.
    owner.try_pin(PIN, &["device-secret"]).await.expect(201);
    let mut newer = owners(&app, 1).await.remove(0);
    newer.set_pin(PIN).await.expect(200);
    newer.try_pin(PIN, &["device-secret"]).await.expect(201);
    refused(&app, "key retire bind-v1", "checked on every use");
    refused(&app, "key retire checkpoint-v1", "evidence of auditors");
    // Both are of before, with their sessions; one more is made under the newer MAC key.
    assert!(done(&app, "key rotate mac").contains("custodyd-mac-v2"));
    owner.try_pin(PIN, &["device-secret"]).await.expect(201);
    newer.try_pin(PIN, &["device-secret"]).await.expect(201);
    let mut newest = owners(&app, 1).await.remove(0);
    newest.set_pin(PIN).await.expect(200);
    newest.try_pin(PIN, &["device-secret"]).await.expect(201);
    // A PIN that is set anew is under the newer key, and its account is where it was.
    newer.set_pin(PIN).await.expect(200);
    newer.try_pin(PIN, &["device-secret"]).await.expect(201);
    let listed = done(&app, "key list");
    let older = listed.lines().find(|line| line.contains("mac-v1"));
    assert!(
        older.is_some_and(|line| line.contains("found by it")),
        "{listed}"
    );
    refused(&app, "key retire mac-v1", "enrolled again");
    refused(
        &app,
        "key rotate bind --owner-password-file /nowhere",
        "is for a TPM",
    );
    done(&app, "key retire webhook-v1");
    let set = owner.call("GET", "/.well-known/jwks.json", None).await;
    assert_eq!(set.body["keys"].as_array().unwrap().len(), 5);
    // The same without a daemon.
    assert!(app.stop(), "{}", app.log());
    let text = done(&app, "key rotate bind");
    assert!(text.contains("custodyd-bind-v3"), "{text}");
    done(&app, "key rotate wrap");
    done(&app, "key rewrap --share 100");
    done(&app, "key retire wrap-v1");
    app.launch().await;
    for owner in [&mut owner, &mut newer] {
        owner.try_pin(PIN, &["device-secret"]).await.expect(201);
    }
    let listed = done(&app, "key list");
    assert!(listed.contains("custodyd-bind-v3"), "{listed}");
    assert!(app.stop(), "{}", app.log());
    done(&app, "ledger verify --open");
}

#[tokio::test]
async fn a_pass_that_runs_is_not_taken_for_another_one() {
    let app = TestApp::start().await;
    owners(&app, ACCOUNTS).await;
    done(&app, "key rotate wrap");
    let mut moving = begun(&app, "key rewrap --share 1 --app gone");
    while !app.log().contains("an operator moves the records") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for other in ["--share 100", "--app another", "--share 1 --app another"] {
        let runs = "a pass runs already, with --share 1 --app gone";
        refused(&app, &format!("key rewrap {other}"), runs);
    }
    // Who asks for nothing else is told of the pass that runs, and of its end.
    let told = done(&app, "key rewrap --app gone");
    assert!(told.contains("no record is left"), "{told}");
    // None of them was of an app of that name.
    let whose = told.split_once("is of gone: is that the name? Served are ");
    assert!(
        whose.is_some_and(|(_, served)| served.contains("notes")),
        "{told}"
    );
    assert!(moving.wait().unwrap().success());
    // The control: now the same options begin another.
    done(&app, "key rewrap --share 100 --app another");
}

/// A file for one password.
fn password(tpm: &SwTpm, name: &str, text: &str) -> PathBuf {
    let path = tpm.dir().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// As docs/TPM.md sets a TPM up: its owner has a password, which the daemon does not know.
#[tokio::test]
async fn keys_of_a_tpm_are_made_and_destroyed_with_the_owners_password_alone() {
    const OWNER: &str = "the owner's";
    let tpm = SwTpm::blank();
    tpm.tool("tpm2_changeauth", &["-c", "owner", OWNER]);
    let right = password(&tpm, "right", &format!("{OWNER}\n"));
    let wrong = password(&tpm, "wrong", "another's");
    let right = format!("--owner-password-file {}", right.display());
    let wrong = format!("--owner-password-file {}", wrong.display());
    let arguments: Vec<&str> = right.split(' ').collect();
    let line = tpm::provisioned_by(&tpm, "", &arguments);
    let mut app = TestApp::with(Setup {
        token: Some(tpm::section(&tpm, &format!("{line}\n"))),
        config: tpm::LEDGER.to_owned(),
        ..Setup::default()
    })
    .await;
    let mut owner = owners(&app, 1).await.remove(0);
    owner.set_pin("830517").await.expect(200);
    let hint = "--owner-password-file";
    refused(&app, "key rotate wrap", hint);
    refused(&app, &format!("key rotate wrap {wrong}"), hint);
    let listed = done(&app, "key list");
    assert!(!listed.contains("wrap-v2"), "{listed}");
    // Nothing of an attempt stays, and the password of one request is not there for the next.
    let made = done(&app, &format!("key rotate wrap {right}"));
    assert!(made.contains("custodyd-wrap-v2 is used"), "{made}");
    refused(&app, "key rotate bind", hint);
    done(&app, "key rewrap --share 100");
    let destroy = "key retire wrap-v1 --destroy --yes";
    refused(&app, destroy, hint);
    refused(&app, &format!("{destroy} {wrong}"), hint);
    let gone = done(&app, &format!("{destroy} {right}"));
    assert!(gone.contains("is destroyed in the token"), "{gone}");
    owner.recover("device-secret").await.expect(200);
    let made = done(&app, &format!("key rotate mac {right}"));
    assert!(made.contains("custodyd-mac-v2 is used"), "{made}");
    owner
        .try_pin("830517", &["device-secret"])
        .await
        .expect(201);
    assert!(!app.log().contains(OWNER) && !app.log().contains("another's"));
    // The same without a daemon.
    assert!(app.stop(), "{}", app.log());
    refused(&app, "key rotate bind", hint);
    let made = done(&app, &format!("key rotate bind {right}"));
    assert!(made.contains("custodyd-bind-v2 is used"), "{made}");
    fill(&tpm, OWNER);
    let full = format!("key rotate webhook {right}");
    refused(&app, &full, "no room for another persistent key");
    app.launch().await;
    owner.recover("device-secret").await.expect(200);
}

/// Takes all the room there is for what stays in a TPM; `tpm2_nvundefine` gives back what it names.
pub(crate) fn fill(tpm: &SwTpm, owner: &str) -> Vec<String> {
    let mut index = 0x0180_0000;
    for size in ["1024", "128", "8"] {
        let mut define = || {
            index += 1;
            let mut tool = Command::new("tpm2_nvdefine");
            tool.args(["-C", "o", "-P", owner, "-s", size, &format!("0x{index:x}")]);
            tool.env("TPM2TOOLS_TCTI", tpm.tcti()).output().unwrap()
        };
        while define().status.success() {}
    }
    assert!(index > 0x0180_0003, "nothing could be defined");
    let listed = tpm.tool("tpm2_getcap", &["handles-nv-index"]);
    let listed = listed.lines().filter_map(|line| line.strip_prefix("- "));
    listed.map(ToOwned::to_owned).collect()
}
