//! `custodyd token list`, `provision` and `check`, as an operator meets them: the real binary against
//! tokens of its own. Whatever is refused is compared before and after.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use custodyd_tests::TestApp;
use custodyd_tests::app::said;
use custodyd_tests::kryoptic::{self, KryopticToken};
use custodyd_tests::token::{self, LABEL, SoftToken};
use custodyd_tests::tpm::SwTpm;
use serde_json::Value;

/// A command without any configuration; nothing of it is a terminal.
fn custodyd(environment: &(&'static str, PathBuf), arguments: &[&str]) -> Output {
    let mut command = Command::new(token::program("custodyd"));
    command
        .args(["--config", "/nonexistent/custodyd.toml"])
        .env(environment.0, &environment.1)
        .args(arguments)
        .stdin(Stdio::null());
    command.output().unwrap()
}

fn provision(token: &SoftToken, more: &[&str]) -> Output {
    let (module, pin) = (token::module(), token.user_pin_file());
    let pin = pin.to_str().unwrap();
    let usual = [
        "token",
        "provision",
        "--module",
        &module,
        "--label",
        LABEL,
        "--pin-file",
        pin,
    ];
    custodyd(&token.environment(), &[&usual, more].concat())
}

/// Refused, in a sentence with these words; what the token and its folder hold is as it was.
fn refused(token: &SoftToken, more: &[&str], words: &[&str]) {
    let before = objects(token);
    let output = provision(token, more);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("ok   made"), "{text}");
    assert_eq!(objects(token), before, "{text}");
}

fn tool(token: &SoftToken, arguments: &[&str]) -> String {
    let (name, value) = token.environment();
    let output = Command::new("pkcs11-tool")
        .args([
            "--module",
            &token::module(),
            "--token-label",
            LABEL,
            "--login",
            "--pin",
            "env:USER_PIN",
        ])
        .args(arguments)
        .env(name, value)
        .env(
            "USER_PIN",
            std::fs::read_to_string(token.user_pin_file()).unwrap(),
        )
        .output()
        .expect("pkcs11-tool is missing: apt install opensc");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every object of the token, by another program.
fn objects(token: &SoftToken) -> Vec<String> {
    let listed = tool(token, &["--list-objects"]);
    let mut lines: Vec<String> = listed.lines().map(ToOwned::to_owned).collect();
    lines.sort();
    lines
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(output)))
}

/// The checks of this name in a JSON answer.
fn checks<'a>(answer: &'a Value, name: &str) -> Vec<&'a Value> {
    let all = answer["checks"].as_array().unwrap();
    all.iter().filter(|check| check["check"] == name).collect()
}

#[test]
fn provisioning_makes_keys_proves_them_and_writes_what_to_configure() {
    let token = SoftToken::without_keys();
    let dry = said(&provision(&token, &["--dry-run"]));
    assert_eq!(dry.matches("ok   would make").count(), 5, "{dry}");
    assert_eq!(objects(&token).len(), 0, "a dry run made something");
    let file = token.dir().join("token.toml");
    let write = ["--write", file.to_str().unwrap()];
    let done = provision(&token, &write);
    let text = said(&done);
    assert!(done.status.success(), "{text}");
    assert_eq!(text.matches("ok   made").count(), 5, "{text}");
    for proof in [
        "7 altered or moved ones were refused",
        "3 keys sign",
        "moved on 16 times and removed",
    ] {
        assert!(text.contains(proof), "{text}");
    }
    assert!(
        !objects(&token).join("\n").contains("Data object"),
        "a scratch anchor was left"
    );
    // What was written is there once; a second time nothing happens at all.
    let fragment = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("anchor = \"strict\""), "{text}");
    assert!(
        fragment.contains("serial = ") && fragment.contains("anchor = \"strict\""),
        "{fragment}"
    );
    refused(&token, &write, &["is there already", "nothing was changed"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), fragment);
    let before = objects(&token);
    let again = provision(&token, &[]);
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(said(&again).matches("ok   there").count(), 5);
    assert_eq!(objects(&token), before);
    check_with(&token, &fragment);
}

