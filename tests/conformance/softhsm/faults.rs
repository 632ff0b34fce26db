//! A module that hangs, fails, has no room or tells something else: SoftHSM2 behind one that does so on command.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use custodyd_hsm::{
    Backend, Custody, Error, Pool, PoolOptions, PoolStatus, Result, SecretBytes,
    backend::pkcs11::{Options, Pkcs11Backend},
};
use custodyd_tests::{
    shim::{Module, PIN_COUNT_LOW, PIN_FINAL_TRY, PIN_LOCKED},
    token::{LABEL, module},
};

use super::{
    SoftHsm,
    panicking::{PANICS, Panics},
};
use crate::{
    rig::{Prepared, Rig, Store},
    suite::{MAC, until},
};

/// What an operator is promised when a token is well again is a third of this. The machine that a test runs on may be
/// busy with others.
const HEALED: Duration = Duration::from_secs(15);
const DEADLINE: Duration = Duration::from_secs(3);
/// More than a recovery takes.
const AGAIN: Duration = Duration::from_secs(1);
/// A third of it is what opening a token may take before it hangs.
const OPENS: Duration = Duration::from_secs(9);

pub(crate) struct Faulty {
    token: SoftHsm,
    module: Module,
}

impl Store for Faulty {
    fn prepare() -> Prepared {
        let mut prepared = SoftHsm::prepare();
        let dir = prepared
            .environment
            .iter()
            .find(|(name, _)| *name == super::DIR);
        let (_, dir) = dir.unwrap();
        let environment = Module::new(dir).environment();
        prepared.environment.extend(environment);
        prepared
    }

    fn attach() -> Self {
        let token = SoftHsm::attach();
        let module = Module::attach(token.0.dir());
        Self { token, module }
    }

    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(Pkcs11Backend::new(self.options()))
    }

    fn plant(&self, content: &[u8]) {
        self.token.plant(content);
    }

    fn clear(&self) {
        self.token.clear();
    }

    fn plant_beside(&self, content: &[u8]) {
        self.token.plant_beside(content);
    }
}

impl Faulty {
    fn options(&self) -> Options {
        Options {
            module: self.module.path(),
            ..self.token.0.options()
        }
    }

    fn with_wrong_pin(&self) -> Pkcs11Backend {
        Pkcs11Backend::new(Options {
            pin: SecretBytes::from(b"not-the-pin".to_vec()),
            ..self.options()
        })
    }

    fn pool(&self) -> Pool {
        pool_on(self.backend())
    }

    /// One call hangs from now on, until it is released; its caller was told so.
    fn hang_one(&self, pool: &Pool) {
        self.module.hangs(1);
        until(|| {
            // One that no worker came to in time was not made.
            assert_eq!(mac(pool), Err(Error::Deadline { operation: "mac" }));
            self.module.hanging() == 1
        });
        until(|| pool.status().stuck == 1);
    }
}

fn pool_on(backend: Arc<dyn Backend>) -> Pool {
    let options = PoolOptions {
        threads: 2,
        queue: 64,
        deadline: DEADLINE,
    };
    Pool::start(backend, options).unwrap()
}

fn mac(pool: &Pool) -> Result<[u8; 32]> {
    pool.blocking_call("mac", |custody| Ok(*custody.mac(MAC, b"x")?.expose()))
}

