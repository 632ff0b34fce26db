//! Versions that a ceremony adds to a realm with an escrow and two tokens (`docs/ESCROW.md`, "Rotation"): a real daemon,
//! two SoftHSM2 tokens, a ceremony that is stopped, a token that lacks the key, a manifest that somebody has put there.

use std::fs;

use custodyd_tests::pair::{Pair, Which};
use custodyd_tests::{Setup, TestApp};
use serde_json::Value;

use crate::failover::{done, owner, recovers, refused, until};

/// The keys that a token holds, as `token check` lists them, of the token that is called so.
fn held(app: &TestApp, token: &str) -> Vec<String> {
    let output = app.command("token check --json").output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = answer["checks"].as_array().cloned();
    let checks = checks.unwrap_or_else(|| panic!("{answer}"));
    let mut of = "";
    let mut held = Vec::new();
    for check in &checks {
        match check["check"].as_str() {
            Some("replica") => of = check["detail"].as_str().unwrap().trim_end_matches(':'),
            Some("key") if of == token => {
                held.push(check["data"]["label"].as_str().unwrap().to_owned());
            }
            _ => {}
        }
    }
    held
}

fn holds(app: &TestApp, token: &str, key: &str) -> bool {
    held(app, token).iter().any(|label| label == key)
}

#[tokio::test]
async fn a_version_comes_into_both_tokens_and_the_old_one_leaves_both() {
    let (pair, mut app) = Pair::founded(Setup::default()).await;
    let mut device = owner(&app).await;
    refused(&app, "key rotate wrap", "no newer key");
    refused(
        &app,
        &pair.add_version("checkpoint-ed25519", "m"),
        "no Ed25519 keys",
    );
    let ceremony = pair.add_version("wrap,bind", "second");
    let dry = ceremony.replace("add-version", "add-version --dry-run");
    assert!(done(&app, &dry).contains("Nothing was changed"));
    assert!(!holds(&app, "primary", "custodyd-wrap-v2") && !pair.shares("second").exists());
    // Beside the daemon, which serves on.
    let told = done(&app, &ceremony);
    for said in [
        "primary: imported custodyd-wrap-v2, custodyd-bind-v2",
        "spare: imported",
    ] {
        assert!(told.contains(said), "{told}");
    }
    assert!(!pair.shares("second").join("unfinished").exists());
    refused(&app, &ceremony, "is there already");
    recovers(&mut device).await;
    // Nothing uses it before somebody has heard from its custodians.
    refused(&app, "key rotate wrap", "give it as --manifest");
    let other = format!("key rotate wrap --manifest {}", "ab".repeat(32));
    refused(&app, &other, "another one than its custodians");
    // SoftHSM2 shows a process that has anchored meanwhile what another one has brought in after a restart.
    app.restart().await;
    let heard = pair.read_out(&app, "second");
    let rotated = done(&app, &format!("key rotate wrap --manifest {heard}"));
    assert!(rotated.contains("custodyd-wrap-v2 is used"), "{rotated}");
    done(
        &app,
        &format!("key rotate bind --announce --manifest {heard}"),
    );
    done(&app, "key rotate bind");
    refused(
        &app,
        &format!("key rotate wrap --manifest {heard}"),
        "no newer key",
    );
    recovers(&mut device).await;
    let mut newcomer = owner(&app).await;
    let text = done(&app, "key rewrap --share 100");
    assert!(text.contains("no record is left"), "{text}");

    // It leaves both tokens, or none.
    pair.take_away(Which::Spare);
    until(&app, "spare", "outside").await;
    refused(
        &app,
        "key retire wrap-v1 --destroy --yes",
        "spare does not answer",
    );
    assert!(app.stop());
    pair.bring_back(Which::Spare);
    app.launch().await;
    done(&app, "token readmit spare");
    let gone = done(&app, "key retire wrap-v1 --destroy --yes");
    assert!(
        gone.contains("is retired") && gone.contains("is destroyed"),
        "{gone}"
    );
    assert!(gone.contains("2 of ann, bob can still bring"), "{gone}");
    for device in [&mut device, &mut newcomer] {
        recovers(device).await;
    }
    assert!(app.stop(), "{}", app.log());
    for token in ["primary", "spare"] {
        assert!(!holds(&app, token, "custodyd-wrap-v1"), "{token}");
        assert!(holds(&app, token, "custodyd-wrap-v2"), "{token}");
    }
    done(&app, "ledger verify --open");
    app.launch().await;
    for device in [&mut device, &mut newcomer] {
        recovers(device).await;
    }
}

