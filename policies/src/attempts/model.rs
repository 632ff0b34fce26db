//! The guess budget over random histories, held against a model that keeps every charge and merges nothing.
//! Called by the test harness only; must never be compiled into a build.
#![allow(clippy::expect_used)] // a fixture or a round trip that fails must stop the test

use proptest::prelude::*;

use super::tests::rounds;
use super::*;

/// One step of a history. `usize` picks one of all charges ever made, so old ones are tried again and again.
#[derive(Clone, Debug)]
enum Step {
    Charge { lifetime: u64 },
    Fail(prop::sample::Index),
    Succeed(prop::sample::Index),
    Reset,
    Replace,
    Advance(u64),
    Reload(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..120_u64).prop_map(|lifetime| Step::Charge { lifetime }),
        4 => any::<prop::sample::Index>().prop_map(Step::Fail),
        2 => any::<prop::sample::Index>().prop_map(Step::Succeed),
        1 => Just(Step::Reset),
        1 => Just(Step::Replace),
        4 => (0..90_u64).prop_map(Step::Advance),
        1 => (0..3_usize).prop_map(Step::Reload),
    ]
}

/// A charge as the model sees it. It never merges, folds or renumbers: it keeps all of them and asks.
#[derive(Debug)]
struct Seen {
    id: ChargeId,
    expires: u64,
    failed: bool,
    cleared: bool,
    disowned: bool,
}

impl Seen {
    fn pending(&self, now: u64) -> bool {
        !self.failed && !self.cleared && now < self.expires
    }

    fn may_settle(&self, now: u64) -> bool {
        self.pending(now) && !self.disowned
    }
}

/// The budget and its model, side by side.
struct History {
    budget: Budget,
    rounds: Rounds,
    now: u64,
    last_charge: u64,
    seen: Vec<Seen>,
    /// Charges granted since the last success or reset, and those that were in flight then.
    evaluations: u32,
}

impl History {
    fn new(rounds: Rounds) -> Self {
        Self {
            budget: Budget::default(),
            rounds,
            now: 1000,
            last_charge: 0,
            seen: Vec::new(),
            evaluations: 0,
        }
    }

    fn spent(&self) -> u32 {
        count(self.seen.iter().filter(|seen| !seen.cleared).count())
    }

    fn pending(&self) -> u32 {
        count(
            self.seen
                .iter()
                .filter(|seen| seen.pending(self.now))
                .count(),
        )
    }

    /// The wait before the next charge, computed the long way: is `spent` the sum of the first k rounds?
    fn wait(&self) -> u64 {
        let list = self.rounds.as_slice();
        (1..list.len())
            .find(|k| list.iter().take(*k).map(|r| r.attempts).sum::<u32>() == self.spent())
            .and_then(|k| list.get(k))
            .map_or(0, |round| round.wait.as_secs())
    }

