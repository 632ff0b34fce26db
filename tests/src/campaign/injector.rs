//! System calls that fail in another process: strace(1), attached while the fault lasts.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(super) struct Injector {
    strace: Child,
    /// What it writes of the calls.
    said: tempfile::NamedTempFile,
    /// And of itself: why it could not attach, say.
    complaints: tempfile::NamedTempFile,
}

/// What came of it.
pub(super) struct Hits {
    pub(super) failed: usize,
    /// All such calls, those that failed among them.
    pub(super) seen: usize,
    pub(super) complaints: String,
}

pub(super) fn is_there() -> bool {
    let asked = Command::new("strace").arg("--version").output();
    asked.is_ok_and(|output| output.status.success())
}

/// The process and what it has started.
pub(super) fn family(process: u32) -> Vec<u32> {
    let children = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(children).unwrap_or_default();
    let children = children.split_whitespace();
    std::iter::once(process)
        .chain(children.filter_map(|child| child.parse().ok()))
        .collect()
}

impl Injector {
    /// Each `every`-th such call of a thread fails; where files are named, only theirs.
    pub(super) fn attach(processes: &[u32], calls: &str, every: u64, of: &[PathBuf]) -> Self {
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o"]).arg(said.path());
        strace.args(["-e", &format!("trace={calls}")]);
        strace.args([
            "-e",
            &format!("inject={calls}:error=EIO:when={every}+{every}"),
        ]);
        for file in of {
            strace.arg("-P").arg(file);
        }
        for process in processes {
            strace.args(["-p", &process.to_string()]);
        }
        let complaints = tempfile::NamedTempFile::new().unwrap();
        let strace = strace.stderr(Stdio::from(complaints.reopen().unwrap()));
        let strace = strace.spawn().unwrap();
        let give_up = Instant::now() + Duration::from_secs(20);
        while !processes.iter().all(|process| is_traced(*process)) && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(2));
        }
        Self {
            strace,
            said,
            complaints,
        }
    }

    /// How many calls have failed.
    pub(super) fn failed(&self) -> usize {
        self.hits().failed
    }

    fn hits(&self) -> Hits {
        let said = fs::read_to_string(self.said.path()).unwrap_or_default();
        Hits {
            failed: said.matches("(INJECTED)").count(),
            seen: said.lines().count(),
            complaints: fs::read_to_string(self.complaints.path()).unwrap_or_default(),
        }
    }

    /// In order: those who were traced go on.
    pub(super) fn detach(mut self) -> Hits {
        let id = Pid::from_raw(i32::try_from(self.strace.id()).unwrap()).unwrap();
        let _ = kill_process(id, Signal::TERM);
        let _ = self.strace.wait();
        self.hits()
    }
}

/// Or is gone.
fn is_traced(process: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    })
}