pub(crate) fn a_call_that_hangs_leaves_the_others_a_token_that_is_well(rig: &Faulty) {
    let pool = rig.pool();
    let right = mac(&pool).unwrap();
    rig.hang_one(&pool);
    assert_eq!(mac(&pool), Ok(right));
    for _ in 0..3 {
        let before = pool.status().epoch;
        // One that fails, and the known answer after it: the epoch is over, beneath a call. It may be time for a look at
        // the key itself besides; what is left over only lets the next begin a little later.
        rig.module.fails(4);
        assert!(matches!(mac(&pool), Err(Error::Unavailable { .. })));
        let began = Instant::now();
        until(|| mac(&pool) == Ok(right));
        assert!(began.elapsed() < HEALED, "{:?}", began.elapsed());
        // One that fails while the recovery before it is on its last step begins none; and whoever has calls fail without a
        // pause has each recovery fail as well.
        let failed = Cell::new(Instant::now());
        until(|| {
            let is_over = pool.status().epoch > before;
            if !is_over && failed.get().elapsed() > AGAIN {
                rig.module.fails(4);
                let _ = mac(&pool);
                failed.set(Instant::now());
            }
            is_over && mac(&pool) == Ok(right)
        });
        until(|| pool.status().stuck == 1);
        // And so it stays: none is told of a recovery that does not end.
        for _ in 0..20 {
            assert_eq!(mac(&pool), Ok(right));
        }
    }
    assert_eq!(rig.module.hanging(), 1);
    rig.module.releases();
    until(|| pool.status().stuck == 0);
    all_are_served(&pool, right);
    assert_eq!(rig.module.finalized_beneath_a_call(), 0);
    // The epoch that hung has left its seat: what only a module that is initialised anew heals, heals.
    rig.token.take_away();
    until(|| matches!(mac(&pool), Err(Error::Unavailable { .. })));
    rig.token.bring_back();
    until(|| mac(&pool) == Ok(right));
}

/// By both workers, as often as they like.
fn all_are_served(pool: &Pool, right: [u8; 32]) {
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let pool = pool.clone();
            thread::spawn(move || (0..50).map(|_| mac(&pool)).collect::<Vec<_>>())
        })
        .collect();
    for caller in callers {
        for answer in caller.join().unwrap() {
            assert_eq!(answer, Ok(right));
        }
    }
}

pub(crate) fn a_token_that_went_away_beneath_a_hung_call_is_back_after_it(rig: &Faulty) {
    let pool = rig.pool();
    let right = mac(&pool).unwrap();
    rig.hang_one(&pool);
    rig.token.take_away();
    until(|| matches!(mac(&pool), Err(Error::Unavailable { .. })));
    rig.token.bring_back();
    // SoftHSM2 finds its token again only when it is initialised anew, and that has to wait.
    thread::sleep(Duration::from_secs(1));
    assert_eq!(rig.module.finalized_beneath_a_call(), 0);
    assert_eq!(rig.module.hanging(), 1);
    rig.module.releases();
    let began = Instant::now();
    until(|| mac(&pool) == Ok(right));
    assert!(began.elapsed() < HEALED, "{:?}", began.elapsed());
    all_are_served(&pool, right);
}

/// Of a recovery. It is one of the calls that hang, and the only one of them that nobody may try again beside it.
pub(crate) fn a_login_that_hangs_is_told_and_not_tried_beside(rig: &Faulty) {
    let pool = rig.pool();
    let right = mac(&pool).unwrap();
    rig.module.hangs_at_login(1);
    rig.module.fails(4);
    assert!(matches!(mac(&pool), Err(Error::Unavailable { .. })));
    until(|| rig.module.hanging() == 1);
    let hangs = |error: &Error| error.to_string().contains("C_Login has not come back");
    until(|| mac(&pool).is_err_and(|error| hangs(&error)));
    // Nobody waits for it, and all are told; two workers are there for the next one.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        // Not by the deadline: that would be another error.
        assert!(mac(&pool).is_err_and(|error| hangs(&error)));
        thread::sleep(Duration::from_millis(20));
    }
    until(|| pool.status().stuck == 1);
    assert_eq!(pool.status().running, 0);
    assert_eq!((rig.module.logins(), rig.module.hanging()), (2, 1));
    rig.module.releases();
    let began = Instant::now();
    until(|| mac(&pool) == Ok(right));
    assert!(began.elapsed() < HEALED, "{:?}", began.elapsed());
    all_are_served(&pool, right);
    until(|| pool.status().stuck == 0);
    // What was left over of the failures may have ended the epoch after it once more.
    assert!(rig.module.logins() <= 4, "{}", rig.module.logins());
    assert_eq!(rig.module.finalized_beneath_a_call(), 0);
}