/// From the ceremony on every token holds the newer MAC key; it tags nothing before the head names it.
#[tokio::test]
async fn a_mac_key_comes_by_a_ceremony_and_tags_what_the_head_says() {
    let (pair, mut app) = Pair::founded(Setup::default()).await;
    let mut device = owner(&app).await;
    done(&app, &pair.add_version("mac", "second"));
    recovers(&mut device).await;
    for _ in 0..2 {
        app.restart().await;
        recovers(&mut device).await;
    }
    let heard = pair.read_out(&app, "second");
    let rotated = done(&app, &format!("key rotate mac --manifest {heard}"));
    assert!(rotated.contains("custodyd-mac-v2 is used"), "{rotated}");
    let mut newcomer = owner(&app).await;
    for _ in 0..2 {
        for device in [&mut device, &mut newcomer] {
            recovers(device).await;
        }
        app.restart().await;
    }
    refused(&app, "key retire mac-v1", "enrolled again");
    let body = serde_json::json!({"confirm": device.account});
    recovers(&mut device).await;
    let erased = device.call("DELETE", "/v1/account", Some(body)).await;
    erased.expect(204);
    let gone = done(&app, "key retire mac-v1 --destroy --yes");
    assert!(gone.contains("is destroyed"), "{gone}");
    app.restart().await;
    recovers(&mut newcomer).await;
    assert!(app.stop(), "{}", app.log());
    for token in ["primary", "spare"] {
        assert!(!holds(&app, token, "custodyd-mac-v1"), "{token}");
    }
    done(&app, "ledger verify --open");
}

#[tokio::test]
async fn a_ceremony_that_is_stopped_goes_on_and_a_token_without_the_key_is_not_rotated_to() {
    let (pair, mut app) = Pair::founded(Setup::default()).await;
    let mut device = owner(&app).await;
    assert!(app.stop());
    pair.copy_to("before");
    let ceremony = pair.add_version("wrap", "second");
    // A token that is not there is told of before anything is made.
    pair.take_away(Which::Spare);
    refused(&app, &ceremony, "the token spare");
    assert!(!pair.shares("second").exists() && !holds(&app, "primary", "custodyd-wrap-v2"));
    pair.bring_back(Which::Spare);
    // Stopped when both have the key and nothing says so; one of them is as it was before.
    let obstacle = app.path("escrow.json.new");
    fs::create_dir(&obstacle).unwrap();
    refused(&app, &ceremony, "escrow.json.new");
    pair.put_back(Which::Spare, "before");
    assert!(
        holds(&app, "primary", "custodyd-wrap-v2") && !holds(&app, "spare", "custodyd-wrap-v2")
    );
    let unfinished = pair.shares("second").join("unfinished");
    assert!(unfinished.exists());
    app.launch().await;
    recovers(&mut device).await;
    let heard = pair.read_out(&app, "second");
    let rotate = format!("key rotate wrap --manifest {heard}");
    refused(&app, &rotate, "no newer key");
    // Even where the manifest is in place.
    let (place, old) = (app.path("escrow.json"), app.path("escrow.old"));
    fs::copy(&place, &old).unwrap();
    fs::copy(pair.shares("second").join("manifest.json"), &place).unwrap();
    refused(
        &app,
        &rotate,
        "the token spare: custodyd-wrap-v2 is not in the token",
    );
    fs::copy(&old, &place).unwrap();
    // With others it is another ceremony; with the same it goes on, and the shares are of the key that comes in.
    fs::remove_dir(&obstacle).unwrap();
    refused(
        &app,
        &pair.add_version("bind", "second"),
        "other keys or custodians",
    );
    refused(&app, &pair.add_version("wrap", "third"), "in no escrow");
    let told = done(&app, &ceremony);
    assert!(
        told.contains("primary: the keys were brought in before"),
        "{told}"
    );
    assert!(told.contains("spare: imported custodyd-wrap-v2"), "{told}");
    assert!(!unfinished.exists());
    assert_eq!(pair.read_out(&app, "second"), heard);
    // A crash while the sealed keys are wiped: the same command says that the ceremony is over, and wipes them.
    let wiped = pair.shares("second").join("unfinished.wiped");
    fs::write(&wiped, [0; 512]).unwrap();
    refused(
        &app,
        &pair.add_version("bind", "second"),
        "other keys or custodians",
    );
    let dry = ceremony.replace("add-version", "add-version --dry-run");
    assert!(done(&app, &dry).contains("Nothing was changed") && wiped.exists());
    let told = done(&app, &ceremony);
    assert!(
        told.contains("the ceremony was over") && told.contains(&heard),
        "{told}"
    );
    assert!(!wiped.exists());
    assert_eq!(pair.read_out(&app, "second"), heard);
    // Control: once that is done there is nothing to go on with.
    refused(&app, &ceremony, "no ceremony in it is unfinished");
    app.restart().await;
    done(&app, &rotate);
    recovers(&mut device).await;
    assert!(app.stop());
    app.launch().await;
    recovers(&mut device).await;
}

