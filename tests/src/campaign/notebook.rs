//! What the clients, the faults and the auditor share: which nodes serve, what was counted, and what must not have been.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tlog_tiles::Hash;

use super::history::{CLOCK_FORGIVEN, Came, Entry, Sent, Visit};

/// A node as clients see it.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) url: String,
    pub(super) open: bool,
    /// Goes up when it was killed, and again when somebody serves whose start came after that.
    pub(super) life: u64,
}

/// Something that must not happen.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub(super) at: u64,
    pub(super) what: String,
    pub(super) history: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Notebook {
    begun: Instant,
    stopped: AtomicBool,
    /// When a node's clock was right again, in milliseconds: none is wrong at 0, one is at the end of time.
    clock_off: AtomicU64,
    doors: Mutex<Vec<Door>>,
    counts: [AtomicU64; 5],
    violations: Mutex<Vec<Violation>>,
    /// Places in the log that were acknowledged, and what stands there; the auditor takes them.
    receipts: Mutex<Vec<(u64, Hash)>>,
    /// Of accounts that are over, for who wants to check again.
    histories: Mutex<Vec<Vec<Entry>>>,
    watch: Mutex<Option<Watch>>,
}

/// Nodes that have no reason to refuse anything, since then, and what they have refused all the same.
#[derive(Debug)]
struct Watch {
    nodes: Vec<usize>,
    since: u64,
    refused: Vec<Refused>,
}

/// An answer that did not come, or that said no more than that somebody has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) node: usize,
    /// When it was asked for.
    pub(super) at: u64,
    pub(super) what: String,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// With what was asked for, or a refusal that says what is true.
    Answered,
    /// 429 and 5xx.
    Refused,
    /// Sent, and no answer.
    Lost,
    /// Nobody was there.
    Unreached,
    /// Found in the log where the receipt said.
    Receipts,
}

pub(super) type Counts = [u64; 5];

impl Notebook {
    #[must_use]
    pub(super) fn new(doors: Vec<Door>) -> Self {
        Self {
            begun: Instant::now(),
            stopped: AtomicBool::new(false),
            clock_off: AtomicU64::new(0),
            doors: Mutex::new(doors),
            counts: Default::default(),
            violations: Mutex::default(),
            receipts: Mutex::default(),
            histories: Mutex::default(),
            watch: Mutex::default(),
        }
    }

    #[must_use]
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    #[must_use]
    pub(super) fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    pub(super) fn a_clock_is_off(&self, off: bool) {
        let until = match off {
            true => u64::MAX,
            false => self.clock_off.load(Ordering::SeqCst).min(self.now()),
        };
        self.clock_off.store(until, Ordering::SeqCst);
    }

    /// Or was while what came just now was asked.
    pub(super) fn is_a_clock_off(&self) -> bool {
        let until = self.clock_off.load(Ordering::SeqCst);
        until > 0 && until.saturating_add(CLOCK_FORGIVEN) > self.now()
    }

    pub(super) fn count(&self, what: Count) {
        self.counts[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub(super) fn counts(&self) -> Counts {
        std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed))
    }

    pub(super) fn violated(&self, what: String, history: &[Entry]) {
        eprintln!("VIOLATION: {what}");
        for entry in history.iter().rev().take(30).rev() {
            eprintln!("  {entry}");
        }
        let violation = Violation {
            at: self.now(),
            what,
            history: history.to_vec(),
        };
        locked(&self.violations).push(violation);
    }

    #[must_use]
    pub(super) fn violations(&self) -> Vec<Violation> {
        locked(&self.violations).clone()
    }

    pub(super) fn receipt(&self, index: u64, leaf: Hash) {
        locked(&self.receipts).push((index, leaf));
    }

    /// Those of the first so many places.
    #[must_use]
    pub(super) fn receipts_below(&self, size: u64) -> Vec<(u64, Hash)> {
        let mut receipts = locked(&self.receipts);
        receipts
            .extract_if(.., |(index, _)| *index < size)
            .collect()
    }

    /// Those that nobody has looked for yet.
    #[must_use]
    pub(super) fn receipts_left(&self) -> usize {
        locked(&self.receipts).len()
    }

    pub(super) fn over(&self, history: Vec<Entry>) {
        locked(&self.histories).push(history);
    }

    #[must_use]
    pub(super) fn histories(&self) -> Vec<Vec<Entry>> {
        locked(&self.histories).clone()
    }

    /// From now on it is written down what these refuse, of what they are asked from now on.
    pub(super) fn watch(&self, nodes: &[usize]) {
        *locked(&self.watch) = Some(Watch {
            nodes: nodes.to_vec(),
            since: self.now(),
            refused: Vec::new(),
        });
    }

    /// What those have refused who were watched until now.
    #[must_use]
    pub(super) fn unwatch(&self) -> Vec<Refused> {
        let watch = locked(&self.watch).take();
        watch.map(|watch| watch.refused).unwrap_or_default()
    }

    /// What came of what was asked.
    pub(super) fn saw(&self, entry: &Entry) {
        let mut watch = locked(&self.watch);
        let Some(watch) = watch.as_mut().filter(|watch| entry.sent.at >= watch.since) else {
            return;
        };
        for (visit, came) in entry.sent.to.iter().zip(&entry.came) {
            let refused = matches!(came, Came::Lost | Came::Open(_));
            if refused && watch.nodes.contains(&visit.node) {
                watch.refused.push(Refused {
                    node: visit.node,
                    at: entry.sent.at,
                    what: entry.to_string(),
                });
            }
        }
    }