pub(crate) fn a_start_does_not_wait_for_a_login_that_hangs(rig: &Faulty) {
    let mut options = rig.options();
    options.opens_within = Duration::from_secs(6);
    let backend = Pkcs11Backend::new(options);
    rig.module.hangs_at_login(1);
    for _ in 0..2 {
        let error = backend.open().map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("C_Login"), "{error}");
        assert_eq!((rig.module.logins(), rig.module.hanging()), (1, 1));
    }
    // It can be asked what it is, meanwhile.
    assert!(backend.describe().serial.is_empty());
    rig.module.releases();
    until(|| {
        backend
            .open()
            .is_ok_and(|mut custody| custody.probe().is_ok())
    });
    assert_eq!((rig.module.logins(), backend.login_attempts()), (1, 1));
}

/// What a token is opened by may hang anywhere, and not at C_Login alone. There it is opened once more beside that, and the PIN
/// is presented by one of the two.
pub(crate) fn a_recovery_that_hangs_elsewhere_is_tried_beside(rig: &Faulty) {
    let backend = Pkcs11Backend::new(Options {
        opens_within: OPENS,
        ..rig.options()
    });
    let pool = pool_on(Arc::new(backend));
    let right = mac(&pool).unwrap();
    for hangs in [Module::hangs_before_a_login, Module::hangs_after_a_login] {
        let before = pool.status().epoch;
        hangs(&rig.module, 1);
        rig.module.fails(4);
        assert!(matches!(mac(&pool), Err(Error::Unavailable { .. })));
        until(|| rig.module.hanging() == 1);
        until(|| mac(&pool) == Ok(right));
        assert_eq!(rig.module.hanging(), 1);
        assert!(pool.status().epoch > before);
        all_are_served(&pool, right);
        // It is served, and what hangs beside is told for as long as it does.
        let PoolStatus {
            stuck, left_behind, ..
        } = pool.status();
        assert_eq!((stuck, left_behind), (0, 1));
        // What comes back is too late for anything: it presents no PIN, is no epoch, and keeps no session open.
        let (epoch, logins) = (pool.status().epoch, rig.module.logins());
        rig.module.releases();
        until(|| rig.module.hanging() == 0 && rig.module.open_sessions() <= 4);
        until(|| pool.status().left_behind == 0);
        all_are_served(&pool, right);
        assert_eq!((pool.status().epoch, rig.module.logins()), (epoch, logins));
    }
    assert_eq!(rig.module.finalized_beneath_a_call(), 0);
    // Both have left their seats.
    rig.token.take_away();
    until(|| matches!(mac(&pool), Err(Error::Unavailable { .. })));
    rig.token.bring_back();
    until(|| mac(&pool) == Ok(right));
}

/// Where two hang there is no third, and both are waited for.
pub(crate) fn a_recovery_that_hangs_twice_is_told_until_it_returns(rig: &Faulty) {
    let backend = Pkcs11Backend::new(Options {
        opens_within: OPENS,
        ..rig.options()
    });
    let pool = pool_on(Arc::new(backend));
    let right = mac(&pool).unwrap();
    rig.module.hangs_before_a_login(u32::MAX);
    rig.module.fails(4);
    assert!(matches!(mac(&pool), Err(Error::Unavailable { .. })));
    until(|| rig.module.hanging() == 2);
    until(|| pool.status().stuck == 1);
    let began = Instant::now();
    while began.elapsed() < DEADLINE {
        let told = mac(&pool).unwrap_err().to_string();
        assert!(told.contains("has not answered for"), "{told}");
        assert_eq!(rig.module.hanging(), 2);
        thread::sleep(Duration::from_millis(20));
    }
    rig.module.hangs_before_a_login(0);
    rig.module.releases();
    until(|| mac(&pool) == Ok(right));
    all_are_served(&pool, right);
    assert_eq!(rig.module.finalized_beneath_a_call(), 0);
}

