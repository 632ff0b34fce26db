//! How exposed a unit is by systemd's own account, at most what README.md of `systemd/` promises.

use std::process::{Command, Output};

use tempfile::TempDir;

use super::{root, units};

/// A tree with the shipped units, and drop-ins for one of them.
fn tree(drop_ins: &[(&str, &str)]) -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    let at = tree.path().join("etc/systemd/system");
    std::fs::create_dir_all(&at).unwrap();
    for kind in ["service", "socket", "timer"] {
        for unit in units(kind) {
            std::fs::copy(&unit, at.join(unit.file_name().unwrap())).unwrap();
        }
    }
    for (number, (unit, text)) in drop_ins.iter().enumerate() {
        let folder = at.join(format!("{unit}.d"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{number}.conf")), text).unwrap();
    }
    tree
}

/// `tenths`: 5 is an exposure of 0.5.
fn judged(tree: &TempDir, unit: &str, tenths: u32) -> Output {
    Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={tenths}"))
        .arg(format!("--root={}", tree.path().display()))
        .arg(unit)
        .output()
        .expect("systemd-analyze is missing, and these tests need it: apt install systemd")
}

#[track_caller]
fn at_most(tree: &TempDir, unit: &str, tenths: u32) {
    let judged = judged(tree, unit, tenths);
    let said = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{unit}: {said}");
    assert!(said.contains("Overall exposure level"), "{said}");
}

fn drop_in(name: &str) -> String {
    std::fs::read_to_string(root().join(format!("systemd/drop-ins/{name}.conf"))).unwrap()
}

#[test]
fn no_unit_is_more_exposed_than_it_needs_to_be() {
    let plain = tree(&[]);
    at_most(&plain, "custodyd.service", 5);
    at_most(&plain, "custodyd-courier.service", 15);
    at_most(&plain, "custodyd-doctor.service", 5);
    for (name, tenths) in [
        ("network-hsm", 15),
        ("postgresql", 15),
        ("tpm", 5),
        ("softhsm2", 5),
    ] {
        let text = drop_in(name);
        let with = tree(&[("custodyd.service", &text)]);
        at_most(&with, "custodyd.service", tenths);
    }
    // The check can fail.
    let open = "[Service]\nPrivateNetwork=no\nRestrictAddressFamilies=\nSystemCallFilter=\n";
    for unit in ["custodyd.service", "custodyd-doctor.service"] {
        let with = tree(&[(unit, open)]);
        assert!(!judged(&with, unit, 5).status.success());
    }
}

/// What both processes share is the same in both, so that neither is forgotten when one is tightened.
#[test]
fn what_confines_one_service_confines_all() {
    let lines = |unit: &str| -> Vec<String> {
        let text = std::fs::read_to_string(root().join("systemd").join(unit)).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let (daemon, courier) = (lines("custodyd.service"), lines("custodyd-courier.service"));
    let doctor = lines("custodyd-doctor.service");
    let shared = |line: &&String| {
        [
            "Protect",
            "Restrict",
            "SystemCall",
            "Private",
            "Lock",
            "Memory",
            "NoNew",
            "Capability",
        ]
        .iter()
        .any(|start| line.starts_with(start))
            && !line.starts_with("RestrictAddressFamilies")
            && !line.starts_with("PrivateNetwork")
            && !line.starts_with("PrivateUsers")
    };
    let common: Vec<&String> = daemon.iter().filter(shared).collect();
    assert!(common.len() > 20, "{common:?}");
    for line in common {
        assert!(courier.contains(line), "not in the courier's unit: {line}");
        assert!(doctor.contains(line), "not in the doctor's unit: {line}");
    }
    // The doctor is as far from the network as the daemon, and has less to lose: no credential opens the token.
    for start in [
        "PrivateNetwork=",
        "PrivateUsers=",
        "RestrictAddressFamilies=",
        "IPAddressDeny=",
        "SocketBindDeny=",
        "InaccessiblePaths=",
    ] {
        let line = daemon.iter().find(|line| line.starts_with(start)).unwrap();
        assert!(doctor.contains(line), "not in the doctor's unit: {line}");
    }
    let opens_the_token = |line: &String| line.contains("token-pin");
    assert!(daemon.iter().any(opens_the_token));
    assert!(!doctor.iter().any(opens_the_token));
}
