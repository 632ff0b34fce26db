//! A machine of a test's own: systemd as PID 1 in a container, over a copy-on-write view of this host.
//!
//! What is written in it is in memory and goes with it, and it ends with the test, however that ends: it
//! lives below a shell that waits for this process to close a pipe. It has the host's network, so that
//! servers of the test can be reached, or a loopback of its own, so that ports are free; nothing of the host is started in it but what `sysinit.target`
//! needs and the message bus.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use custodyd_tests::app::said;
use tempfile::TempDir;

/// The overlay is mounted where nobody else sees it.
const BOOT: &str = r#"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root" || exit 1
shift_dir=$1; shift
systemd-nspawn --quiet --register=no --keep-unit --console=pipe --link-journal=no "$@" \
  --directory "$shift_dir/root" --boot -- --unit=test.target <&- >"$shift_dir/log" 2>&1 &
echo $!
cat >/dev/null
# Killed alone, nspawn would leave what it started; when PID 1 in there dies, everything does.
kill -KILL $(cat "/proc/$!/task/$!/children") $!
wait
"#;

#[derive(Debug)]
pub(crate) struct Machine {
    dir: TempDir,
    shell: Child,
    /// The container's PID 1, as this host numbers it.
    leader: u32,
}

/// Machines of two tests would share the host's control groups, where each systemd clears away what it does
/// not know: one at a time, however many runs there are on this host. Held until the process ends.
static ONE_TEST: LazyLock<File> = LazyLock::new(|| {
    let lock = File::create("/run/custodyd-test-machine.lock").unwrap();
    lock.lock().unwrap();
    lock
});

/// Whether these tests were left out on purpose.
pub(crate) fn left_out() -> bool {
    let left_out = std::env::var_os("CUSTODYD_WITHOUT_MACHINE").is_some();
    if left_out {
        eprintln!("left out: CUSTODYD_WITHOUT_MACHINE is set");
    }
    left_out
}

impl Machine {
    /// With folders of the host mounted: source and target.
    pub(crate) fn boot(binds: &[(&Path, &str)]) -> Self {
        Self::boot_with(binds, &[])
    }

    /// The same, with a network of its own that leads nowhere.
    pub(crate) fn boot_apart(binds: &[(&Path, &str)]) -> Self {
        Self::boot_with(binds, &["--private-network"])
    }

    fn boot_with(binds: &[(&Path, &str)], options: &[&str]) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test starts a container and needs root; CUSTODYD_WITHOUT_MACHINE=1 leaves it out"
        );
        LazyLock::force(&ONE_TEST);
        let dir = tempfile::Builder::new()
            .prefix("custodyd-machine-")
            .tempdir_in("/dev/shm")
            .unwrap();
        let target = dir.path().join("upper/etc/systemd/system");
        std::fs::create_dir_all(&target).unwrap();
        for name in ["work", "root"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let wanted =
            "[Unit]\nRequires=sysinit.target dbus.socket\nAfter=sysinit.target dbus.socket\n";
        std::fs::write(target.join("test.target"), wanted).unwrap();
        static BOOTED: AtomicU32 = AtomicU32::new(0);
        let booted = BOOTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("custodyd-{}-{booted}", std::process::id());
        let mut shell = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                BOOT,
                "sh",
            ])
            .arg(dir.path())
            .arg(format!("--machine={name}"))
            .args(options)
            .args(
                binds
                    .iter()
                    .map(|(from, to)| format!("--bind={}:{to}", from.display())),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(shell.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let nspawn = line.trim().parse().unwrap_or(0);
        let mut machine = Self {
            dir,
            shell,
            leader: 0,
        };
        machine.wait_for_boot(nspawn);
        machine
    }

    fn wait_for_boot(&mut self, nspawn: u32) {
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            let children = format!("/proc/{nspawn}/task/{nspawn}/children");
            let children = std::fs::read_to_string(children).unwrap_or_default();
            self.leader = children.trim().parse().unwrap_or(0);
            let up =
                self.leader != 0 && self.run("systemctl is-active test.target").status.success();
            if up {
                return;
            }
            assert!(
                Instant::now() < give_up,
                "no container boots here (apt install systemd-container; CUSTODYD_WITHOUT_MACHINE=1 leaves \
                 this test out): {}",
                std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A path inside, as this process reaches it.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.leader))
    }

    pub(crate) fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The network that its processes see.
    pub(crate) fn network(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.leader))
    }

    /// A line of shell, as root.
    pub(crate) fn run(&self, line: &str) -> Output {
        let mut command = self.inside();
        command.args(["sh", "-c", line]).output().unwrap()
    }

    /// A program, as root; its arguments are still to be given.
    pub(crate) fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.leader.to_string(), "--all", "--"])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("SYSTEMD_PAGER", "")
            .stdin(Stdio::null());
        command
    }

    /// The same, which must succeed; returns what it said.
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(
            output.status.success(),
            "{line}: {}\n{}",
            said(&output),
            self.journal()
        );
        said(&output)
    }

    /// The same, which must fail; returns what it said.
    #[track_caller]
    pub(crate) fn fails(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(!output.status.success(), "{line}: {}", said(&output));
        said(&output)
    }

    /// Until a line of shell succeeds.
    #[track_caller]
    pub(crate) fn until(&self, line: &str) {
        let give_up = Instant::now() + Duration::from_secs(45);
        while !self.run(line).status.success() {
            assert!(Instant::now() < give_up, "{line}: {}", self.journal());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the units said.
    pub(crate) fn journal(&self) -> String {
        let mut text = String::new();
        let lines = self.run("journalctl --no-pager -o short -n 80 _SYSTEMD_UNIT=custodyd.service + UNIT=custodyd.service + _SYSTEMD_UNIT=custodyd-courier.service + UNIT=custodyd-courier.service + UNIT=custodyd.socket");
        let _ = write!(text, "--- journal\n{}", said(&lines));
        text
    }

    /// The main process of a service, as the container numbers it.
    pub(crate) fn main_process(&self, unit: &str) -> u32 {
        let told = self.ok(&format!("systemctl show --property=MainPID --value {unit}"));
        told.trim().parse().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = std::io::stderr().write_all(self.journal().as_bytes());
        }
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
