//! What the process asks of the kernel before it holds a secret: no core dumps, no
//! debugger of the same user, no secret written to swap, no new privileges.
//!
//! Files, sockets and system calls are bounded by the unit (`systemd/`) and not here. Landlock could
//! do a part of that without a unit, but a PKCS#11 module of somebody else's opens files, sockets and
//! devices that only the operator can name, and under the unit it would repeat what the mount namespace
//! does; so there is none.
//!
//! Called first thing by the command line, for every command, because each may read the
//! token PIN. Nothing here fails a start: a container may forbid any of it, and the
//! report says what was not granted and what to do. `doctor` prints it, `serve` logs it.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{CapabilitySet, capabilities, set_no_new_privs};

/// What was granted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// A crash writes no memory to disk, and other processes of this user cannot attach.
    pub core_dumps: Result<(), String>,
    /// Memory is never written to swap.
    pub locked_memory: Result<(), String>,
    /// Nothing that this process ever starts gains rights by a set-user-ID bit.
    pub no_new_privileges: Result<(), String>,
}

impl Report {
    /// Says in the log what could not be had. The daemon serves all the same: the operator decides.
    pub fn tell(&self) {
        for outcome in [
            &self.core_dumps,
            &self.locked_memory,
            &self.no_new_privileges,
        ] {
            if let Err(reason) = outcome {
                tracing::warn!(reason, "this process is less shut off than it should be");
            }
        }
    }
}

/// Applies everything. Repeating it changes nothing.
pub fn apply() -> Report {
    Report {
        core_dumps: forbid_core_dumps(),
        locked_memory: lock_memory(),
        no_new_privileges: set_no_new_privs(true).map_err(|error| {
            format!("PR_SET_NO_NEW_PRIVS was refused ({error}); allow prctl in the seccomp profile")
        }),
    }
}

fn forbid_core_dumps() -> Result<(), String> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(|error| {
        format!("the core file limit could not be set to 0 ({error}); set LimitCORE=0 in the unit")
    })?;
    // The limit does not bind a kernel that pipes dumps to a program; this flag does. It
    // also keeps other processes of the same user from attaching a debugger.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| {
        format!("PR_SET_DUMPABLE was refused ({error}); allow prctl in the seccomp profile")
    })
}

/// Locks everything, now and later, but only where no limit applies.
///
/// Under a limit, locking *future* mappings would make an allocation fail as soon as the
/// limit is reached, somewhere in the middle of the work: worse than a page in swap. With
/// `ONFAULT` only the pages that are really used are locked, so that stacks and arenas
/// that were merely reserved cost nothing.
fn lock_memory() -> Result<(), String> {
    if !unlimited() {
        let limit = getrlimit(Resource::Memlock).current.unwrap_or(0) / 1024;
        return Err(format!(
            "the limit is {limit} KiB, so secrets may reach swap; set LimitMEMLOCK=infinity in the unit \
             (in a shell, as root: ulimit -l unlimited), or turn swap off"
        ));
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map_err(
        |error| {
            format!(
                "mlockall was refused ({error}); allow it in the seccomp profile, or turn swap off"
            )
        },
    )
}

/// No soft limit, or the capability that sets it aside.
fn unlimited() -> bool {
    getrlimit(Resource::Memlock).current.is_none()
        || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn what_the_report_says_is_what_the_kernel_says() {
        let report = apply();
        report.core_dumps.clone().unwrap();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        let locked = std::fs::read_to_string("/proc/self/status").unwrap();
        let locked = locked
            .lines()
            .find(|line| line.starts_with("VmLck:"))
            .unwrap();
        assert_eq!(
            report.locked_memory.is_ok(),
            !locked.ends_with(" 0 kB"),
            "{locked} {report:?}"
        );
        assert!(report.no_new_privileges.is_ok());
        // Of this thread: a process calls it before it has others.
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        assert_eq!(apply(), report);
    }
}