/// A defect ends one recovery, and not the way back: whoever misses the token next has it begun anew.
pub(crate) fn a_recovery_that_panics_is_begun_anew(rig: &Faulty) {
    tracing::subscriber::set_global_default(Panics).unwrap();
    let pool = rig.pool();
    let right = mac(&pool).unwrap();
    rig.token.take_away();
    until(|| mac(&pool).is_err());
    // It has found the token away, and panicked over that.
    until(|| !PANICS.load(Ordering::SeqCst));
    assert!(matches!(mac(&pool), Err(Error::Unavailable { .. })));
    rig.token.bring_back();
    until(|| mac(&pool) == Ok(right));
    all_are_served(&pool, right);
}

/// `inspect` and all that ends the epoch: a recovery may have the turn, and hang.
pub(crate) fn who_wants_to_be_alone_does_not_wait_for_ever(rig: &Faulty) {
    let backend = Arc::new(Pkcs11Backend::new(Options {
        opens_within: OPENS,
        ..rig.options()
    }));
    let pool = pool_on(Arc::clone(&backend) as Arc<dyn Backend>);
    let right = mac(&pool).unwrap();
    rig.module.hangs_at_login(1);
    rig.module.fails(4);
    assert!(matches!(mac(&pool), Err(Error::Unavailable { .. })));
    until(|| rig.module.hanging() == 1);
    let error = backend.inspect().map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("C_Login"), "{error}");
    assert_eq!((rig.module.logins(), rig.module.hanging()), (2, 1));
    rig.module.releases();
    until(|| mac(&pool) == Ok(right));
    // The control: the turn is there for the next one.
    until(|| backend.inspect().is_ok());
    until(|| mac(&pool) == Ok(right));
}

/// SoftHSM2 takes an object for gone whose file was away when it looked, and finds it again only when it is initialised anew.
/// The keys, at which nobody looked meanwhile, answer as ever.
pub(crate) fn anchors_that_were_away_for_a_moment_are_found_again(rig: &Faulty) {
    let pool = rig.pool();
    let right = mac(&pool).unwrap();
    let list = || {
        let listed = pool.blocking_call("list", |custody| custody.anchors());
        listed.map(|anchors| {
            anchors
                .into_iter()
                .map(|one| one.content)
                .collect::<Vec<_>>()
        })
    };
    let made = pool.blocking_call("anchor", |custody| custody.create_anchor(b"one"));
    made.unwrap();
    assert_eq!(list().unwrap(), [b"one"]);
    let stands = || {
        pool.blocking_call("look", |custody| custody.anchor_stands(b"one"))
            .unwrap()
    };
    assert!(stands());
    rig.token.take_away();
    assert!(!stands());
    rig.token.bring_back();
    assert_eq!(mac(&pool), Ok(right));
    // The module shows none now: nobody is told so.
    assert!(!stands());
    let began = Instant::now();
    let error = list().unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    until(|| list().is_ok_and(|anchors| anchors == [b"one"]));
    assert!(began.elapsed() < HEALED, "{:?}", began.elapsed());
    assert_eq!((pool.status().epoch, mac(&pool)), (2, Ok(right)));
    // The control: one that was destroyed is not missed, and one that is gone is told to be, by a module that is new.
    let destroyed = pool.blocking_call("destroy", |custody| {
        let one = custody.anchors()?.remove(0);
        custody.destroy_anchor(&one)
    });
    destroyed.unwrap();
    assert!(list().unwrap().is_empty());
    rig.plant(b"two");
    assert_eq!(list().unwrap(), [b"two"]);
    rig.clear();
    until(|| list().is_ok_and(|anchors| anchors.is_empty()));
    assert_eq!(pool.status().epoch, 3);
}