/// The fragment is all that a configuration needs of the token.
fn check_with(token: &SoftToken, fragment: &str) {
    let config = token.dir().join("custodyd.toml");
    let rest = "[realm]\nname = \"r.example\"\n[listen]\npublic = \"127.0.0.1:1\"\nurl = \"https://localhost\"\n\
                certificate = \"c\"\nprivate_key = \"k\"\n";
    std::fs::write(&config, format!("{rest}{fragment}")).unwrap();
    let (name, value) = token.environment();
    let mut command = Command::new(token::program("custodyd"));
    command.arg("--config").arg(&config).env(name, value);
    let checked = command.args(["token", "check"]).output().unwrap();
    let text = said(&checked);
    assert!(checked.status.success(), "{text}");
    assert!(text.contains("no anchor in this token yet"), "{text}");
}

#[test]
fn a_token_that_is_not_the_one_meant_is_refused_without_a_pin() {
    let token = SoftToken::without_keys();
    // Were it presented, the token would say afterwards that a wrong one was tried.
    let pin = token.user_pin_file();
    let right = std::fs::read(&pin).unwrap();
    std::fs::write(&pin, "wrong-pin").unwrap();
    let module = token::module();
    let told = |label: &str, more: &[&str]| {
        let pin = pin.to_str().unwrap();
        let usual = [
            "token",
            "provision",
            "--module",
            &module,
            "--label",
            label,
            "--pin-file",
            pin,
        ];
        let output = custodyd(&token.environment(), &[&usual, more].concat());
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        said(&output)
    };
    let label = told("custodyd-prod", &[]);
    assert!(label.contains("present: \"custodyd-test\""), "{label}");
    assert!(
        label.contains("--init-token") && label.contains("never does it"),
        "{label}"
    );
    let serial = told(LABEL, &["--serial", "0"]);
    assert!(serial.contains("serial number 0"), "{serial}");
    // The label is right, and a token is there: nothing is to be initialised.
    assert!(serial.contains("give the serial number of the right token"));
    assert!(!serial.contains("--init-token"), "{serial}");
    assert!(told(LABEL, &["--slot", "77"]).contains("not in slot 77"));
    let listed = || {
        said(&custodyd(
            &token.environment(),
            &["token", "list", "--module", &module],
        ))
    };
    assert!(listed().contains("user PIN set;"), "{}", listed());
    // The control: where the token is the right one, the wrong PIN is presented, once.
    let wrong = told(LABEL, &[]);
    assert!(
        wrong.contains("refused the PIN") && wrong.contains("not tried again"),
        "{wrong}"
    );
    assert!(listed().contains("a wrong one was tried"), "{}", listed());
    std::fs::write(&pin, right).unwrap();
    assert_eq!(objects(&token).len(), 0);
}

#[test]
fn the_pin_is_no_argument_and_its_file_is_closed_to_others() {
    let token = SoftToken::without_keys();
    let module = token::module();
    let usual = ["token", "provision", "--module", &module, "--label", LABEL];
    let argument = custodyd(
        &token.environment(),
        &[&usual[..], &["--pin", "1234"]].concat(),
    );
    assert_eq!(argument.status.code(), Some(2), "{}", said(&argument));
    let none = custodyd(&token.environment(), &usual);
    assert!(said(&none).contains("--pin-file FILE"), "{}", said(&none));
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(token.user_pin_file(), mode).unwrap();
    let open = provision(&token, &[]);
    assert!(said(&open).contains("run: chmod 0600"), "{}", said(&open));
}

