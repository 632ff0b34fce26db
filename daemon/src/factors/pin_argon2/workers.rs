//! Threads that evaluate Argon2id, and the counting of who may wait for them.
//!
//! Used by `pin_argon2` only. One evaluation fills a core and 19 MiB or more,
//! so it runs on threads of its own: as many as asked, at most one per core, and
//! the runtime's threads stay free. Each thread keeps its memory between calls
//! and wipes it as soon as no call waits: wiping after each one costs a fifth of
//! an evaluation, and the next one writes over the memory anyway. Where none comes for a
//! while, the host has the memory back. Of several apps
//! none may hold more places than stay free, and what waits is evaluated in turn: one
//! app's flood is its own. It must never take work without a reservation, and never
//! lose a thread to a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use argon2::Block;
use custodyd_hsm::{Lane, Turns};
use rustix::mm::{Advice, madvise};

use crate::places::{self, Places};

/// A thread keeps at most this much memory between calls; more is given back.
const KEPT_BLOCKS: usize = 64 * 1024;
/// So long a thread without work keeps its memory.
const IDLE: Duration = Duration::from_secs(2);

/// The memory of one evaluation. Wiped when no other waits, whatever happened in it.
#[derive(Default)]
pub(super) struct Memory {
    blocks: Vec<Block>,
    used: bool,
    resident: bool,
}

impl Memory {
    /// At least `count` blocks of 1 KiB; `None` where the host has no more.
    pub(super) fn blocks(&mut self, count: usize) -> Option<&mut [Block]> {
        let missing = count.saturating_sub(self.blocks.len());
        if missing > 0 {
            self.blocks.try_reserve_exact(missing).ok()?;
            prefer_huge_pages(&mut self.blocks);
        }
        let length = self.blocks.len().max(count);
        self.blocks.resize(length, Block::new());
        (self.used, self.resident) = (true, true);
        self.blocks.get_mut(..count)
    }

    fn wipe(&mut self) {
        self.used = false;
        self.blocks.fill(Block::new());
        // The blocks are read again by the next call, or freed below; the fence
        // keeps the compiler from dropping writes that it thinks nobody reads.
        std::hint::black_box(self.blocks.as_slice());
        compiler_fence(Ordering::SeqCst);
        if self.blocks.len() > KEPT_BLOCKS {
            self.give_back();
            self.blocks = Vec::new();
        }
    }

    /// Leaves the addresses and gives their pages back. The allocator could not: what it frees stays
    /// resident in a process that has locked its memory.
    pub(super) fn give_back(&mut self) {
        self.resident = false;
        if let Err(error) = discard(&mut self.blocks) {
            tracing::debug!(%error, "the kernel keeps the pages of Argon2id");
            self.blocks = Vec::new();
        }
    }
}

/// The whole pages within some memory, and how long they are together.
fn pages<T>(memory: &mut [T]) -> (*mut std::ffi::c_void, usize) {
    let length = std::mem::size_of_val(memory);
    let start = memory.as_mut_ptr().cast::<u8>();
    // The kernel's: it rounds up what is no whole page, and forgets what is behind.
    let page = rustix::param::page_size();
    let skip = start.addr().next_multiple_of(page) - start.addr();
    let pages = length.saturating_sub(skip) / page * page;
    (start.wrapping_add(skip).cast(), pages)
}

/// Forgets what the blocks hold: they are zero afterwards, and take no memory until they are written.
#[allow(
    unsafe_code,
    reason = "the only way to say it; see below why it is sound"
)]
fn discard(blocks: &mut [Block]) -> rustix::io::Result<()> {
    let (start, length) = pages(blocks);
    if length == 0 {
        return Ok(());
    }
    // SAFETY: the range lies within memory that this function has borrowed exclusively, and which is
    // private and of no file, as all of the allocator's: it reads as zero from here on, which is a
    // valid block.
    unsafe { madvise(start, length, Advice::LinuxDontneedLocked) }
}

/// Asks for huge pages before the memory is touched. Argon2id reads all over it, and with pages
/// of 4 KiB a good part of its time goes into the processor's address translation. Only a wish:
/// where the kernel refuses, the work is slower and nothing else.
#[allow(
    unsafe_code,
    reason = "the only way to say it; see below why it is sound"
)]
fn prefer_huge_pages(blocks: &mut Vec<Block>) {
    let (start, length) = pages(blocks.spare_capacity_mut());
    if length == 0 {
        return;
    }
    // SAFETY: the range lies within memory that the vector owns and that this function has
    // borrowed exclusively; this advice changes how the kernel backs it and not what it holds.
    let advised = unsafe { madvise(start, length, Advice::LinuxHugepage) };
    if let Err(error) = advised {
        tracing::debug!(%error, "no huge pages for Argon2id");
    }
}

/// How far these threads stand back where there are fewer cores than work. One evaluation keeps a
/// core for tens of milliseconds; a passkey's sign-in needs less than three, and should not wait for
/// whoever tries PINs.
const NICE: i32 = 10;

