//! Controls of logins by OPAQUE: whose charge it is and when it comes back, which end counts, and at whose PIN it was begun.

use custodyd_policies::PinPolicy;

use super::super::super::history::Login;
use super::super::super::spent::{FORGOTTEN, LOGIN};
use super::super::logins::OTHER_WAY;
use super::*;

const EXPIRED: &str = "401 ceremony-expired";
const INVALID: &str = "401 ceremony-invalid";
const RIGHT: [bool; 1] = [true];
const WRONG: [bool; 1] = [false];

fn begin(number: u32, pin: Pin) -> Asked {
    Asked::Begin(vec![Login { number, pin }])
}

fn begun(left: u64, right: bool) -> Came {
    let left = Some(left);
    Came::Done(Told::Begun { left, right })
}

fn decoy(right: bool) -> Came {
    Came::Done(Told::Begun { left: None, right })
}

fn other_way() -> Came {
    refused(OTHER_WAY, None, None)
}

fn consumed() -> Came {
    refused("401 ceremony-consumed", None, None)
}

fn opened() -> Came {
    Came::Done(secret(1, "a"))
}

fn yes() -> Came {
    Came::Done(Told::Yes)
}

impl Story {
    /// An account with PIN 1 by OPAQUE, passkey 1 and version 1 of the secret.
    fn by_opaque() -> Self {
        Self::empty()
            .then(Asked::AddPasskey(1), yes())
            .then(Asked::RegisterPin(1), yes())
            .then(put(0, "a"), Came::Done(secret(1, "")))
    }

    fn begins(self, number: u32, pin: Pin, left: u64) -> Self {
        let right = pin != NOBODYS;
        self.then(begin(number, pin), begun(left, right))
    }

    /// A wrong one that nobody ends.
    fn leaves(self, number: u32, left: u64) -> Self {
        self.begins(number, NOBODYS, left)
    }

    /// A wrong one whose wrong end has come.
    fn fails(self, number: u32, left: u64) -> Self {
        self.leaves(number, left)
            .end(number, &WRONG, vec![told_wrong(left)])
    }

    fn end(self, login: u32, right: &[bool], came: Vec<Came>) -> Self {
        let nodes: Vec<usize> = (0..came.len()).collect();
        let right = right.to_vec();
        self.at(&nodes, Asked::End { login, right }, came)
    }

    fn opens(self, login: u32) -> Self {
        self.end(login, &RIGHT, vec![opened()])
    }

    fn passkey(self) -> Self {
        self.then(Asked::Passkey(1), opened())
    }

    fn after(mut self, milliseconds: u64) -> Self {
        self.now += milliseconds;
        self
    }

    /// A clock is right again since a second.
    fn jumped(mut self) -> Self {
        self.clock_off = self.now - 1000;
        self
    }
}

#[test]
fn the_time_of_a_login_is_that_of_a_policy_that_says_nothing_of_it() {
    let ceremony = PinPolicy::default().ceremony.as_millis();
    assert_eq!(ceremony, u128::from(LOGIN));
}

#[test]
fn a_beginning_is_charged_and_its_end_is_not_charged_again() {
    let story = || Story::by_opaque().leaves(1, 9);
    story().leaves(2, 8).holds();
    story().leaves(2, 9).is_found("won back");
    story().leaves(2, 7).is_found("more than once");
    Story::by_opaque().leaves(1, 10).is_found("won back");
    let ends = |left| story().end(1, &WRONG, vec![told_wrong(left)]);
    ends(9).leaves(2, 8).holds();
    ends(8).is_found("more than once");
    ends(10).is_found("won back");
    ends(9).leaves(2, 9).is_found("won back");
    ends(9).leaves(2, 7).is_found("more than once");
    // Nor by both of two nodes.
    let twice = |came| story().end(1, &[false; 2], came);
    let counted = || twice(vec![told_wrong(9), consumed()]);
    counted().leaves(2, 8).holds();
    counted().leaves(2, 7).is_found("more than once");
    twice(vec![told_wrong(9), told_wrong(9)]).is_found("ends again");
    twice(vec![told_wrong(9), told_wrong(8)]).is_found("ends again");
    // One without an answer was charged or was not.
    let lost = || Story::by_opaque().then(begin(1, 1), Came::Lost);
    lost().leaves(2, 9).holds();
    lost().leaves(2, 8).leaves(3, 7).holds();
    lost().leaves(2, 7).is_found("more than once");
    let busy = || Came::Open("503 busy".into());
    let open = Story::by_opaque().leaves(1, 9).end(1, &WRONG, vec![busy()]);
    open.clone().leaves(2, 8).holds();
    open.leaves(2, 7).is_found("more than once");
}