/// Another realm's, which are there all the time, hide it from nobody.
pub(crate) fn anchors_of_one_of_several_realms_are_found_again(rig: &Faulty) {
    let pool = rig.pool();
    mac(&pool).unwrap();
    let list = || {
        let listed = pool.blocking_call("list", |custody| custody.anchors());
        listed.map(|anchors| anchors.len())
    };
    let objects = || -> BTreeSet<PathBuf> {
        let tokens = fs::read_dir(rig.token.0.tokens()).unwrap();
        let files = tokens.flat_map(|token| fs::read_dir(token.unwrap().path()).unwrap());
        let paths = files.map(|file| file.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|is| is == "object"))
            .collect()
    };
    let before = objects();
    let made = pool.blocking_call("anchor", |custody| custody.create_anchor(A));
    made.unwrap();
    let of_a: Vec<PathBuf> = objects().difference(&before).cloned().collect();
    let made = pool.blocking_call("anchor", |custody| custody.create_anchor(B));
    made.unwrap();
    assert_eq!(list().unwrap(), 2);
    let stands = || {
        pool.blocking_call("look", |custody| custody.anchor_stands(A))
            .unwrap()
    };
    assert!(stands());
    let away = |path: &PathBuf| path.with_extension("away");
    of_a.iter()
        .for_each(|path| fs::rename(path, away(path)).unwrap());
    assert!(!stands());
    of_a.iter()
        .for_each(|path| fs::rename(away(path), path).unwrap());
    let error = list().unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    until(|| list() == Ok(2));
    assert_eq!(pool.status().epoch, 2);
    // The control: one that is followed by another of its realm is not missed.
    let followed = pool.blocking_call("follow", |custody| {
        custody.create_anchor(A2)?;
        let listed = custody.anchors()?;
        let old = listed.iter().find(|one| one.content == A).unwrap();
        custody.destroy_anchor(old)
    });
    followed.unwrap();
    assert_eq!((list(), pool.status().epoch), (Ok(2), 2));
}

/// How anchors of two realms begin, and that is all that a backend reads of them.
const A: &[u8] = b"CDA\x01\0\0\0\x01a1";
const A2: &[u8] = b"CDA\x01\0\0\0\x01a2";
const B: &[u8] = b"CDA\x01\0\0\0\x01b1";

pub(crate) fn without_room_for_sessions_the_open_ones_serve(rig: &Faulty) {
    let pool = rig.pool();
    let right = mac(&pool).unwrap();
    // The login, the spare one, and one worker's.
    assert_eq!(rig.module.open_sessions(), 3);
    rig.module.has_room_for(Some(3));
    until(|| {
        all_are_served(&pool, right);
        rig.module.refused_sessions() > 0
    });
    // Anchors are made on whatever is there, too.
    for content in [&b"one"[..], b"another"] {
        let made = pool.blocking_call("anchor", move |custody| custody.create_anchor(content));
        made.unwrap();
    }
    let listed = pool.blocking_call("list", |custody: &mut dyn Custody| custody.anchors());
    assert_eq!(listed.unwrap().len(), 2);
    // Nothing was closed for it, nobody logged in again, and no key was asked for anew.
    assert_eq!((pool.status().epoch, rig.module.logins()), (1, 1));
    assert_eq!(rig.module.open_sessions(), 3);
    rig.module.has_room_for(None);
    until(|| {
        all_are_served(&pool, right);
        rig.module.open_sessions() == 4
    });
    drop(pool);
    // It starts in a room for two, and says so where there is none.
    rig.module.has_room_for(Some(2));
    let pool = rig.pool();
    all_are_served(&pool, right);
    drop(pool);
    rig.module.has_room_for(Some(1));
    let error = rig.backend().open().map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("SessionCount"), "{error}");
}

