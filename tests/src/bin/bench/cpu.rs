//! CPU time of a process, and work done on all cores for a while.
//!
//! Used by every part of the bench. Time on the processor is read from /proc (proc(5)), for the
//! daemon as for this program, so that both sides of a ratio come from the same clock.

use std::collections::HashMap;
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

/// The same of processes and of all that they have started, whether it still runs or not.
pub(crate) fn sample_trees(roots: &[u32], work: impl FnOnce() -> f64) -> Sample {
    let (cpu, wall) = (seconds_of_trees(roots), Instant::now());
    let count = work();
    Sample {
        count,
        wall: wall.elapsed().as_secs_f64(),
        cpu: seconds_of_trees(roots) - cpu,
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

/// How often each thread of a process has slept and was woken, by its number.
pub(crate) fn switches(process: u32) -> HashMap<String, u64> {
    let threads = fs::read_dir(format!("/proc/{process}/task"))
        .unwrap()
        .flatten();
    let of = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let line = |text: &str| {
            text.strip_prefix("voluntary_ctxt_switches:")
                .map(str::to_owned)
        };
        let found = status.lines().find_map(line)?;
        let thread = thread.file_name().into_string().ok()?;
        Some((thread, found.trim().parse::<u64>().unwrap()))
    };
    threads.filter_map(of).collect()
}

/// Of the threads that are there at the end: one that ends meanwhile takes its count along.
pub(crate) fn woken(before: &HashMap<String, u64>, after: &HashMap<String, u64>) -> u64 {
    let since = |(thread, count): (&String, &u64)| {
        count.saturating_sub(before.get(thread).copied().unwrap_or(0))
    };
    after.iter().map(since).sum()
}

/// Those of processes and their descendants. What has ended is in the sums of its parent, which has waited for it.
fn seconds_of_trees(roots: &[u32]) -> f64 {
    let mut family: Vec<u32> = roots.to_vec();
    let mut running: Vec<(u32, u32, f64)> = processes()
        .filter_map(|process| {
            let (_, fields) = stat(&process)?;
            // Fields 14 to 17: its own, and of children that it has waited for.
            let ticks: f64 = (11..15)
                .filter_map(|at| fields[at].parse::<f64>().ok())
                .sum();
            let parent = fields[1].parse().ok()?;
            Some((process.parse().ok()?, parent, ticks / USER_HZ))
        })
        .collect();
    let mut sum = 0.0;
    while let Some(member) = family.pop() {
        running.retain(|(process, parent, seconds)| {
            if *parent == member {
                family.push(*process);
            }
            if *process == member {
                sum += seconds;
            }
            *process != member
        });
    }
    sum
}

/// Bytes that a process has in memory now, and that it had at most (proc_pid_status(5)).
pub(crate) fn memory(process: u32) -> [f64; 2] {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.unwrap().parse::<f64>().unwrap() * 1024.0
    })
}

fn processes() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|process| process.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The child of this process that runs the program `name`.
pub(crate) fn child(name: &str) -> u32 {
    let own = std::process::id().to_string();
    processes()
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What a shell's children have spent is the shell's, after they have ended.
    #[test]
    fn a_tree_has_the_time_of_children_that_have_ended() {
        let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let script = format!("sh -c '{work}'; echo; read wait");
        let mut shell = Command::new("sh")
            .args(["-c", &script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 1];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut said).unwrap();
        let (alone, tree) = (seconds(shell.id()), seconds_of_trees(&[shell.id()]));
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(tree > alone + 0.03, "{tree} and {alone}");
    }

    /// A thread that waits is woken, and one that has ended takes nothing off the others.
    #[test]
    fn a_thread_that_ends_takes_no_wakes_off_the_others() {
        let count = |pairs: &[(&str, u64)]| -> HashMap<String, u64> {
            let owned = pairs
                .iter()
                .map(|(thread, count)| ((*thread).to_owned(), *count));
            owned.collect()
        };
        let before = count(&[("1", 5), ("2", 900)]);
        let after = count(&[("1", 8), ("3", 4)]);
        assert_eq!(woken(&before, &after), 7);
        assert!(!switches(std::process::id()).is_empty());
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let [now, most] = memory(std::process::id());
        assert!(now > 1e6 && most >= now, "{now} {most}");
    }
}