#[test]
fn keys_that_are_double_weak_or_lost_are_refused_before_anything_is_changed() {
    let token = SoftToken::fresh();
    let generate = |label: &str, more: &[&str]| {
        let usual = [
            "--keygen",
            "--key-type",
            "GENERIC:32",
            "--usage-sign",
            "--sensitive",
            "--private",
            "--label",
            label,
        ];
        tool(&token, &[&usual, more].concat());
    };
    let delete = |label: &str| {
        tool(
            &token,
            &["--delete-object", "--type", "secrkey", "--label", label],
        );
    };
    generate("custodyd-wrap-v1", &[]);
    refused(
        &token,
        &[],
        &[
            "2 objects",
            "custodyd-wrap-v1",
            "find out which one is in use",
        ],
    );
    refused(&token, &["--dry-run"], &["2 objects"]);
    // One of the two is gone now, nobody knows which; both are, and a weak one comes.
    delete("custodyd-wrap-v1");
    delete("custodyd-wrap-v1");
    generate("custodyd-wrap-v1", &["--extractable"]);
    refused(&token, &[], &["CKA_EXTRACTABLE", "nothing was changed"]);
    delete("custodyd-wrap-v1");
    let anchor = token.dir().join("anchor");
    std::fs::write(&anchor, b"an anchor").unwrap();
    let data = [
        "--write-object",
        anchor.to_str().unwrap(),
        "--type",
        "data",
        "--private",
        "--application-label",
        "custodyd",
        "--label",
        "custodyd-anchor-v1",
    ];
    tool(&token, &data);
    refused(
        &token,
        &[],
        &["anchors of a realm", "custodyd-wrap-v1", "own backup"],
    );
    tool(
        &token,
        &[
            "--delete-object",
            "--type",
            "data",
            "--label",
            "custodyd-anchor-v1",
        ],
    );
    // The control: without what was wrong the same command makes the key.
    let made = provision(&token, &[]);
    assert!(
        said(&made).contains("ok   made           custodyd-wrap-v1"),
        "{}",
        said(&made)
    );
}

#[test]
fn list_shows_what_is_there_without_a_login() {
    let token = SoftToken::fresh();
    let module = token::module();
    let listed = custodyd(
        &token.environment(),
        &["token", "list", "--json", "--module", &module],
    );
    let answer = json(&listed);
    let seen = checks(&answer, "token")[0];
    assert_eq!(seen["data"]["label"], LABEL);
    assert_eq!(seen["data"]["pin"], "user PIN set");
    assert_eq!(seen["data"]["public_keys"].as_array().unwrap().len(), 3);
    assert!(
        !answer.to_string().contains("custodyd-wrap"),
        "seen without a login"
    );
    let pin = token.user_pin_file();
    let login = [
        "token",
        "list",
        "--module",
        &module,
        "--login",
        LABEL,
        "--pin-file",
        pin.to_str().unwrap(),
    ];
    let shown = custodyd(&token.environment(), &login);
    assert!(
        said(&shown).contains("custodyd-wrap-v1 secret key"),
        "{}",
        said(&shown)
    );
    // A file that is no module, where it was asked for.
    let other = custodyd(
        &token.environment(),
        &["token", "list", "--module", "/etc/hostname"],
    );
    assert_eq!(other.status.code(), Some(1));
    assert!(said(&other).contains("does not load"), "{}", said(&other));
    let missing = custodyd(
        &token.environment(),
        &["token", "list", "--module", "libsofthsm2.so"],
    );
    assert!(
        said(&missing).contains("absolute path"),
        "{}",
        said(&missing)
    );
}

/// Everything that is installed, and a configured module that takes its process with it.
#[test]
fn a_module_that_crashes_costs_a_line_of_the_list() {
    let token = SoftToken::fresh();
    let crashing = token.dir().join("crashing.so");
    let source = token.dir().join("crashing.c");
    std::fs::write(
        &source,
        "#include <stdlib.h>\n__attribute__((constructor)) void f(void) { abort(); }\n",
    )
    .unwrap();
    token::run(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&crashing)
            .arg(&source),
    );
    let config = token.dir().join("custodyd.toml");
    std::fs::write(
        &config,
        format!(
            "[realm]\nname = \"r\"\n[listen]\npublic = \"127.0.0.1:1\"\nurl = \"https://localhost\"\ncertificate = \
             \"c\"\nprivate_key = \"k\"\n[token]\nmodule = \"{}\"\nlabel = \"l\"\npin_file = \"p\"\n",
            crashing.display()
        ),
    )
    .unwrap();
    let (name, value) = token.environment();
    let mut command = Command::new(token::program("custodyd"));
    command.arg("--config").arg(&config).env(name, value);
    let listed = command.args(["token", "list"]).output().unwrap();
    let text = said(&listed);
    assert!(listed.status.success(), "{text}");
    assert!(
        text.contains("crashed while it was looked at (signal 6)"),
        "{text}"
    );
    assert!(text.contains(&format!("label {LABEL}")), "{text}");
}