#[test]
fn beginnings_at_once_at_several_nodes_are_each_charged() {
    let logins = (1..=3).map(|number| {
        let pin = NOBODYS;
        Login { number, pin }
    });
    let asked = Asked::Begin(logins.collect());
    let at_once = |lefts: [u64; 3]| {
        let came = lefts.map(|left| begun(left, false)).to_vec();
        Story::by_opaque().at(&[0, 1, 0], asked.clone(), came)
    };
    at_once([8, 9, 7]).leaves(4, 6).holds();
    at_once([7, 7, 7]).holds();
    at_once([9, 9, 8]).is_found("won back");
    at_once([9, 8, 6]).is_found("more than once");
    // None of them is given back before its time.
    let clears = at_once([9, 8, 7]).passkey();
    clears.clone().leaves(4, 6).holds();
    clears.leaves(4, 7).is_found("won back");
}

#[test]
fn a_right_end_gives_back_its_charge_and_what_has_failed() {
    let story = || Story::by_opaque().fails(1, 9).begins(2, 1, 8);
    story().opens(2).leaves(3, 9).holds();
    story().opens(2).leaves(3, 8).is_found("more than once");
    // Not before.
    story().leaves(3, 7).holds();
    story().leaves(3, 8).is_found("won back");
    let lost = || story().end(2, &RIGHT, vec![Came::Lost]);
    lost().fails(3, 9).holds();
    lost().fails(3, 7).holds();
    lost().leaves(3, 10).is_found("won back");
    // It may come later, and then not again.
    lost().fails(3, 7).fails(4, 9).holds();
    // Not once its nodes were killed and the next answer was there.
    let over = || lost().killed().fails(3, 7);
    over().fails(4, 6).holds();
    over().leaves(4, 9).is_found("won back");
}

#[test]
fn a_charge_that_waits_for_its_end_is_given_back_by_nothing_else() {
    let right = |story: Story| story.begins(9, 1, 8).opens(9);
    let replaced = |story: Story| story.then(Asked::RegisterPin(2), yes());
    let plain = |story: Story| story.then(Asked::SetPin(2), yes());
    let ways: [fn(Story) -> Story; 4] = [right, Story::passkey, replaced, plain];
    for (number, way) in ways.into_iter().enumerate() {
        let next = |story: Story, left| match number {
            3 => story.wrong(left),
            _ => story.leaves(10, left),
        };
        let waits = || Story::by_opaque().leaves(1, 9);
        next(way(waits()), 8).holds();
        next(way(waits()), 9).is_found("won back");
        next(way(waits()), 7).is_found("more than once");
        // The control: what has failed is.
        next(way(Story::by_opaque().fails(1, 9)), 9).holds();
        // Its time may be over by then, and at last it is.
        for left in [8, 9] {
            next(way(waits().after(LOGIN)), left).holds();
            next(way(waits().after(5000).jumped()), left).holds();
        }
        let forgotten = || way(waits().after(FORGOTTEN));
        next(forgotten(), 9).holds();
        next(forgotten(), 8).is_found("more than once");
    }
    // Nor by what may have come meanwhile.
    let unheard = |came| {
        Story::by_opaque()
            .leaves(1, 9)
            .then(Asked::Passkey(1), came)
    };
    unheard(Came::Lost).leaves(2, 8).holds();
    unheard(Came::Lost).leaves(2, 9).is_found("won back");
}

