//! Packets between some nodes and the database that are lost on their way, by nft(8).
//!
//! Other than on a wire that is held, neither side's kernel hears from the other: nothing is acknowledged, nobody connects, and
//! what was sent is sent again ever more seldom. The rules are of a network that the campaign has for itself, which ends with
//! it: the host's is never touched, wherever the campaign is killed.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Set where the network is the campaign's own.
const OWN: &str = "CUSTODYD_CAMPAIGN_NETWORK";

/// Goes on as the same process, in a network of its own that has nothing but loopback. Returns where it is there already, or
/// can not: what is missing then, `lacks` says.
pub fn enter_own_network() {
    let root = rustix::process::geteuid().is_root();
    if !root || is_own() || !is_there() {
        return;
    }
    let Ok(ours) = std::env::current_exe() else {
        return;
    };
    let within = r#"ip link set lo up && exec "$0" "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", within]).arg(ours);
    command.args(std::env::args_os().skip(1)).env(OWN, "1");
    eprintln!("no network of its own: {}", command.exec());
}

fn is_own() -> bool {
    std::env::var_os(OWN).is_some()
}

fn is_there() -> bool {
    let asked = Command::new("nft").arg("--version").output();
    asked.is_ok_and(|output| output.status.success())
}

pub(super) fn lacks() -> Option<&'static str> {
    if !is_there() {
        return Some("nft is missing: apt install nftables");
    }
    (!is_own()).then_some("it needs a network of the campaign's own, and that root")
}

/// As long as nothing gets to these ports of loopback, or from there.
pub(super) struct Lost(());

impl Lost {
    pub(super) fn at(ports: &[u16]) -> Self {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let ports = ports.join(", ");
        // Where they arrive: who sends would be told of what is dropped on its way out.
        nft(&format!(
            "add table inet campaign\n\
             add counter inet campaign lost\n\
             add chain inet campaign arriving {{ type filter hook input priority 0; }}\n\
             add rule inet campaign arriving tcp dport {{ {ports} }} counter name lost drop\n\
             add rule inet campaign arriving tcp sport {{ {ports} }} counter name lost drop"
        ));
        Self(())
    }

    /// How many packets were lost.
    pub(super) fn found(self) -> u64 {
        let said = nft("list counter inet campaign lost");
        nft("delete table inet campaign");
        let (_, after) = said.split_once("packets ").unwrap();
        let count = after.split_whitespace().next().unwrap();
        count.parse().unwrap()
    }
}

fn nft(commands: &str) -> String {
    let done = Command::new("nft").arg(commands).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "nft {commands}: {said}");
    String::from_utf8(done.stdout).unwrap()
}
