//! Controls of what sessions may be refused for, of ceremonies and their number, and of guesses at several nodes.

use custodyd_policies::{Passkeys, Sessions};

use super::*;

const HOUR: u64 = 3_600_000;

impl Story {
    /// From here on with a session by this factor, opened at the other node.
    fn with(mut self, by: By) -> Self {
        self.with = Some(Session {
            by,
            at: self.now,
            node: 1,
        });
        self
    }

    fn with_none(mut self) -> Self {
        self.with = None;
        self
    }

    fn later(mut self, by: u64) -> Self {
        self.now += by;
        self
    }

    /// A clock was off, and is right again since so long.
    fn clock_was_off(mut self, since: u64) -> Self {
        self.clock_off = self.now - since;
        self
    }

    fn done(self, asked: Asked) -> Self {
        self.then(asked, Came::Done(Told::Yes))
    }

    fn read(self) -> Self {
        self.then(Asked::Get, Came::Done(secret(1, "a")))
    }

    fn refuses(self, asked: Asked, code: &str) -> Self {
        self.then(asked, refused(code, None, None))
    }
}

const ENDED: &str = "401 session-ended";
const EXPIRED: &str = "401 session-expired";
const INVALID: &str = "401 session-invalid";
const STEP_UP: &str = "403 step-up-required";

#[test]
fn the_lifetimes_are_those_of_a_policy_that_says_nothing_of_them() {
    let (sessions, passkeys) = (Sessions::default(), Passkeys::default());
    let limits = [sessions.idle, sessions.fresh, passkeys.ceremony];
    let limits = limits.map(|limit| u64::try_from(limit.as_millis()).unwrap());
    assert_eq!(limits, [IDLE, FRESH, CEREMONY]);
    let fresh = custodyd_policies::expiry::CREATION_FRESH.as_millis();
    assert_eq!(fresh, u128::from(CREATION_FRESH));
    assert_eq!(passkeys.max_per_account, MOST_PASSKEYS);
}

/// Just opened at one node, and refused at another.
#[test]
fn a_session_that_stands_and_is_refused_is_found() {
    for by in [By::Creation, By::Pin(1), By::Passkey(1)] {
        let story = || Story::new().with(by);
        story().read().holds();
        for code in [ENDED, EXPIRED, INVALID, "401 session-missing"] {
            story().refuses(Asked::Get, code).is_found("stands");
        }
        // Each at its time, and not before.
        let old = |by| story().later(by).refuses(Asked::Get, EXPIRED);
        old(IDLE).holds();
        old(IDLE / 2).is_found("stands");
        // Nothing but its factor ends it, or its account.
        story()
            .later(IDLE)
            .refuses(Asked::Get, ENDED)
            .is_found("stands");
        let erased = story().then(Asked::Erase, Came::Lost);
        match by {
            By::Pin(_) => {}
            _ => erased.clone().refuses(Asked::Get, ENDED).holds(),
        }
        let both = erased.refuses(Asked::Get, ENDED).with(by).read();
        both.is_found("erased");
    }
    let none = || Story::new().with_none();
    none().refuses(Asked::Get, "401 session-missing").holds();
    none()
        .refuses(Asked::Get, ENDED)
        .is_found("there is no session");
    none().read().is_found("without a session");
}

#[test]
fn a_clock_that_was_off_ages_a_session_of_before_and_none_of_long_after() {
    for code in [EXPIRED, INVALID] {
        let of_before = Story::new().with(By::Passkey(1)).later(5000);
        let jumped = || of_before.clone().clock_was_off(1000);
        jumped().refuses(Asked::Get, code).holds();
        jumped().refuses(Asked::Get, ENDED).is_found("stands");
        let of_after = jumped().later(60_000).with(By::Passkey(1));
        of_after.refuses(Asked::Get, code).is_found("stands");
    }
}