    fn play(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Charge { lifetime } => self.charge(*lifetime)?,
            Step::Fail(index) => self.settle(*index, false)?,
            Step::Succeed(index) => self.settle(*index, true)?,
            Step::Reset => {
                self.budget.reset(Timestamp(self.now));
                self.clear();
            }
            Step::Replace => {
                self.budget.secret_replaced(Timestamp(self.now));
                self.clear();
                self.seen.iter_mut().for_each(|seen| seen.disowned = true);
            }
            Step::Advance(seconds) => self.now += seconds,
            Step::Reload(which) => self.rounds = policies().swap_remove(*which),
        }
        self.check()
    }

    fn charge(&mut self, lifetime: u64) -> Result<(), TestCaseError> {
        let before = self.budget.clone();
        let expires = self.now + lifetime;
        let opens = self.last_charge + self.wait();
        let answer = self
            .budget
            .charge(&self.rounds, Timestamp(self.now), Timestamp(expires));
        // Both directions: nothing is granted that must not be, and nothing refused that may be.
        let expected = if self.spent() >= self.rounds.total() {
            Some(Refused::Exhausted)
        } else if self.wait() > 0 && self.now < opens {
            let until = Timestamp(opens);
            Some(Refused::Wait { until })
        } else {
            None
        };
        prop_assert_eq!(answer.err(), expected);
        let Ok(id) = answer else {
            prop_assert_eq!(&self.budget, &before);
            return Ok(());
        };
        prop_assert!(
            self.seen.iter().all(|seen| seen.id != id),
            "an id came twice"
        );
        self.last_charge = self.now;
        self.evaluations += 1;
        prop_assert!(self.evaluations <= self.rounds.total());
        self.seen.push(Seen {
            id,
            expires,
            failed: false,
            cleared: false,
            disowned: false,
        });
        Ok(())
    }

    fn settle(&mut self, index: prop::sample::Index, right: bool) -> Result<(), TestCaseError> {
        if self.seen.is_empty() {
            return Ok(());
        }
        let now = self.now;
        let at = index.index(self.seen.len());
        let seen = self.seen.get_mut(at).expect("within the list");
        let before = self.budget.clone();
        let answer = if right {
            self.budget.succeed(seen.id, Timestamp(now))
        } else {
            self.budget.fail(seen.id, Timestamp(now))
        };
        if !seen.may_settle(now) {
            prop_assert_eq!(answer, Err(UnknownCharge));
            prop_assert_eq!(&self.budget, &before);
            return Ok(());
        }
        prop_assert_eq!(answer, Ok(()));
        seen.failed = !right;
        seen.cleared = right;
        if right {
            self.clear();
        }
        Ok(())
    }

    fn clear(&mut self) {
        let now = self.now;
        for seen in &mut self.seen {
            seen.cleared |= !seen.pending(now);
        }
        self.evaluations = self.pending();
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let now = Timestamp(self.now);
        let standing = self.budget.standing(&self.rounds, now);
        let total_left = self.rounds.total().saturating_sub(self.spent());
        prop_assert_eq!(standing.total_left, total_left);
        prop_assert_eq!(standing.exhausted, total_left == 0);
        prop_assert!(standing.left <= total_left);
        prop_assert_eq!(
            standing.left == 0,
            standing.exhausted || standing.wait_until.is_some()
        );
        prop_assert_eq!(self.budget.in_flight(now), self.pending());
        prop_assert!(self.budget.in_flight.len() <= MAX_ATTEMPTS as usize);
        let stored = toml::to_string(&self.budget).expect("a budget serialises");
        let read: Budget = toml::from_str(&stored).expect("what was stored is read back");
        prop_assert_eq!(&read, &self.budget);
        Ok(())
    }
}

fn policies() -> Vec<Rounds> {
    vec![
        rounds(&[(5, 0), (3, 60), (2, 200)]),
        rounds(&[(2, 0), (1, 30), (1, 30), (6, 100)]),
        rounds(&[(3, 0)]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A spent attempt never comes back but by a success or a reset; attempts after a success equal the charges
    /// in flight; waits are honoured and nothing else is refused; no id comes twice; nothing panics.
    #[test]
    fn every_history_agrees_with_the_model(
        start in 0..3_usize,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut history = History::new(policies().swap_remove(start));
        for step in &steps {
            history.play(step)?;
        }
    }

    /// The count never falls in a step that is neither a success nor a reset, whatever the clock does.
    #[test]
    fn without_a_success_the_count_only_grows(
        steps in prop::collection::vec((0..3_u8, any::<u64>(), any::<u64>(), any::<u64>()), 1..60),
    ) {
        let limits = rounds(&[(5, 0), (90, 60)]);
        let mut budget = Budget::default();
        let mut left = 95;
        for (kind, now, expires, id) in steps {
            let now = Timestamp(now);
            match kind {
                0 => drop(budget.charge(&limits, now, Timestamp(expires))),
                1 => drop(budget.fail(ChargeId(id % 8), now)),
                _ => drop(budget.succeed(ChargeId(id.max(1000)), now)),
            }
            let standing = budget.standing(&limits, now);
            prop_assert!(standing.total_left <= left);
            left = standing.total_left;
        }
    }
}
