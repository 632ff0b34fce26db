//! Looking at a module in a process of its own: this same program, `token list --module`.
//!
//! Called by `list`. Loading a module runs its code, and a stranger's may crash or hang: that ends the other
//! process. What the other process says is what the module makes it say, and is only shown.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::output::{Line, Status};
use super::list::PATIENCE;

/// Looks at a module in a process of its own. Nobody asked for just this module, so what is wrong with it
/// is a warning.
pub(super) fn look(module: &Path) -> Vec<Line> {
    let lines = match ask(module) {
        Ok(lines) => lines,
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

fn ask(module: &Path) -> Result<Vec<Line>, String> {
    let own = std::env::current_exe().map_err(|error| format!("not looked at ({error})"))?;
    let mut child = Command::new(own)
        .args(["--json", "token", "list", "--module"])
        .arg(module)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("not looked at ({error})"))?;
    let pipe = child.stdout.take();
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut text);
        }
        text
    });
    let status = wait(&mut child, PATIENCE.saturating_mul(2))?;
    if let Some(signal) = status.signal() {
        return Err(format!(
            "it crashed while it was looked at (signal {signal})"
        ));
    }
    let text = reader.join().unwrap_or_default();
    let answer: Value = serde_json::from_slice(&text)
        .map_err(|_| format!("it ended the process that looked at it ({status})"))?;
    let checks = answer.get("checks").and_then(Value::as_array);
    Ok(checks
        .into_iter()
        .flatten()
        .filter_map(Line::read)
        .collect())
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
mod tests {
    use super::*;

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