#[test]
fn a_session_ends_with_its_factor_and_opens_nothing_then() {
    let replaced = |came| {
        let opened = Story::new().with(By::Pin(1));
        let mut changed = opened.clone().then(Asked::SetPin(2), came);
        changed.with = opened.with;
        changed
    };
    let yes = || Came::Done(Told::Yes);
    replaced(yes()).refuses(Asked::Get, ENDED).holds();
    replaced(yes()).read().is_found("which is gone");
    replaced(yes()).with(By::Pin(2)).read().holds();
    let new = replaced(yes()).with(By::Pin(2));
    new.refuses(Asked::Get, ENDED).is_found("stands");
    // Without an answer either, and then not the other.
    replaced(Came::Lost)
        .read()
        .refuses(Asked::Get, ENDED)
        .holds();
    let ended = replaced(Came::Lost).refuses(Asked::Get, ENDED);
    ended.clone().right(2).holds();
    ended.clone().right(1).is_found("replaced");
    ended.read().is_found("which is gone");

    let removed = |came, by| {
        let opened = Story::new().done(Asked::AddPasskey(2));
        let removed = opened.with(By::Passkey(1));
        removed
            .then(Asked::RemovePasskey(2), came)
            .with(By::Passkey(by))
    };
    removed(yes(), 2).refuses(Asked::Get, ENDED).holds();
    removed(yes(), 2).read().is_found("which is gone");
    removed(yes(), 1).read().holds();
    removed(yes(), 1)
        .refuses(Asked::Get, ENDED)
        .is_found("stands");
    removed(Came::Lost, 2).refuses(Asked::Get, ENDED).holds();
    let ended = removed(Came::Lost, 2).refuses(Asked::Get, ENDED);
    ended.read().is_found("which is gone");
    // What else is refused comes after the session was looked at.
    let said = || refused("412 precondition-failed", None, Some(1));
    removed(yes(), 1).then(put(0, "c"), said()).holds();
    removed(yes(), 2)
        .then(put(0, "c"), said())
        .is_found("which is gone");
}

#[test]
fn more_is_asked_for_only_where_the_session_is_not_enough() {
    let changes = || {
        [
            Asked::Options,
            Asked::AddPasskey(2),
            Asked::RemovePasskey(1),
            Asked::Erase,
        ]
    };
    for asked in changes() {
        let by = |by| Story::new().with(by);
        by(By::Pin(1)).refuses(asked.clone(), STEP_UP).holds();
        by(By::Pin(1)).done(asked.clone()).is_found("suffices");
        for strong in [By::Passkey(1), By::Creation] {
            by(strong).done(asked.clone()).holds();
            let refuses = |later| by(strong).later(later).refuses(asked.clone(), STEP_UP);
            refuses(0).is_found("is enough");
            refuses(CREATION_FRESH).holds();
            let jumped = by(strong).later(5000).clock_was_off(1000);
            jumped.refuses(asked.clone(), STEP_UP).holds();
        }
        by(By::Passkey(1))
            .later(FRESH)
            .refuses(asked, STEP_UP)
            .holds();
    }
    // The PIN is the strongest where there is no passkey.
    let alone = Story::empty().done(Asked::SetPin(1)).with(By::Pin(1));
    alone.clone().done(Asked::Options).holds();
    alone.refuses(Asked::Options, STEP_UP).is_found("is enough");
    // And enough for itself, for the secret and to look.
    let by_pin = || Story::new().with(By::Pin(1));
    by_pin()
        .refuses(Asked::SetPin(2), STEP_UP)
        .is_found("is enough");
    by_pin()
        .later(FRESH)
        .refuses(Asked::SetPin(2), STEP_UP)
        .holds();
    for asked in [put(1, "b"), Asked::Get, Asked::List] {
        let refuses = by_pin().later(FRESH).refuses(asked, STEP_UP);
        refuses.is_found("is enough");
    }
    // The account's own session may have nothing any more once it is stale.
    let made = |later| Story::new().later(later);
    let withheld = "403 release-forbidden";
    made(0).refuses(Asked::Get, withheld).is_found("is enough");
    made(CREATION_FRESH).refuses(Asked::Get, withheld).holds();
    made(0).refuses(put(1, "b"), STEP_UP).is_found("is enough");
    made(CREATION_FRESH).refuses(put(1, "b"), STEP_UP).holds();
}

