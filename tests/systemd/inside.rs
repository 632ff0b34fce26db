//! What the daemon's unit lets a process do, tried from inside, and what others may do to it.

use serde_json::Value;

use super::machine::Machine;
use super::root;

/// What a process must still be able to do.
const LEFT: [&str; 3] = ["unix socket", "own state", "own runtime"];

/// The unit as it is installed, with another program in it: whatever confines the one confines the other.
fn probe_unit(unit: &str, port: u16, script: &str) -> String {
    let dropped = [
        "Requires=",
        "Wants=",
        "After=",
        "Sockets=",
        "Type=",
        "NotifyAccess=",
        "WatchdogSec=",
        "Restart",
        "Exec",
        "TimeoutS",
        "Also=",
        "WantedBy=",
        "LoadCredential",
    ];
    let kept = unit.lines().filter(|line| {
        // RestrictX= is what is tried; Restart= and RestartSec= are not.
        !dropped.iter().any(|start| line.starts_with(start))
    });
    let kept: Vec<&str> = kept.collect();
    let service = format!(
        "[Service]\nType=oneshot\nEnvironment=PROBE_PORT={port}\nExecStart=/usr/bin/python3 {script}"
    );
    kept.join("\n").replacen("[Service]", &service, 1)
}

fn outcomes(told: &str) -> Vec<(String, String)> {
    let line = told.lines().find_map(|line| line.split_once("probe:"));
    let (_, json) = line.unwrap_or_else(|| panic!("no answer of the probe: {told}"));
    let json: Value = serde_json::from_str(json).unwrap();
    let outcome =
        |(name, outcome): (&String, &Value)| (name.clone(), outcome.as_str().unwrap().to_owned());
    json.as_object().unwrap().iter().map(outcome).collect()
}

/// Everything that a process which was taken over may try, inside the unit and, for control, outside.
pub(crate) fn is_confined(machine: &Machine, port: u16) {
    let script = std::fs::read_to_string(root().join("tests/systemd/probe.py")).unwrap();
    machine.write("/opt/probe.py", &script);
    let unit = machine.ok("cat /usr/lib/systemd/system/custodyd.service");
    machine.write(
        "/etc/systemd/system/probe.service",
        &probe_unit(&unit, port, "/opt/probe.py"),
    );
    let outside = machine.ok(&format!("PROBE_PORT={port} python3 /opt/probe.py"));
    for (name, outcome) in outcomes(&outside) {
        assert_eq!(outcome, "done", "the control: {name}");
    }
    machine.ok("systemctl daemon-reload && systemctl start probe.service");
    let inside = machine.ok("journalctl --no-pager -o cat -u probe.service");
    let inside = outcomes(&inside);
    assert!(inside.len() > 15, "{inside:?}");
    for (name, outcome) in inside {
        let left = LEFT.contains(&name.as_str());
        assert_eq!(left, outcome == "done", "{name}: {outcome}");
    }
}

/// What `drop-ins/tpm.conf` lets in, and no other device: each of its lines is wanted. The device is one that every kernel has and
/// that systemd gives to no unit by itself, with the owner and mode of a TPM's. Where the kernel confines no unit to devices, as for
/// a machine within a container that may load no filters, neither `DeviceAllow=` nor its lack shows, and that is what is shown.
pub(crate) fn has_its_device_alone(machine: &Machine) {
    for (name, number) in [("stand-in", "10 229"), ("another", "10 237")] {
        machine.ok(&format!(
            "mknod -m 660 /dev/{name} c {number} && chgrp tss /dev/{name}"
        ));
    }
    machine.write(
        "/opt/device.py",
        "import os, sys\nos.close(os.open(sys.argv[1], os.O_RDWR))\n",
    );
    let unit = machine.ok("cat /usr/lib/systemd/system/custodyd.service");
    let drop_in = machine.ok("cat /usr/share/custodyd/drop-ins/tpm.conf");
    let drop_in = drop_in.replace("/dev/tpmrm0", "/dev/stand-in");
    let (_, lines) = drop_in.split_once("[Service]\n").unwrap();
    let opens = |device: &str, without: &str| {
        let kept: Vec<&str> = lines
            .lines()
            .filter(|line| without.is_empty() || !line.starts_with(without))
            .collect();
        let service = "/etc/systemd/system/device.service";
        let script = format!("/opt/device.py /dev/{device}");
        machine.write(service, &probe_unit(&unit, 0, &script));
        machine.write(
            &format!("{service}.d/tpm.conf"),
            &format!("[Service]\n{}\n", kept.join("\n")),
        );
        machine.ok("systemctl daemon-reload; systemctl reset-failed device.service || true");
        machine
            .run("systemctl start device.service")
            .status
            .success()
    };
    for device in ["stand-in", "another"] {
        machine.ok(&format!("python3 /opt/device.py /dev/{device}"));
    }
    // Commands beside the unit have the group by the user alone; the unit has it by its own line.
    machine.ok("gpasswd --delete custodyd tss");
    let told = || machine.ok("journalctl --no-pager -o cat -u device.service");
    assert!(opens("stand-in", ""), "{}", told());
    for line in ["PrivateDevices=", "SupplementaryGroups="] {
        assert!(!opens("stand-in", line), "without {line}");
    }
    let strict = "systemd-run --quiet --wait --property=DevicePolicy=strict python3 /opt/device.py";
    let confines = !machine
        .run(&format!("{strict} /dev/another"))
        .status
        .success();
    if !confines {
        eprintln!("this kernel confines no unit to devices: DeviceAllow= was not tried");
    }
    assert_eq!(opens("another", ""), !confines);
    assert_eq!(opens("stand-in", "DeviceAllow="), !confines);
}

