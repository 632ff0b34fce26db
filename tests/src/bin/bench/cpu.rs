//! CPU time of a process, and work done on all cores for a while.
//!
//! Used by every part of the bench. Time on the processor is read from /proc (proc(5)), for the
//! daemon as for this program, so that both sides of a ratio come from the same clock.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Ticks per second in /proc: USER_HZ, which Linux keeps at 100 for programs (time(7)).
const USER_HZ: f64 = 100.0;

/// How often something was done, and what that took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) count: f64,
    /// Seconds on a processor, user and system, all threads.
    pub(crate) cpu: f64,
    /// Seconds on the wall.
    pub(crate) wall: f64,
}

impl Sample {
    pub(crate) fn per_second(&self) -> f64 {
        self.count / self.wall
    }

    pub(crate) fn per_cpu_second(&self) -> f64 {
        self.count / self.cpu
    }

    /// Microseconds on a processor for one.
    pub(crate) fn micros(&self) -> f64 {
        self.cpu * 1e6 / self.count
    }
}

/// Runs `work`, which tells how often it did its thing, and takes the CPU time of `process`.
pub(crate) fn sample(process: u32, work: impl FnOnce() -> f64) -> Sample {
    let (cpu, wall) = (seconds(process), Instant::now());
    let count = work();
    Sample {
        count,
        wall: wall.elapsed().as_secs_f64(),
        cpu: seconds(process) - cpu,
    }
}

/// Repeats `work(worker, index)` on all cores until the time is over or `limit` are done.
///
/// On all cores, because the daemon shares them with its clients: a core whose neighbour rests
/// is faster than one whose neighbour works, and the parts must not have that advantage.
pub(crate) fn on_all_cores(
    lasting: Duration,
    limit: usize,
    work: impl Fn(usize, usize) + Sync,
) -> Sample {
    let next = AtomicUsize::new(0);
    sample(std::process::id(), || {
        let end = Instant::now() + lasting;
        let done: usize = std::thread::scope(|scope| {
            let (next, work) = (&next, &work);
            let threads: Vec<_> = (0..cores())
                .map(|worker| {
                    scope.spawn(move || {
                        let mut done = 0;
                        while Instant::now() < end {
                            let index = next.fetch_add(1, Ordering::Relaxed);
                            if index >= limit {
                                break;
                            }
                            work(worker, index);
                            done += 1;
                        }
                        done
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        done as f64
    })
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

/// User and system seconds of a process, ended threads included.
fn seconds(process: u32) -> f64 {
    let (_, fields) = stat(&process.to_string()).unwrap();
    // Fields 14 and 15 of proc_pid_stat(5), counted from the third, which comes first here.
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / USER_HZ
}

/// How often threads of a process have slept and were woken.
pub(crate) fn switches(process: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{process}/task"))
        .unwrap()
        .flatten();
    let of = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let line = |text: &str| {
            text.strip_prefix("voluntary_ctxt_switches:")
                .map(str::to_owned)
        };
        let found = status.lines().find_map(line);
        found.map_or(0, |count| count.trim().parse::<u64>().unwrap())
    };
    threads.map(of).sum()
}

/// The child of this process that runs the program `name`.
pub(crate) fn child(name: &str) -> u32 {
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|process| process.bytes().all(|byte| byte.is_ascii_digit()))
        .find_map(|process| {
            let (program, fields) = stat(&process)?;
            (program == name && fields[1] == own).then(|| process.parse().unwrap())
        })
        .expect("the daemon runs")
}

/// The program's name, and the fields after it.
fn stat(process: &str) -> Option<(String, Vec<String>)> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name is in parentheses and may hold any of them itself.
    let (start, rest) = text.rsplit_once(')')?;
    let (_, name) = start.split_once('(')?;
    let fields = rest.split_whitespace().map(str::to_owned).collect();
    Some((name.to_owned(), fields))
}