#[test]
fn a_token_that_is_not_initialised_is_told_with_the_command() {
    let token = KryopticToken::blank();
    let module = kryoptic::module();
    let module = module.to_str().unwrap();
    let listed = custodyd(&token.environment(), &["token", "list", "--module", module]);
    assert!(
        said(&listed).contains("not initialised"),
        "{}",
        said(&listed)
    );
    let pin = token.user_pin_file();
    let pin = pin.to_str().unwrap();
    let provision = [
        "token",
        "provision",
        "--module",
        module,
        "--label",
        LABEL,
        "--pin-file",
        pin,
    ];
    let refused = custodyd(&token.environment(), &provision);
    let text = said(&refused);
    assert!(
        !refused.status.success() && text.contains("--slot 1 --init-token"),
        "{text}"
    );
    // Doing what it says helps, on this module as on SoftHSM2.
    token.initialise();
    let done = custodyd(&token.environment(), &provision);
    let text = said(&done);
    assert!(done.status.success(), "{text}");
    assert_eq!(text.matches("ok   made").count(), 5, "{text}");
}

#[tokio::test]
async fn check_beside_a_daemon_leaves_the_realms_anchor_alone() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let data = |token: &SoftToken| {
        objects(token)
            .iter()
            .filter(|l| l.contains("Data object"))
            .count()
    };
    assert_eq!(data(&app.token), 1);
    let realm = || {
        let output = app.command("token check --json").output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let answer = json(&output);
        let anchor = checks(&answer, "anchor")[0]["data"].clone();
        assert_eq!(anchor["writes"], 3);
        assert!(anchor["median_ms"].as_f64().unwrap() > 0.0);
        checks(&answer, "realm")[0]["detail"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let before = realm();
    assert!(before.contains("test.example: anchor "), "{before}");
    assert_eq!(realm(), before);
    assert_eq!(data(&app.token), 1);
    // The daemon has noticed nothing, and goes on from its own anchor.
    device.set_pin("830517").await.expect(200);
    assert_ne!(realm(), before);
    assert_eq!(app.operator("/readyz").await.0, 200);
}

/// `--tpm` needs no configuration; what it prints is one.
#[test]
fn a_tpm_is_provisioned_proven_and_after_a_clear_refused() {
    let tpm = SwTpm::blank();
    let environment = ("TSS2_LOG", PathBuf::from("all+none"));
    let (tcti, state, pin) = (tpm.tcti(), tpm.anchors(), tpm.dir().join("pin"));
    let usual = [
        "token",
        "provision",
        "--tpm",
        "--tcti",
        &tcti,
        "--state-directory",
        state.to_str().unwrap(),
        "--pin-file",
        pin.to_str().unwrap(),
    ];
    let done = custodyd(&environment, &usual);
    let text = said(&done);
    assert!(done.status.success(), "{text}");
    for told in [
        "moved on 3 times and removed",
        "anchor_interval = \"10m\"",
        "storage_key = \"000b",
    ] {
        assert!(text.contains(told), "{text}");
    }
    let again = custodyd(&environment, &usual);
    assert!(
        again.status.success() && !said(&again).contains("ok   made"),
        "{}",
        said(&again)
    );
    tpm.tool("tpm2_clear", &["-c", "p"]);
    let persistent = || tpm.tool("tpm2_getcap", &["handles-persistent"]);
    assert_eq!(persistent().trim(), "");
    let cleared = custodyd(&environment, &usual);
    let text = said(&cleared);
    assert!(
        !cleared.status.success() && text.contains("was cleared"),
        "{text}"
    );
    assert!(text.contains("nothing was changed"), "{text}");
    assert_eq!(
        persistent().trim(),
        "",
        "a key was made beside the anchors of a lost one"
    );
    // The control: with a folder of its own it is a new realm's.
    let fresh = tpm.dir().join("fresh");
    let mut anew = usual;
    anew[6] = fresh.to_str().unwrap();
    assert!(custodyd(&environment, &anew).status.success());
}
