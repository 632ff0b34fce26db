//! A TPM of a machine's own at `/dev/tpmrm0`, as far as it can be had without a driver for one.
//!
//! No kernel of a container has the proxy (`/dev/vtpmx`) or CUSE by which swtpm makes a device. A terminal in raw mode is a
//! character device as well (`tpm_device.py`), and swtpm answers behind it: so what opens, writes and reads the device is what does
//! with a chip, by the name that the configuration has. It has no resource manager, and systemd admits terminals to every unit:
//! that `DeviceAllow=` is wanted is tried with another device (`inside::has_its_device_alone`).

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use custodyd_tests::tpm::SwTpm;

use super::root;

/// Where it is in a machine.
pub(crate) const AT: &str = "/dev/tpmrm0";

/// From the factory, with power.
#[derive(Debug)]
pub(crate) struct TpmDevice {
    tpm: SwTpm,
    bridge: Child,
    path: PathBuf,
}

impl TpmDevice {
    pub(crate) fn new() -> Self {
        let tpm = SwTpm::blank();
        let mut bridge = Command::new("python3")
            .arg(root().join("tests/systemd/tpm_device.py"))
            .arg(tpm.dir().join("s"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is missing, and these tests need it");
        let mut line = String::new();
        let mut said = BufReader::new(bridge.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let path = PathBuf::from(line.trim());
        // As Debian's rule for udev has it.
        chown(&path, Some(0), Some(group())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).unwrap();
        Self { tpm, bridge, path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Another one in its place: what the first held is nowhere any more.
    pub(crate) fn exchange(&self) {
        self.tpm.power_off();
        std::fs::remove_dir_all(self.tpm.state()).unwrap();
        std::fs::create_dir(self.tpm.state()).unwrap();
        self.tpm.power_on();
    }
}

impl Drop for TpmDevice {
    fn drop(&mut self) {
        drop(self.bridge.stdin.take());
        let _ = self.bridge.wait();
    }
}

/// Machines are views of this host, and number groups as it does.
pub(crate) fn group() -> u32 {
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    let line = groups.lines().find_map(|line| line.strip_prefix("tss:"));
    let number = line.and_then(|line| line.split(':').nth(1)?.parse().ok());
    number.expect("there is no group tss: apt install libtss2-tcti-device0")
}