/// Somebody with the PIN brings a key of theirs into the tokens, and a manifest that names it to its place.
#[tokio::test]
async fn a_key_that_the_custodians_have_no_shares_of_is_not_rotated_to() {
    let (mut pair, mut app) = Pair::founded(Setup::default()).await;
    let mut device = owner(&app).await;
    let (place, honest) = (app.path("escrow.json"), app.path("honest.json"));
    fs::copy(&place, &honest).unwrap();
    done(&app, &pair.add_version("wrap", "theirs"));
    let theirs = pair.read_out(&app, "theirs");
    // The honest ceremony does not go upon it, and finds what is there.
    fs::copy(&honest, &place).unwrap();
    refused(
        &app,
        &pair.add_version("wrap", "ours"),
        "which is in no escrow",
    );
    refused(
        &app,
        &format!("key rotate wrap --manifest {theirs}"),
        "no newer key",
    );
    app.restart().await;
    done(&app, "key retire wrap-v2 --destroy --yes");
    done(&app, &pair.add_version("wrap", "ours"));
    app.restart().await;
    let ours = pair.read_out(&app, "ours");
    // Their manifest again: neither what was heard, nor what the tokens hold, fits.
    let put = |from: &str| fs::copy(pair.shares(from).join("manifest.json"), &place).unwrap();
    put("theirs");
    refused(
        &app,
        &format!("key rotate wrap --manifest {ours}"),
        "another one than its custodians",
    );
    refused(
        &app,
        &format!("key rotate wrap --manifest {theirs}"),
        "holds another custodyd-wrap-v2",
    );
    // Nor one that stands behind the honest one: a custodian of that speaks for it alone.
    put("ours");
    done(&app, &pair.add_version("wrap", "behind"));
    refused(
        &app,
        &format!("key rotate wrap --manifest {ours}"),
        "another one than its custodians",
    );
    let told = done(&app, &pair.verify("ours", "behind"));
    assert!(told.contains(&ours), "{told}");
    app.restart().await;
    done(&app, "key retire wrap-v3 --destroy --yes");
    put("ours");
    done(&app, &format!("key rotate wrap --manifest {ours}"));
    recovers(&mut device).await;
    drill(&mut pair, &mut app, device).await;
}

/// After the rotation one of the tokens is lost for good. What was sealed before it is still under the older key.
async fn drill(pair: &mut Pair, app: &mut TestApp, mut device: custodyd_tests::Device) {
    pair.take_away(Which::Spare);
    until(app, "spare", "outside").await;
    assert!(app.stop());
    pair.another_spare(app);
    pair.restore_keys_refused(app, "spare", &["shares"], "(custodyd-wrap-v2)");
    pair.restore_from(app, "--token spare --without wrap-v2", &["shares"]);
    app.launch().await;
    refused(app, "token readmit spare", "custodyd-wrap-v2");
    assert!(app.stop());
    // What is missing comes in with the shares of its ceremony alone.
    pair.restore_from(app, "--token spare", &["ours"]);
    app.launch().await;
    done(app, "token readmit spare");
    pair.take_away(Which::Primary);
    until(app, "primary", "outside").await;
    recovers(&mut device).await;
    assert!(app.stop());
    done(app, "ledger verify --open");
}