#[test]
fn of_all_ends_of_a_login_one_opens_a_session() {
    let story = || Story::by_opaque().begins(1, 1, 9);
    story().opens(1).leaves(2, 9).holds();
    story().opens(1).opens(1).is_found("ends again");
    let again = || story().opens(1).end(1, &RIGHT, vec![consumed()]);
    again().leaves(2, 9).holds();
    again().leaves(2, 8).is_found("more than once");
    let twice = |came| story().end(1, &[true; 2], came);
    twice(vec![opened(), consumed()]).leaves(2, 9).holds();
    twice(vec![consumed(), opened()]).leaves(2, 9).holds();
    twice(vec![opened(), opened()]).is_found("ends again");
    twice(vec![consumed(), consumed()]).is_found("no end was sent");
    twice(vec![consumed(), Came::Lost]).holds();
    // One without an answer may have been it, and then no other is.
    let lost = || story().end(1, &RIGHT, vec![Came::Lost]);
    lost().opens(1).opens(1).is_found("ends again");
    let was_it = || lost().end(1, &RIGHT, vec![consumed()]);
    was_it().leaves(2, 9).holds();
    was_it().opens(1).is_found("ends again");
    // If it was not, it is worth nothing any more, whenever it comes.
    let was_not = || lost().opens(1).fails(2, 9);
    was_not().leaves(3, 8).holds();
    was_not().leaves(3, 9).is_found("won back");
    // If it was, it has given back what there was before, and nothing since.
    let failed = || {
        let story = Story::by_opaque().fails(1, 9).fails(2, 8).begins(3, 1, 7);
        let lost = story.end(3, &RIGHT, vec![Came::Lost]);
        lost.end(3, &RIGHT, vec![consumed()])
    };
    failed().fails(4, 9).leaves(5, 8).holds();
    failed().fails(4, 9).leaves(5, 9).is_found("won back");
    // Nobody has ended it, at any node.
    let not_sent = |story: Story| story.end(1, &RIGHT, vec![consumed()]);
    not_sent(story()).is_found("no end was sent");
    not_sent(story().after(LOGIN)).holds();
    not_sent(story().after(5000).jumped()).holds();
    let unknown = Story::by_opaque().opens(1);
    unknown.is_found("never answered");
}

#[test]
fn after_a_wrong_end_the_right_one_opens_nothing() {
    let story = || Story::by_opaque().begins(1, 1, 9);
    let wrong = || story().end(1, &WRONG, vec![told_wrong(9)]);
    wrong()
        .end(1, &RIGHT, vec![consumed()])
        .leaves(2, 8)
        .holds();
    wrong().opens(1).is_found("ends again");
    let both = |came| story().end(1, &[false, true], came);
    both(vec![consumed(), opened()]).leaves(2, 9).holds();
    both(vec![told_wrong(9), consumed()]).leaves(2, 8).holds();
    both(vec![told_wrong(9), opened()]).is_found("ends again");
    both(vec![consumed(), told_wrong(9)]).is_found("right end is wrong");
    both(vec![opened(), consumed()]).is_found("a wrong end opens");
    // Whichever it was that has no answer: either may have been.
    let lost = both(vec![Came::Lost, consumed()]);
    lost.clone().leaves(2, 8).holds();
    lost.opens(1).is_found("ends again");
}

#[test]
fn an_end_is_a_strangers_where_the_pin_was_replaced_or_the_account_erased() {
    let story = || Story::by_opaque().begins(1, 1, 9);
    let strange = |story: Story| story.end(1, &RIGHT, vec![stranger()]);
    strange(story()).is_found("was not replaced");
    for asked in [Asked::SetPin(2), Asked::RegisterPin(2)] {
        let replaced = |came| story().then(asked.clone(), came);
        strange(replaced(yes())).holds();
        replaced(yes()).opens(1).is_found("replaced");
        let known = |came| replaced(yes()).end(1, &WRONG, vec![came]);
        known(consumed()).is_found("replaced");
        known(told_wrong(9)).is_found("replaced");
        // Without an answer either, and then not the other.
        replaced(Came::Lost).opens(1).holds();
        let seen = || strange(replaced(Came::Lost));
        seen()
            .then(begin(2, 1), begun(8, true))
            .is_found("replaced");
        seen().opens(1).is_found("replaced");
        strange(replaced(Came::Lost).opens(1)).holds();
        let over = replaced(Came::Lost).killed().opens(1);
        strange(over).is_found("was not replaced");
        // Of two at once one may have come before.
        let both = |came| replaced(Came::Lost).end(1, &[true; 2], came);
        both(vec![stranger(), opened()]).holds();
        both(vec![opened(), stranger()]).holds();
    }
    let erased = || story().then(Asked::Erase, yes());
    strange(erased()).holds();
    erased().opens(1).is_found("erased");
    let consumed = erased().end(1, &RIGHT, vec![consumed()]);
    consumed.is_found("erased");
    // A wrong PIN's, begun at the one that there is.
    let wrong = || Story::by_opaque().leaves(1, 9);
    strange(wrong()).is_found("was not replaced");
    strange(wrong().then(Asked::RegisterPin(2), yes())).holds();
}

