//! What the daemon's unit lets a process do, tried from inside, and what others may do to it.

use serde_json::Value;

use super::machine::Machine;
use super::root;

/// What a process must still be able to do.
const LEFT: [&str; 3] = ["unix socket", "own state", "own runtime"];

/// The unit as it is installed, with another program in it: whatever confines the one confines the other.
fn probe_unit(unit: &str, port: u16) -> String {
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
        "[Service]\nType=oneshot\nEnvironment=PROBE_PORT={port}\nExecStart=/usr/bin/python3 /opt/probe.py"
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
        &probe_unit(&unit, port),
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
