//! Runs a case in a process of its own: the test starts its own program again
//! for this one test, with the environment that the rig wants.

use std::{
    env, fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::rig::Store;

const CHILD: &str = "CUSTODYD_CONFORMANCE_CASE";
const LIMIT: Duration = Duration::from_secs(240);
const LEAVING: Duration = Duration::from_secs(10);

/// `path` is the module path of the test with its name.
pub(crate) fn run<R: Store>(path: &str, case: fn(&R)) {
    let (_, name) = path.split_once("::").expect("a path below the crate");
    if env::var(CHILD).is_ok_and(|wanted| wanted == name) {
        case(&R::attach());
        leave_modules();
        return;
    }
    let prepared = R::prepare();
    let mut child = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .envs(prepared.environment)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let give_up = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > give_up {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let passed = status.is_some_and(|status| status.success());
    // A filter that matches no test also succeeds: the one must have run.
    assert!(
        passed && stdout.contains("1 passed"),
        "{name}: {status:?}\n{stdout}\n{stderr}"
    );
    drop(prepared.keep);
}

/// Waits for threads that are on their way out of a module, as one that has just recovered it is. At its end the process takes
/// modules down, and whoever is inside crashes.
fn leave_modules() {
    let inside = |thread: &fs::DirEntry| {
        let name = fs::read_to_string(thread.path().join("comm"));
        name.is_ok_and(|name| name.starts_with("token-"))
    };
    let give_up = Instant::now() + LEAVING;
    while fs::read_dir("/proc/self/task")
        .unwrap()
        .any(|thread| thread.is_ok_and(|thread| inside(&thread)))
        && Instant::now() < give_up
    {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Reads a pipe to its end beside the child, so that it never blocks on it.
fn drain(mut pipe: impl std::io::Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