#[test]
fn nobody_is_told_to_wait_but_for_ceremonies_that_are_remembered() {
    for code in ["429 pin-wait", "429 rate-limited", "429 enrolment-quota"] {
        Story::new().refuses(guess(1), code).is_found("no answer");
        Story::new().refuses(Asked::Get, code).is_found("no answer");
        Story::new()
            .refuses(Asked::Challenge, code)
            .is_found("no answer");
    }
    let signed_in = |times| {
        let once = |story: Story, _| story.then(Asked::Passkey(1), Came::Done(secret(1, "a")));
        (0..times).fold(Story::new(), once)
    };
    let limited = "429 rate-limited";
    // The passkey's own is one of them.
    let just_full = CEREMONIES - 1;
    signed_in(just_full)
        .refuses(Asked::Passkey(1), limited)
        .holds();
    let early = signed_in(just_full - 1).refuses(Asked::Passkey(1), limited);
    early.is_found("just begun");
    let late = signed_in(just_full).later(HOUR);
    late.refuses(Asked::Passkey(1), limited)
        .is_found("just begun");
}

#[test]
fn a_ceremony_is_refused_at_its_time_and_passkeys_at_their_number() {
    for code in ["401 ceremony-expired", "401 ceremony-invalid"] {
        let begun = |later| Story::new().done(Asked::Challenge).later(later);
        begun(0)
            .refuses(Asked::Passkey(1), code)
            .is_found("just begun");
        let old = begun(CEREMONY).refuses(Asked::Passkey(1), code);
        match code {
            "401 ceremony-expired" => old.holds(),
            _ => old.is_found("just begun"),
        }
        let jumped = begun(0).clock_was_off(500);
        jumped.refuses(Asked::Passkey(1), code).holds();
    }
    let with = |count| {
        let passkeys = 1..=u32::try_from(count).unwrap();
        passkeys
            .map(Asked::AddPasskey)
            .fold(Story::empty(), Story::done)
    };
    let too_many = "409 too-many";
    with(MOST_PASSKEYS)
        .refuses(Asked::Options, too_many)
        .holds();
    let one_less = with(MOST_PASSKEYS - 1);
    one_less
        .refuses(Asked::Options, too_many)
        .is_found("no answer");
}

/// A replaced PIN ends a guess that is being looked at; one that was replaced before, or will not be any more, does not.
#[test]
fn who_guesses_is_a_stranger_only_where_the_pin_may_be_replaced_at_that_moment() {
    let open = || Story::new().then(Asked::SetPin(2), Came::Lost);
    open().then(guess(1), stranger()).right(2).holds();
    // It has come by then.
    let came = open().then(guess(1), stranger());
    came.clone().right(1).is_found("replaced");
    came.clone()
        .then(guess(2), stranger())
        .is_found("not known");
    // Its charge is of before, and counts yet; once.
    came.clone().wrong(9).holds();
    came.clone().wrong(8).holds();
    came.wrong(7).is_found("more than once");
    // Both PINs are possible, and no change is under way.
    let over = open().killed().then(guess(1), stranger());
    over.is_found("not known");
    let at_once = open().several(Asked::Guess(vec![NOBODYS; 2]), vec![stranger(), stranger()]);
    at_once.holds();
}

/// Of two guesses at two nodes nothing is over before both were killed.
#[test]
fn guesses_at_several_nodes_are_over_when_each_node_is() {
    let lost = || vec![Came::Lost, Came::Lost];
    let at = |nodes: &[usize]| {
        Story::new()
            .wrong(9)
            .at(nodes, Asked::Guess(vec![1; 2]), lost())
    };
    let seen = |story: Story| story.wrong(9).wrong(9);
    // The second of them may have come between, as long as its node lives.
    seen(at(&[0, 1]).node_killed(0)).holds();
    seen(at(&[0, 1]).node_killed(1)).holds();
    let both = at(&[0, 1]).node_killed(0).node_killed(1);
    seen(both).is_found("won back");
    seen(at(&[0, 0]).node_killed(0)).is_found("won back");
}
