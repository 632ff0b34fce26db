//! Looking at a module in a process of its own: this same program, `token list --module`.
//!
//! Called by `list`. Loading a module runs its code, and a stranger's may crash or hang: that ends the other
//! process. What it starts may outlive that process and hold its output open: nobody waits for the end of that. What
//! the other process says is what the module makes it say, and is only shown.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::output::{Line, Status};
use super::list::PATIENCE;

/// How long the output of a process may stay open that has ended. What it has said is there by then.
const LINGER: Duration = Duration::from_secs(2);
/// Longer than anything that is said of a module.
const MOST: usize = 1 << 20;

/// Looks at a module in a process of its own. Nobody asked for just this module, so what is wrong with it
/// is a warning.
pub(super) fn look(module: &Path) -> Vec<Line> {
    let lines = match ask(module) {
        Ok(said) => {
            let mut lines = said.lines;
            if said.outlived {
                lines.push(Line::warn(
                    "module",
                    format!(
                        "{}: it has started a process that goes on after it was looked at, and was not waited for",
                        module.display()
                    ),
                    "look for it with `ps`; its maker knows what it is for, and whether it may be ended",
                ));
            }
            lines
        }
        Err(why) => vec![Line::warn(
            "module",
            format!("{}: {why}", module.display()),
            "see its maker's configuration and log; custodyd uses it only where it is configured",
        )],
    };
    let softer = |mut line: Line| {
        if line.is_red() {
            line.status = Status::Warn;
        }
        line
    };
    lines.into_iter().map(softer).collect()
}

/// What the other process has said.
#[derive(Debug)]
struct Said {
    lines: Vec<Line>,
    /// Somebody holds its output open although it has ended.
    outlived: bool,
}

fn ask(module: &Path) -> Result<Said, String> {
    let own = std::env::current_exe().map_err(|error| format!("not looked at ({error})"))?;
    let mut command = Command::new(own);
    command
        .args(["--json", "token", "list", "--module"])
        .arg(module);
    answer_of(&mut command)
}

fn answer_of(command: &mut Command) -> Result<Said, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("not looked at ({error})"))?;
    let output = Output::of(child.stdout.take());
    let status = wait(&mut child, PATIENCE.saturating_mul(2))?;
    let (text, outlived) = output.whole();
    if let Some(signal) = status.signal() {
        return Err(format!(
            "it crashed while it was looked at (signal {signal})"
        ));
    }
    let answer: Value = serde_json::from_slice(&text)
        .map_err(|_| format!("it ended the process that looked at it ({status})"))?;
    let checks = answer.get("checks").and_then(Value::as_array);
    let lines = checks.into_iter().flatten().filter_map(Line::read);
    Ok(Said {
        lines: lines.collect(),
        outlived,
    })
}

/// What comes from a pipe, which is read all the time: whoever writes must not wait for us.
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Output {
    fn of(mut pipe: Option<ChildStdout>) -> Self {
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let (ends, ended) = mpsc::channel();
        let read = Arc::clone(&text);
        thread::spawn(move || {
            // Dropped when this ends.
            let _ends = ends;
            let mut buffer = [0; 4096];
            while let Some(pipe) = &mut pipe
                && let Ok(count @ 1..) = pipe.read(&mut buffer)
            {
                let mut text = read.lock().unwrap_or_else(PoisonError::into_inner);
                let room = MOST.saturating_sub(text.len());
                text.extend(buffer.iter().take(count.min(room)));
            }
        });
        Self { text, ended }
    }

    /// What its process has said, which has ended; and whether somebody else holds it open.
    fn whole(self) -> (Vec<u8>, bool) {
        let ended = self.ended.recv_timeout(LINGER);
        let outlived = ended == Err(mpsc::RecvTimeoutError::Timeout);
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut *text), outlived)
    }
}

fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus, String> {
    let give_up = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < give_up => thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "it hangs (no answer within {} s)",
                    patience.as_secs()
                ));
            }
            Err(error) => return Err(format!("not looked at ({error})")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn said_by(script: &str) -> Result<Said, String> {
        answer_of(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn what_a_module_leaves_behind_is_told_of_and_not_waited_for() {
        let began = Instant::now();
        let said = said_by("sleep 30 & echo '{\"checks\": []}'").unwrap();
        assert!(said.outlived && said.lines.is_empty(), "{said:?}");
        let killed = said_by("sleep 30 & kill -9 $$").unwrap_err();
        assert!(killed.contains("signal 9"), "{killed}");
        assert!(began.elapsed() < Duration::from_secs(20));
        // Control: what ends with its process, and closes its output, is none.
        let said = said_by("sleep 30 >&- & echo '{\"checks\": []}'").unwrap();
        assert!(!said.outlived, "{said:?}");
        let long = said_by("yes | head -c 3000000; echo").unwrap_err();
        assert!(long.contains("it ended the process"), "{long}");
    }

    #[test]
    fn a_module_that_crashes_or_says_nothing_costs_a_warning() {
        // This test's own program prints no JSON, as a module that exits does.
        let lines = look(Path::new("/nowhere/module.so"));
        assert!(
            lines.iter().all(|line| line.status == Status::Warn),
            "{lines:?}"
        );
    }
}
