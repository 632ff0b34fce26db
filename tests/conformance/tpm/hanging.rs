//! What is between the daemon and its TPM takes a command and does not answer: a resource manager, a bus.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use custodyd_hsm::{
    Backend, Error, KeyId, Pool, PoolOptions, Result,
    backend::tpm::{Options, TpmBackend},
};

use super::{
    PerStart,
    bus::{Bus, EVICT_CONTROL, NV_EXTEND, SIGN, START_AUTH_SESSION, Told},
};
use crate::suite::{BIND, until};

const DEADLINE: Duration = Duration::from_secs(2);
/// What an operator is promised when a token is well again is a third of this. The machine that a test runs on may be
/// busy with others.
const HEALED: Duration = Duration::from_secs(15);
/// After which a command that has not come back is taken for one that hangs.
const HANGS: Duration = Duration::from_secs(3);
/// Every command.
const ALL: u32 = 0;

/// A pool on a TPM behind a bus that holds commands of a code: so many of them, from when it is told to.
struct Held {
    bus: Bus,
    backend: Arc<dyn Backend>,
    pool: Pool,
    code: Arc<AtomicU32>,
    left: Arc<AtomicU32>,
    /// By so many milliseconds all others are late.
    late: Arc<AtomicU32>,
    /// How many were.
    were_late: Arc<AtomicU32>,
    /// How many were begun: one with each connection.
    sessions: Arc<AtomicU32>,
}

impl Held {
    fn on(rig: &PerStart) -> Self {
        Self::within(rig, DEADLINE)
    }

    fn within(rig: &PerStart, deadline: Duration) -> Self {
        let late = Arc::<AtomicU32>::default();
        let lateness = Arc::clone(&late);
        let were_late = Arc::<AtomicU32>::default();
        let counted = Arc::clone(&were_late);
        let (code, left) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let (held, remaining) = (Arc::clone(&code), Arc::clone(&left));
        let sessions = Arc::<AtomicU32>::default();
        let begun = Arc::clone(&sessions);
        let bus = Bus::managing(&rig.0, move |command| {
            let held = held.load(Ordering::SeqCst);
            if command == START_AUTH_SESSION {
                begun.fetch_add(1, Ordering::SeqCst);
            }
            let holds = remaining.load(Ordering::SeqCst) > 0 && [ALL, command].contains(&held);
            match holds {
                true => {
                    remaining.fetch_sub(1, Ordering::SeqCst);
                    Told::Held
                }
                false => match lateness.load(Ordering::SeqCst) {
                    0 => Told::Pass,
                    late => {
                        counted.fetch_add(1, Ordering::SeqCst);
                        Told::Late(Duration::from_millis(late.into()))
                    }
                },
            }
        });
        let backend: Arc<dyn Backend> = Arc::new(TpmBackend::new(Options {
            tcti: bus.tcti.clone(),
            opens_within: Duration::from_secs(6),
            ..rig.options()
        }));
        let options = PoolOptions {
            threads: 2,
            queue: 64,
            deadline,
        };
        let pool = Pool::start(Arc::clone(&backend), options).unwrap();
        Self {
            bus,
            backend,
            pool,
            code,
            left,
            late,
            were_late,
            sessions,
        }
    }

    fn holds(&self, code: u32, times: u32) {
        self.code.store(code, Ordering::SeqCst);
        self.left.store(times, Ordering::SeqCst);
    }

    fn sign(&self) -> Result<()> {
        let signed = self.pool.blocking_call("sign", |custody| {
            let public = custody.public_key(BIND)?;
            Ok((public, custody.sign(BIND, &super::sha256(b"x"))?))
        });
        let (public, signature) = signed?;
        assert!(public.verifies(b"x", &signature));
        Ok(())
    }

    fn anchor(&self, content: &'static [u8]) -> Result<()> {
        self.pool
            .blocking_call("anchor", |custody| custody.create_anchor(content))
    }

    fn anchors(&self) -> Result<Vec<Vec<u8>>> {
        let listed = self.pool.blocking_call("list", |custody| custody.anchors());
        Ok(listed?.into_iter().map(|anchor| anchor.content).collect())
    }