    /// A node was killed or ended: nobody goes there any more.
    pub(super) fn closed(&self, node: usize) {
        let door = &mut locked(&self.doors)[node];
        door.open = false;
        door.life += u64::from(door.life.is_multiple_of(2));
    }

    pub(super) fn opened(&self, node: usize) {
        self.outlived(node);
        locked(&self.doors)[node].open = true;
    }

    /// What `node` had in hand when it was killed is over, because somebody serves again.
    pub(super) fn outlived(&self, node: usize) {
        let door = &mut locked(&self.doors)[node];
        door.life += door.life % 2;
    }

    /// What was asked has come to an end for who asked.
    pub(super) fn ended(&self, sent: &mut Sent) {
        sent.until = self.now();
        sent.clock_off = self.clock_off.load(Ordering::SeqCst);
        let doors = locked(&self.doors);
        for visit in &mut sent.to {
            visit.last = doors[visit.node].life;
        }
    }

    /// Where a request may go now, and what is written down of it. `chance` chooses among those who serve.
    pub(super) async fn door(&self, chance: u64) -> Option<(String, Sent)> {
        let (mut urls, sent) = self.doors(chance, 1).await?;
        Some((urls.remove(0), sent))
    }

    /// The same for so many at once, each to the next of those who serve.
    pub(super) async fn doors(&self, chance: u64, count: usize) -> Option<(Vec<String>, Sent)> {
        while !self.has_stopped() {
            let doors = locked(&self.doors).clone();
            let open: Vec<usize> = (0..doors.len()).filter(|&at| doors[at].open).collect();
            if !open.is_empty() {
                let first = usize::try_from(chance % open.len() as u64).unwrap();
                let nodes: Vec<usize> = open
                    .iter()
                    .copied()
                    .cycle()
                    .skip(first)
                    .take(count)
                    .collect();
                let at = self.now();
                let sent = Sent {
                    at,
                    lives: doors.iter().map(|door| door.life).collect(),
                    to: (nodes.iter())
                        .map(|&node| Visit {
                            node,
                            last: doors[node].life,
                        })
                        .collect(),
                    until: at,
                    clock_off: self.clock_off.load(Ordering::SeqCst),
                };
                let urls = nodes.iter().map(|&node| doors[node].url.clone());
                return Some((urls.collect(), sent));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tlog_tiles::record_hash;

    use super::super::history::{Asked, Came, Entry, Sent, Told, Visit};
    use super::{Door, Notebook};

    #[test]
    fn receipts_stay_until_they_are_looked_for() {
        let notebook = Notebook::new(Vec::new());
        for index in [3, 7] {
            notebook.receipt(index, record_hash(b"entry"));
        }
        assert_eq!(notebook.receipts_left(), 2);
        assert_eq!(notebook.receipts_left(), 2);
        assert_eq!(notebook.receipts_below(7).len(), 1);
        assert_eq!(notebook.receipts_left(), 1);
    }

    /// Controls: what is answered, what the node that is cut off refuses, and what was asked before.
    #[test]
    fn who_is_watched_refuses_nothing_unseen() {
        let notebook = Notebook::new(Vec::new());
        let entry = |at, came: [Came; 2]| Entry {
            sent: Sent {
                at,
                lives: vec![0; 3],
                to: [1, 2].map(|node| Visit { node, last: 0 }).to_vec(),
                until: at,
                clock_off: 0,
            },
            with: None,
            asked: Asked::Guess(vec![0, 0]),
            came: came.to_vec(),
        };
        let open = || Came::Open("503 store-unavailable".into());
        let done = || Came::Done(Told::Yes);
        std::thread::sleep(std::time::Duration::from_millis(5));
        notebook.watch(&[0, 1]);
        let now = notebook.now();
        notebook.saw(&entry(now, [done(), open()]));
        notebook.saw(&entry(now - 1 - now / 2, [open(), open()]));
        notebook.saw(&entry(now + 1, [open(), done()]));
        notebook.saw(&entry(now + 2, [Came::Lost, Came::Lost]));
        let refused = notebook.unwatch();
        let refused: Vec<_> = refused.iter().map(|one| (one.node, one.at)).collect();
        assert_eq!(refused, [(1, now + 1), (1, now + 2)]);
        notebook.saw(&entry(now + 3, [open(), open()]));
        assert!(notebook.unwatch().is_empty());
    }

    #[tokio::test]
    async fn what_is_asked_at_once_goes_to_each_node_that_serves() {
        let door = |number: usize| Door {
            url: number.to_string(),
            open: number != 1,
            life: 0,
        };
        let notebook = Notebook::new((0..4).map(door).collect());
        for chance in 0..9 {
            let (urls, sent) = notebook.doors(chance, 3).await.unwrap();
            let mut nodes: Vec<usize> = sent.to.iter().map(|visit| visit.node).collect();
            assert_eq!(urls, nodes.iter().map(usize::to_string).collect::<Vec<_>>());
            nodes.sort_unstable();
            assert_eq!(nodes, [0, 2, 3]);
        }
        // Of more than there are some go to the same.
        let (_, sent) = notebook.doors(5, 4).await.unwrap();
        assert_eq!(sent.to.first(), sent.to.last());
    }
}