/// The process as the kernel has it, and what another process of its user can see of it.
pub(crate) fn is_shut_off(machine: &Machine) {
    let (daemon, courier) = (
        machine.main_process("custodyd.service"),
        machine.main_process("custodyd-courier.service"),
    );
    for id in [daemon, courier] {
        let status = machine.ok(&format!("cat /proc/{id}/status"));
        for line in [
            "Seccomp:\t2",
            "NoNewPrivs:\t1",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
        ] {
            assert!(status.contains(line), "{line}: {status}");
        }
        let limits = machine.ok(&format!("grep 'core file' /proc/{id}/limits"));
        assert_eq!(limits.split_whitespace().nth(4), Some("0"), "{limits}");
    }
    holds_what_it_has_in_memory(machine, daemon);
    // The daemon has a loopback device of its own and nothing else; the courier has the host's network.
    let devices = machine.ok(&format!("tail -n +3 /proc/{daemon}/net/dev"));
    assert_eq!(devices.lines().count(), 1, "{devices}");
    let same = |id: u32| {
        let told = machine.ok(&format!("readlink /proc/{id}/ns/net /proc/1/ns/net"));
        let mut lines = told.lines();
        lines.next() == lines.next()
    };
    assert!(!same(daemon) && same(courier));
    // Each has its own credentials and not the other's; the courier has neither database nor token.
    let list = |id: u32, path: &str| machine.ok(&format!("ls -A /proc/{id}/root{path}"));
    let given = list(daemon, "/run/credentials/custodyd.service");
    assert_eq!(given, "tls-key\ntoken-pin\n");
    let given = list(courier, "/run/credentials/custodyd-courier.service");
    assert_eq!(given, "smtp-password\n");
    assert!(list(daemon, "/var/lib/custodyd").contains("custodyd.sqlite"));
    for hidden in [
        "/var/lib/custodyd",
        "/run/custodyd",
        "/run/custodyd-sockets",
    ] {
        assert_eq!(list(courier, hidden), "", "{hidden}");
    }
    // A second process of the daemon's user cannot look into it; into one that did not forbid it, it can.
    let look = |id: &str| {
        format!("setpriv --reuid=custodyd --regid=custodyd --clear-groups cat /proc/{id}/environ")
    };
    machine.fails(&look(&daemon.to_string()));
    let control = format!(
        "setpriv --reuid=custodyd --regid=custodyd --clear-groups sleep 30 & sleep 0.2; {}",
        look("$!")
    );
    machine.ok(&control);
}

/// The unit asks for it, and where the kernel grants it, it is locked. Root without CAP_SYS_RESOURCE, as in some containers,
/// can not lift the limit that it has itself: then the daemon serves, and says that its secrets may reach swap.
fn holds_what_it_has_in_memory(machine: &Machine, daemon: u32) {
    let asked = machine.ok("systemctl show --property=LimitMEMLOCK custodyd.service");
    assert_eq!(asked.trim(), "LimitMEMLOCK=infinity");
    let locked = |process: &str| -> u64 {
        let line = machine.ok(&format!("grep '^VmLck:' /proc/{process}/status"));
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let limit = machine.ok(&format!("grep 'Max locked memory' /proc/{daemon}/limits"));
    if limit.split_whitespace().nth(3) == Some("unlimited") {
        assert!(locked(&daemon.to_string()) > 1024);
    } else {
        let lifted = machine.run("prlimit --memlock=unlimited:unlimited true");
        assert!(!lifted.status.success(), "it could be lifted: {limit}");
        let said = machine.ok("journalctl --no-pager -o cat -u custodyd.service");
        assert!(said.contains("secrets may reach swap"), "{said}");
    }
    // The control: a process of the same machine that locks nothing has nothing locked.
    assert_eq!(locked("self"), 0);
}