    /// Every caller is told by the deadline. After some time all are told at once.
    fn tells_all_for(&self, lasts: Duration) {
        let began = Instant::now();
        while began.elapsed() < lasts {
            let error = self.sign().unwrap_err();
            assert!(error.is_retryable(), "{error}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) fn a_command_that_hangs_leaves_the_others_a_tpm_that_is_well(rig: &PerStart) {
    let held = Held::on(rig);
    held.sign().unwrap();
    held.holds(SIGN, 1);
    assert_eq!(held.sign(), Err(Error::Deadline { operation: "sign" }));
    let began = Instant::now();
    until(|| held.sign().is_ok());
    assert!(began.elapsed() < HANGS + HEALED, "{:?}", began.elapsed());
    for _ in 0..20 {
        held.sign().unwrap();
        until(|| held.pool.status().stuck == 1);
    }
    // Anchors are made beside it, too.
    held.anchor(b"one").unwrap();
    held.bus.lets_go();
    until(|| held.pool.status().stuck == 0);
    for _ in 0..20 {
        held.sign().unwrap();
    }
    held.anchor(b"two").unwrap();
    assert_eq!(held.anchors().unwrap(), [b"one", b"two"]);
    assert!(held.pool.status().epoch >= 2);
}

/// One that arrives after another makes all anchors unknown (`another_program_that_extends_is_noticed`): so there is no
/// other before it.
pub(crate) fn an_extension_that_hangs_is_not_overtaken(rig: &PerStart) {
    let held = Held::on(rig);
    held.anchor(b"one").unwrap();
    let sessions = held.sessions.load(Ordering::SeqCst);
    held.holds(NV_EXTEND, 1);
    let told = held.anchor(b"two");
    assert_eq!(
        told,
        Err(Error::Deadline {
            operation: "anchor"
        })
    );
    held.tells_all_for(HANGS + Duration::from_secs(2));
    // And not by the deadline any more: that would be another error.
    until(|| held.sign().is_err_and(|error| is_about_a_change(&error)));
    assert_eq!(held.sessions.load(Ordering::SeqCst), sessions);
    assert_eq!(held.pool.status().epoch, 1);
    held.bus.lets_go();
    let began = Instant::now();
    until(|| held.sign().is_ok());
    assert!(began.elapsed() < HEALED, "{:?}", began.elapsed());
    // It was done, if nobody was there to hear of it.
    assert_eq!(held.anchors().unwrap(), [b"one", b"two"]);
    held.anchor(b"three").unwrap();
    // And a start finds them sound.
    let Held {
        pool, bus, backend, ..
    } = held;
    drop((pool, backend));
    let again = TpmBackend::new(Options {
        tcti: bus.tcti.clone(),
        ..rig.options()
    });
    assert_eq!(again.open().unwrap().anchors().unwrap().len(), 3);
}

fn is_about_a_change(error: &Error) -> bool {
    error
        .to_string()
        .contains("a command that changes the TPM has not come back")
}

/// Neither by an epoch that a probe asks for, nor by one that follows work outside of any: each would go on without that
/// key, and after one that is destroyed with it.
pub(crate) fn a_key_that_is_being_made_is_not_overtaken(rig: &PerStart) {
    const NEWER: KeyId = KeyId { version: 2, ..BIND };
    let held = Held::on(rig);
    held.sign().unwrap();
    let sessions = held.sessions.load(Ordering::SeqCst);
    held.holds(EVICT_CONTROL, 1);
    let told = held
        .pool
        .blocking_call("make", |custody| custody.make_key(NEWER));
    assert_eq!(told, Err(Error::Deadline { operation: "make" }));
    until(|| held.left.load(Ordering::SeqCst) == 0);
    let probe = || held.pool.blocking_call("probe", |custody| custody.probe());
    until(|| probe().is_err_and(|error| is_about_a_change(&error)));
    for _ in 0..20 {
        assert!(probe().is_err_and(|error| is_about_a_change(&error)));
        assert!(held.sign().is_err_and(|error| is_about_a_change(&error)));
    }
    let alone = held.backend.inspect();
    assert!(alone.is_err_and(|error| is_about_a_change(&error)));
    assert!(held.sign().is_err_and(|error| is_about_a_change(&error)));
    assert_eq!(held.sessions.load(Ordering::SeqCst), sessions);
    assert_eq!(held.pool.status().epoch, 1);
    held.bus.lets_go();
    until(|| held.sign().is_ok());
    // The epoch is the same, and it has learnt of the key. The control: one that only signs is overtaken
    // (`a_command_that_hangs_leaves_the_others_a_tpm_that_is_well`).
    let holds = || {
        held.pool
            .blocking_call("holds", |custody| custody.holds(NEWER))
    };
    until(|| holds() == Ok(true));
    assert_eq!(held.pool.status().epoch, 1);
    until(|| probe().is_ok());
    let there = held.backend.inspect().unwrap();
    assert!(there.iter().any(|key| key.id == NEWER));
}

/// A probe is a command for each key. Each comes back, and all of them take longer than one that hangs may.
pub(crate) fn a_slow_tpm_is_waited_for(rig: &PerStart) {
    let held = Held::within(rig, Duration::from_secs(60));
    held.sign().unwrap();
    held.late.store(900, Ordering::SeqCst);
    let probing = {
        let pool = held.pool.clone();
        thread::spawn(move || {
            let began = Instant::now();
            let probed = pool.blocking_call("probe", |custody| custody.probe());
            (probed, began.elapsed())
        })
    };
    until(|| held.were_late.load(Ordering::SeqCst) > 0);
    held.sign().unwrap();
    let (probed, took) = probing.join().unwrap();
    assert_eq!(probed, Ok(()));
    // The control: that turn was longer.
    assert!(took > HANGS, "{took:?}");
    assert_eq!(held.pool.status().epoch, 1);
}

pub(crate) fn a_tpm_that_hangs_altogether_is_back_when_it_answers(rig: &PerStart) {
    let held = Held::on(rig);
    held.anchor(b"one").unwrap();
    held.holds(ALL, u32::MAX);
    assert_eq!(held.sign(), Err(Error::Deadline { operation: "sign" }));
    held.tells_all_for(HANGS + Duration::from_secs(3));
    // By then no worker waits for it but the first one, and the state is told.
    let says = |error: &Error| error.to_string().contains("has not answered for");
    until(|| held.sign().is_err_and(|error| says(&error)));
    // Nor does who wants to be alone with it wait for ever.
    assert!(held.backend.inspect().is_err_and(|error| says(&error)));
    until(|| {
        let status = held.pool.status();
        (status.running, status.stuck) == (1, 2)
    });
    held.bus.lets_go();
    let began = Instant::now();
    until(|| held.sign().is_ok());
    assert!(began.elapsed() < HEALED, "{:?}", began.elapsed());
    until(|| held.pool.status().stuck == 0);
    held.anchor(b"two").unwrap();
    assert_eq!(held.anchors().unwrap(), [b"one", b"two"]);
}