/// On Linux this is the thread's own, and every process may raise it. Only a wish, again.
fn stand_back() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "Argon2id runs at the priority of everything else");
    }
}

/// Work for one thread; it answers its caller by itself.
pub(super) type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// The threads and what waits for them.
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    threads: usize,
    reserved: Arc<Places<Holder>>,
    /// Moving average of the time of one evaluation.
    micros: AtomicU64,
}

struct Queue {
    jobs: Turns<Job>,
    closed: bool,
}

/// Whose places are counted together: an app's own devices, and the strangers who try its accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Holder {
    lane: Lane,
    stranger: bool,
}

/// A place among those that run or wait. Given back when dropped.
pub(super) type Place = places::Place<Holder>;

impl Workers {
    pub(super) fn start(threads: usize, queue: usize) -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let threads = threads.clamp(1, cores);
        let capacity = threads.saturating_add(queue);
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                // Who hands in a job has a place: it is the places that are shared, this only takes turns.
                jobs: Turns::new(usize::MAX),
                closed: false,
            }),
            wake: Condvar::new(),
            threads,
            reserved: Places::new(capacity, 0),
            micros: AtomicU64::new(50_000),
        });
        let mut workers = Workers {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
        };
        for number in 0..threads {
            let shared = Arc::clone(&shared);
            // On an error `workers` is dropped, which ends the threads so far.
            let thread = std::thread::Builder::new()
                .name(format!("argon2-{number}"))
                .spawn(move || shared.run())?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// A place, or how long it will be until one is likely free. Strangers have half of all places
    /// together at the most.
    pub(super) fn reserve(&self, stranger: bool) -> Result<Place, Duration> {
        let shared = &self.shared;
        let half = shared.reserved.capacity().div_ceil(2);
        let lane = Lane::current();
        let place = shared
            .reserved
            .take_if(Holder { lane, stranger }, 1, |own, all, free| {
                // Each kind has its share of what its kind may have.
                let free = match stranger {
                    true => (half + 1).saturating_sub(all),
                    false => free,
                };
                let shares = own <= free || lane == Lane::Behind;
                shares && (all <= half || !stranger)
            });
        place.ok_or_else(|| shared.wait(shared.reserved.taken()))
    }

    /// Hand in a job. It is dropped unrun when the threads are ending.
    pub(super) fn submit(&self, job: Job) {
        let mut queue = self.shared.lock();
        if !queue.closed && queue.jobs.push(Lane::current(), job).is_ok() {
            self.shared.wake.notify_one();
        }
    }

    #[cfg(test)]
    pub(super) fn close_for_test(&self) {
        self.shared.close();
    }

    /// Places taken: running, waiting, or reserved and not yet used.
    pub(super) fn taken(&self) -> usize {
        self.shared.reserved.taken()
    }
}

/// Ends the threads once they finish what they are at; what waits is dropped,
/// and its callers are told.
impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // A worker catches what its jobs throw, so this cannot fail in a
            // way that leaves anything to do.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        // Nothing inside can leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let waiting = {
            let mut queue = self.lock();
            queue.closed = true;
            queue.jobs.take_all()
        };
        // Outside the lock: dropping a job wakes its caller.
        drop(waiting);
        self.wake.notify_all();
    }

    fn run(&self) {
        stand_back();
        let mut memory = Memory::default();
        while let Some(job) = self.next(&mut memory) {
            let begun = Instant::now();
            // A panic drops the job's reply channel, so its caller gets an error.
            let _ = catch_unwind(AssertUnwindSafe(|| job(&mut memory)));
            self.note(begun.elapsed());
        }
    }

    /// The next job; before it sleeps, the thread wipes its memory, and does not keep it for long.
    fn next(&self, memory: &mut Memory) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop() {
                return Some(job);
            }
            if memory.used {
                // Not under the lock: others may hand in jobs meanwhile.
                drop(queue);
                memory.wipe();
                queue = self.lock();
                continue;
            }
            if queue.closed {
                return None;
            }
            if !memory.resident {
                queue = (self.wake.wait(queue)).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (locked, slept) =
                (self.wake.wait_timeout(queue, IDLE)).unwrap_or_else(PoisonError::into_inner);
            queue = locked;
            if slept.timed_out() {
                drop(queue);
                memory.give_back();
                queue = self.lock();
            }
        }
    }

    fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 8);
        let before = self.micros.load(Ordering::Relaxed);
        self.micros.store(
            before.saturating_mul(7).saturating_add(took) / 8,
            Ordering::Relaxed,
        );
    }

    /// The time in which those who hold a place now will be done; whole seconds,
    /// since that is what Retry-After can say.
    fn wait(&self, taken: usize) -> Duration {
        let rounds = taken.div_ceil(self.threads) as u64;
        let micros = self.micros.load(Ordering::Relaxed).saturating_mul(rounds);
        Duration::from_secs(micros.div_ceil(1_000_000).clamp(1, 60))
    }
}
