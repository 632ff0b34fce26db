//! The end of the process.
//!
//! Called by `main`, once everything is closed and said. A thread may be inside a PKCS#11 module even then, or in what is in front of
//! a TPM: a recovery was under way, or a call hangs, and nothing can end it. `exit` runs what those libraries have for the end of a
//! process, which takes down what that thread works on; it would end the process by a signal, and a daemon that has stopped in order
//! would look like one that crashed. So such a thread is waited for, though not for long, and nobody comes in after; where it stays, the process ends
//! without any of that. Nothing is lost: the database and the sessions were closed, and what was printed is written out.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use custodyd_hsm::backend;

/// A recovery that does not hang is through with an attempt by then.
const WITHIN: Duration = Duration::from_secs(2);

/// Gives the code back to a process that may end in the usual way; else ends it with that.
#[must_use]
pub fn of(code: ExitCode) -> ExitCode {
    if !backend::rests(WITHIN) {
        tracing::warn!("a thread is inside the token's module still; the process ends beneath it");
        at_once(code);
    }
    code
}

#[allow(
    unsafe_code,
    reason = "the standard library ends a process by way of the exit handlers alone"
)]
fn at_once(code: ExitCode) -> ! {
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
    let code = i32::from(code != ExitCode::SUCCESS);
    // SAFETY: it takes a plain number and does not return; what other threads are doing ends with it.
    unsafe { libc::_exit(code) }
}
