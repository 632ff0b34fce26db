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
    Backend, Error, Pool, PoolOptions, Result,
    backend::tpm::{Options, TpmBackend},
};

use super::{
    PerStart,
    bus::{Bus, NV_EXTEND, SIGN, START_AUTH_SESSION, Told},
};
use crate::suite::{BIND, until};

const DEADLINE: Duration = Duration::from_millis(500);
/// What an operator is promised when a token is well again.
const HEALED: Duration = Duration::from_secs(5);
/// After which a command that has not come back is taken for one that hangs.
const HANGS: Duration = Duration::from_secs(3);
/// Every command.
const ALL: u32 = 0;

/// A pool on a TPM behind a bus that holds commands of a code: so many of them, from when it is told to.
struct Held {
    bus: Bus,
    pool: Pool,
    code: Arc<AtomicU32>,
    left: Arc<AtomicU32>,
    /// How many were begun: one with each connection.
    sessions: Arc<AtomicU32>,
}

impl Held {
    fn on(rig: &PerStart) -> Self {
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
                false => Told::Pass,
            }
        });
        let backend: Arc<dyn Backend> = Arc::new(TpmBackend::new(Options {
            tcti: bus.tcti.clone(),
            opens_within: Duration::from_secs(1),
            ..rig.options()
        }));
        let options = PoolOptions {
            threads: 2,
            queue: 64,
            deadline: DEADLINE,
        };
        let pool = Pool::start(backend, options).unwrap();
        Self {
            bus,
            pool,
            code,
            left,
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
            let asked = Instant::now();
            let error = self.sign().unwrap_err();
            assert!(error.is_retryable(), "{error}");
            assert!(asked.elapsed() < DEADLINE + Duration::from_secs(1));
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
        assert_eq!(held.pool.status().stuck, 1);
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
    assert_eq!(held.pool.status().epoch, 2);
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
    let asked = Instant::now();
    let error = held.sign().unwrap_err().to_string();
    assert!(error.contains("a command that changes the TPM"), "{error}");
    assert!(asked.elapsed() < DEADLINE);
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
    let Held { pool, bus, .. } = held;
    drop(pool);
    let again = TpmBackend::new(Options {
        tcti: bus.tcti.clone(),
        ..rig.options()
    });
    assert_eq!(again.open().unwrap().anchors().unwrap().len(), 3);
}

pub(crate) fn a_tpm_that_hangs_altogether_is_back_when_it_answers(rig: &PerStart) {
    let held = Held::on(rig);
    held.anchor(b"one").unwrap();
    held.holds(ALL, u32::MAX);
    assert_eq!(held.sign(), Err(Error::Deadline { operation: "sign" }));
    held.tells_all_for(HANGS + Duration::from_secs(3));
    // By then no worker waits for it but the first one, and the state is told.
    let asked = Instant::now();
    let error = held.sign().unwrap_err().to_string();
    assert!(error.contains("has not answered for"), "{error}");
    assert!(asked.elapsed() < DEADLINE);
    let status = held.pool.status();
    assert_eq!((status.running, status.stuck), (1, 2));
    held.bus.lets_go();
    let began = Instant::now();
    until(|| held.sign().is_ok());
    assert!(began.elapsed() < HEALED, "{:?}", began.elapsed());
    until(|| held.pool.status().stuck == 0);
    held.anchor(b"two").unwrap();
    assert_eq!(held.anchors().unwrap(), [b"one", b"two"]);
}