#[test]
fn an_answer_fits_the_pin_that_there_is() {
    let story = Story::by_opaque;
    story().begins(1, 1, 9).holds();
    story()
        .then(begin(1, 1), begun(9, false))
        .is_found("does not fit");
    let replaced = |came| story().then(Asked::RegisterPin(2), came);
    replaced(yes()).begins(1, 2, 9).holds();
    replaced(yes()).begins(1, 1, 9).is_found("was replaced");
    let retired = replaced(yes()).then(begin(1, 1), begun(9, false));
    retired.holds();
    let seen = || replaced(Came::Lost).begins(1, 1, 9);
    seen().begins(2, 2, 8).holds();
    seen()
        .begins(2, 2, 8)
        .begins(3, 1, 7)
        .is_found("was replaced");
    // Each PIN is checked its way.
    story().then(guess(1), other_way()).holds();
    story().then(guess(1), opened()).is_found("replaced");
    story().wrong(9).is_found("is wrong");
    story().then(begin(1, 1), other_way()).is_found("other way");
    let plain = Story::new;
    plain().then(begin(1, 1), other_way()).holds();
    plain().begins(1, 1, 9).is_found("was replaced");
    plain().leaves(1, 9).is_found("does not fit");
    plain().then(guess(1), other_way()).is_found("other way");
    let either = || story().then(Asked::SetPin(2), Came::Lost);
    either().then(begin(1, 1), other_way()).right(2).holds();
    let other = either().then(begin(1, 1), other_way());
    other.begins(2, 1, 9).is_found("was replaced");
    either().begins(1, 1, 9).right(2).holds();
    // Of several at once some may have come before that.
    let asked = |pin: Pin| (1..=2).map(move |number| Login { number, pin }).collect();
    let both = vec![other_way(), begun(9, false)];
    either().several(Asked::Begin(asked(NOBODYS)), both).holds();
    let none = || refused("409 pin-not-set", None, None);
    Story::empty().then(begin(1, NOBODYS), none()).holds();
    story().then(begin(1, 1), none()).is_found("there is none");
}

#[test]
fn who_begins_is_a_stranger_only_at_an_account_that_is_gone() {
    let story = Story::by_opaque;
    story().then(begin(1, 1), decoy(false)).is_found("decoy");
    let erased = || story().then(Asked::Erase, yes());
    let begun = || erased().then(begin(1, 1), decoy(false));
    begun().end(1, &WRONG, vec![stranger()]).holds();
    let known = |came| begun().end(1, &WRONG, vec![came]);
    known(told_wrong(9)).is_found("erased");
    known(consumed()).is_found("erased");
    erased().begins(1, 1, 9).is_found("erased");
    erased().leaves(1, 9).is_found("erased");
    erased()
        .then(begin(1, 1), decoy(true))
        .is_found("is a decoy");
    // Or while its PIN is being replaced; that costs nothing.
    story().then(begin(1, 1), stranger()).is_found("not known");
    let open = || story().then(Asked::RegisterPin(2), Came::Lost);
    let replaced = || open().then(begin(1, 1), stranger());
    replaced().begins(2, 2, 9).holds();
    replaced().begins(2, 2, 8).is_found("more than once");
    replaced().begins(2, 1, 9).is_found("was replaced");
    let over = open().killed().then(begin(1, 1), stranger());
    over.is_found("not known");
    erased().then(begin(1, 1), stranger()).holds();
}