fn is_refused(backend: &Pkcs11Backend, words: &str) {
    for _ in 0..3 {
        let error = backend.open().map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::PinRefused { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

pub(crate) fn a_wrong_pin_told_by_any_code_is_not_presented_again(rig: &Faulty) {
    // CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED, CKR_DEVICE_ERROR, CKR_USER_TYPE_INVALID.
    for code in [0x05, 0x06, 0x30, 0x103] {
        rig.module.tells_a_wrong_pin_by(code);
        // The token itself tells of a wrong one: once was enough.
        rig.module.shows(0, 0);
        let wrong = rig.with_wrong_pin();
        is_refused(&wrong, "tells of a wrong PIN");
        assert_eq!(wrong.login_attempts(), 1, "{code:#x}");
        // One that tells nothing.
        rig.module.shows(0, PIN_COUNT_LOW);
        let wrong = rig.with_wrong_pin();
        is_refused(&wrong, "presented 3 times");
        assert_eq!(wrong.login_attempts(), 3, "{code:#x}");
        // The control, which also takes the token's mark away: the right one is taken.
        rig.backend().open().unwrap().probe().unwrap();
    }
    assert_eq!(rig.module.logins(), 4 * (1 + 3 + 1));
}

/// A PIN that was taken is presented three times, and then seldom: a token in trouble may be well again.
pub(crate) fn a_pin_that_is_unclear_in_a_recovery_rests(rig: &Faulty) {
    const REST: Duration = Duration::from_secs(8);
    let mut options = rig.options();
    options.pin_rest = REST;
    let pause = options.recovery_pause;
    let backend = Arc::new(Pkcs11Backend::new(options));
    let pool = Pool::start(
        Arc::clone(&backend) as Arc<dyn Backend>,
        PoolOptions::default(),
    )
    .unwrap();
    let right = mac(&pool).unwrap();
    rig.module.tells_a_wrong_pin_by(0x05);
    rig.module.shows(0, PIN_COUNT_LOW);
    // Under the daemon somebody sets another PIN; it is met with the next login.
    let first = fs::read_to_string(rig.token.0.user_pin_file()).unwrap();
    change_pin(rig.token.0.dir(), (&first, "another-pin"));
    assert_eq!(mac(&pool), Ok(right));
    rig.module.fails(4);
    let rests = |error: &Error| error.to_string().contains("it is presented again in");
    until(|| mac(&pool).is_err_and(|error| rests(&error)));
    // Longer than any pause between two attempts.
    thread::sleep(pause * 5);
    assert!(mac(&pool).is_err_and(|error| rests(&error)));
    assert_eq!(backend.login_attempts(), 1 + 3);
    // The control: it is the PIN again, and nobody has to restart anything.
    change_pin(rig.token.0.dir(), ("another-pin", &first));
    until(|| mac(&pool) == Ok(right));
    // What was left over of the failures ends some logins that were taken.
    assert!(backend.login_attempts() <= 1 + 3 + 1 + 4);
}

/// By another program.
fn change_pin(dir: &Path, (from, to): (&str, &str)) {
    let mut tool = Command::new("pkcs11-tool");
    tool.args(["--module", &module(), "--token-label", LABEL, "--login"]);
    tool.args([
        "--pin",
        "env:OLD_PIN",
        "--change-pin",
        "--new-pin",
        "env:NEW_PIN",
    ]);
    tool.env("OLD_PIN", from).env("NEW_PIN", to);
    tool.env("SOFTHSM2_CONF", dir.join("softhsm2.conf"));
    custodyd_tests::token::run(&mut tool);
}

pub(crate) fn a_pin_that_is_locked_or_nearly_is_not_presented(rig: &Faulty) {
    for (flag, words) in [
        (PIN_LOCKED, "security officer"),
        (PIN_FINAL_TRY, "one try is left"),
    ] {
        rig.module.shows(flag, 0);
        let backend = Pkcs11Backend::new(rig.options());
        is_refused(&backend, words);
        assert_eq!((backend.login_attempts(), rig.module.logins()), (0, 0));
    }
    // The control: one that was mistyped by somebody is presented, and so is it without any mark.
    for shown in [PIN_COUNT_LOW, 0] {
        rig.module.shows(shown, 0);
        rig.backend().open().unwrap().probe().unwrap();
    }
    assert_eq!(rig.module.logins(), 2);
}
