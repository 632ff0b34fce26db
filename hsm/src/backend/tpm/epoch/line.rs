//! Whose turn it is on the TPM: first come, first served, and nobody behind one who hangs.
//!
//! A TPM does one command at a time. A plain lock would take everybody along into a command that does not come back,
//! and workers are few. So whoever waits looks at the one before, and goes away when that hangs.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::locked;

/// How often somebody who waits looks.
const LOOKS: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Line<T> {
    state: Mutex<State>,
    moves: Condvar,
    what: Mutex<T>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when somebody has the turn.
    since: Option<Instant>,
    waiting: VecDeque<u64>,
    numbers: u64,
}

impl<T> Line<T> {
    pub(super) fn new(what: T) -> Self {
        Self {
            state: Mutex::default(),
            moves: Condvar::new(),
            what: Mutex::new(what),
        }
    }

    /// Takes a turn. None where the one before `hangs`, which is asked with the moment at which that turn began.
    pub(super) fn turn<R>(
        &self,
        hangs: impl Fn(Instant) -> bool,
        work: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        let mut state = locked(&self.state);
        let number = state.numbers;
        state.numbers += 1;
        state.waiting.push_back(number);
        loop {
            match state.since {
                None if state.waiting.front() == Some(&number) => break,
                Some(since) if hangs(since) => {
                    state.waiting.retain(|waits| *waits != number);
                    return None;
                }
                _ => {}
            }
            let woken = self.moves.wait_timeout(state, LOOKS);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting.pop_front();
        state.since = Some(Instant::now());
        drop(state);
        let _turn = Turn(self);
        Some(work(&mut locked(&self.what)))
    }
}

/// Ends also with a panic.
struct Turn<'l, T>(&'l Line<T>);

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let Self(line) = self;
        locked(&line.state).since = None;
        line.moves.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        thread,
    };

    use super::*;
    use crate::backend::tpm::clock::{Clock, HANGS};

    fn hangs(since: Instant) -> bool {
        since.elapsed() > HANGS
    }

    #[test]
    fn turns_are_in_order_and_nobody_waits_behind_one_who_hangs() {
        let line = Arc::new(Line::new(Vec::new()));
        let (release, hung) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel();
        let first = Arc::clone(&line);
        let first = thread::spawn(move || {
            first.turn(hangs, |order| {
                began.send(()).unwrap();
                hung.recv().unwrap();
                order.push(0);
            })
        });
        begun.recv().unwrap();
        let waited = Instant::now();
        assert_eq!(line.turn(hangs, |order| order.push(9)), None);
        assert!(waited.elapsed() > HANGS / 2);
        // From then on nobody waits at all: not for as long as one looks.
        assert_eq!(line.turn(hangs, |order| order.push(9)), None);
        assert_eq!(locked(&line.state).waiting.len(), 0);
        release.send(()).unwrap();
        first.join().unwrap();
        assert_eq!(line.turn(hangs, |order| order.clone()), Some(vec![0]));
        // One that panics leaves the turn to the next.
        let panics = Arc::clone(&line);
        let panics = thread::spawn(move || panics.turn(hangs, |_| panic!("on purpose"))).join();
        assert!(panics.is_err());
        assert_eq!(line.turn(hangs, |order| order.len()), Some(1));
    }

    /// A slow chip with many keys: each command comes back, and all of them take longer than one may.
    #[test]
    fn a_turn_of_many_commands_is_waited_for() {
        let (clock, line) = (Clock::new(), Arc::new(Line::new(0)));
        let (began, begun) = mpsc::channel();
        let (works, ticks) = (Arc::clone(&line), clock.clone());
        let first = thread::spawn(move || {
            works.turn(hangs, |done| {
                began.send(()).unwrap();
                let began = Instant::now();
                while began.elapsed() < HANGS + HANGS / 3 {
                    ticks.restart();
                    *done += 1;
                    thread::sleep(HANGS / 50);
                }
            })
        });
        begun.recv().unwrap();
        // The control: by the turn alone it hangs.
        let other = Arc::clone(&line);
        let other = thread::spawn(move || other.turn(hangs, |_| ()));
        let done = line.turn(|since| clock.hangs(since), |done| *done);
        assert!(done.is_some_and(|done| done > 10), "{done:?}");
        assert_eq!(other.join().unwrap(), None);
        first.join().unwrap().unwrap();
    }

    #[test]
    fn who_is_quick_does_not_overtake() {
        let line = Arc::new(Line::new(Vec::new()));
        let greedy = |name: char| {
            let line = Arc::clone(&line);
            thread::spawn(move || {
                for _ in 0..20 {
                    line.turn(hangs, |order| {
                        order.push(name);
                        thread::sleep(Duration::from_millis(5));
                    });
                }
            })
        };
        let both = [greedy('a'), greedy('b')];
        for thread in both {
            thread.join().unwrap();
        }
        let order = line.turn(hangs, |order| order.clone()).unwrap();
        let starts = order.iter().position(|name| *name != order[0]).unwrap();
        // From where both are there they alternate, but for when one was late with asking again.
        let twice = order[starts..].windows(2).filter(|two| two[0] == two[1]);
        assert!(twice.count() < 20, "{order:?}");
        assert_eq!(order.len(), 40);
    }
}