#[test]
fn nothing_begins_past_the_budget_and_what_has_begun_may_end() {
    let all = |story: Story, lefts: std::ops::Range<u64>| {
        let lefts = lefts.rev();
        lefts.fold(story, |story, left| {
            story.fails(100 + u32::try_from(left).unwrap(), left)
        })
    };
    let spent = || all(Story::by_opaque(), 0..MOST);
    spent().then(begin(1, 1), exhausted()).holds();
    spent().begins(1, 1, 0).is_found("beyond the budget");
    spent()
        .then(begin(1, 1), exhausted())
        .passkey()
        .begins(1, 1, 9)
        .holds();
    Story::by_opaque()
        .leaves(1, 9)
        .then(begin(2, 1), exhausted())
        .is_found("more than once");
    let waits = || all(Story::by_opaque().begins(1, 1, 9), 0..9);
    let exhausts = || waits().then(begin(2, 1), exhausted());
    exhausts().opens(1).leaves(3, 9).holds();
    exhausts().opens(1).leaves(3, 8).is_found("more than once");
    // Left to itself, it stays spent when the others come back.
    exhausts().passkey().leaves(3, 8).holds();
    exhausts().passkey().leaves(3, 9).is_found("won back");
}

#[test]
fn a_login_ends_at_its_time_and_not_before() {
    let story = |later| Story::by_opaque().begins(1, 1, 9).after(later);
    let refuses = |story: Story, code| story.end(1, &RIGHT, vec![refused(code, None, None)]);
    refuses(story(0), EXPIRED).is_found("just begun");
    refuses(story(LOGIN), EXPIRED).holds();
    refuses(story(LOGIN), INVALID).is_found("it was answered");
    for code in [EXPIRED, INVALID] {
        refuses(story(5000).jumped(), code).holds();
    }
    story(LOGIN).opens(1).holds();
    story(FORGOTTEN).opens(1).is_found("time is over");
    for code in [
        "429 rate-limited",
        "429 pin-wait",
        "403 pin-exhausted",
        OTHER_WAY,
    ] {
        refuses(story(0), code).is_found("no answer");
    }
    refuses(story(0), "404 not-found").is_found("the secret is");
    // There is nothing to release yet: it may end once there is.
    let bare = || {
        let unwritten = Story::empty().then(Asked::RegisterPin(1), yes());
        refuses(unwritten.begins(1, 1, 9), "404 not-found")
    };
    bare().leaves(2, 8).holds();
    bare().leaves(2, 9).is_found("won back");
    let written = bare().then(put(0, "a"), Came::Done(secret(1, "")));
    written.opens(1).leaves(2, 9).holds();
}

#[test]
fn a_registration_is_refused_at_its_time_and_is_enough_for_itself() {
    let registers =
        |story: Story, code| story.then(Asked::RegisterPin(2), refused(code, None, None));
    let started = |later| {
        Story::by_opaque()
            .then(Asked::Registration, yes())
            .after(later)
    };
    registers(started(0), EXPIRED).is_found("just begun");
    registers(started(LOGIN), EXPIRED).holds();
    registers(started(LOGIN), INVALID).is_found("just begun");
    registers(started(5000).jumped(), INVALID).holds();
    registers(started(0), "401 ceremony-consumed").is_found("no answer");
    let step_up = "403 step-up-required";
    registers(started(0), step_up).is_found("is enough");
    registers(started(CREATION_FRESH), step_up).holds();
    let begins = |later| {
        let story = Story::by_opaque().after(later);
        story.then(Asked::Registration, refused(step_up, None, None))
    };
    begins(0).is_found("is enough");
    begins(CREATION_FRESH).holds();
    registers(started(0), "429 rate-limited").is_found("just begun");
    let many = |count: u32| {
        let registered = |story: Story, pin| story.then(Asked::RegisterPin(pin), yes());
        (10..10 + count).fold(started(0), registered)
    };
    let used = u32::try_from(CEREMONIES).unwrap();
    registers(many(used), "429 rate-limited").holds();
}
