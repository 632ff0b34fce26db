//! A share of the fault campaign: three kills, and each fault of the database once, in one order; and of three nodes on one
//! database, what happens to nodes and to what they share. docs/FAULTS.md.

use std::time::{Duration, Instant};

use custodyd_tests::campaign::checker::Checker;
use custodyd_tests::campaign::history::{Asked, By, Came, Entry, Refusal, Told};
use custodyd_tests::campaign::{self, ATTEMPTS, Fault, Lasting, Pace, Plan, State, Until};

const FAULTS: [Fault; 13] = [
    Fault::Kill,
    Fault::Restart,
    Fault::Terminate,
    Fault::Kill,
    Fault::Immediate,
    Fault::Failover,
    Fault::Cut,
    Fault::Kill,
    Fault::Disk,
    Fault::Clock,
    Fault::Hold,
    Fault::Slow,
    Fault::Token,
];

/// Each node is killed once where that comes to pass by the dice; between that, what makes turns and batches change hands. One node is
/// cut, all are held, and two are slow.
const OF_NODES: [Fault; 12] = [
    Fault::Kill,
    Fault::Terminate,
    Fault::Cut,
    Fault::Restart,
    Fault::Kill,
    Fault::Failover,
    Fault::Hold,
    Fault::Token,
    Fault::Lag,
    Fault::Slow,
    Fault::Clock,
    Fault::Kill,
];

/// Makes one entry of a history a lie, where it can be one.
type Tamper = fn(&mut Entry) -> bool;

/// What of these can be done here. What cannot is left out only where somebody has said so.
fn possible(faults: &[Fault]) -> Vec<Fault> {
    let left_out = std::env::var_os("CUSTODYD_WITHOUT_MACHINE").is_some();
    let possible = |fault: &Fault| match fault.lacks() {
        None => true,
        Some(what) => {
            let name = fault.name();
            assert!(
                left_out,
                "{name}: {what}; CUSTODYD_WITHOUT_MACHINE=1 leaves it out"
            );
            eprintln!("left out: {name}: {what}");
            false
        }
    };
    faults.iter().copied().filter(possible).collect()
}

fn lasting(least: u64, most: u64) -> Lasting {
    Lasting {
        least: Duration::from_millis(least),
        most: Duration::from_millis(most),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_no_answer_is_wrong_and_everybody_is_served_again() {
    let plan = Plan {
        faults: possible(&FAULTS),
        until: Until::EachOnce,
        nodes: 1,
        clients: 4,
        rest: Duration::from_millis(20),
        calm: lasting(300, 600),
        lasting: lasting(200, 600),
        pace: Pace::Steady,
        state: None,
    };
    let mut state = State::new(20);
    let begun = Instant::now();
    let histories = campaign::run(&plan, &mut state, std::future::pending())
        .await
        .unwrap();
    println!("{}\nin {:?}", state.table(), begun.elapsed());
    assert!(state.violations.is_empty(), "{:#?}", state.violations);
    let done: u64 = plan.faults.iter().map(|fault| state.of(*fault).count).sum();
    // Kills are in the list three times, and counted each time.
    assert_eq!(
        done,
        plan.faults.len() as u64 + 2 * state.of(Fault::Kill).count
    );
    assert!(state.answered > 50 && state.receipts > 10, "{state:?}");

    // Controls: each history holds, and with one answer that is another it does not.
    for history in &histories {
        Checker::replay(ATTEMPTS, history).unwrap();
    }
    let found = |tamper: Tamper| {
        let lies = histories.iter().filter_map(|history| {
            let mut history = history.clone();
            let lied = history.iter_mut().rev().any(tamper);
            lied.then(|| Checker::replay(ATTEMPTS, &history).is_err())
        });
        lies.fold((0, 0), |(all, found), is_found| {
            (all + 1, found + usize::from(is_found))
        })
    };
    for (what, tamper) in [
        ("a guess won back", won_back as Tamper),
        ("a write lost", lost),
        ("another content", another),
        ("a session refused that stands", turned_off),
        ("a beginning that costs nothing", free),
    ] {
        let (all, found) = found(tamper);
        assert!(
            all > 0 && found == all,
            "{what}: {found} of {all} were found"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_nodes_no_answer_is_wrong_whichever_of_them_fails() {
    let plan = Plan {
        faults: possible(&OF_NODES),
        until: Until::EachOnce,
        nodes: 3,
        clients: 6,
        rest: Duration::from_millis(20),
        calm: lasting(300, 600),
        lasting: lasting(200, 600),
        pace: Pace::Steady,
        state: None,
    };
    let mut state = State::new(21);
    let begun = Instant::now();
    let histories = campaign::run(&plan, &mut state, std::future::pending())
        .await
        .unwrap();
    println!("{}\nin {:?}", state.table(), begun.elapsed());
    assert!(state.violations.is_empty(), "{:#?}", state.violations);
    for fault in &plan.faults {
        let count = if *fault == Fault::Kill { 3 } else { 1 };
        assert_eq!(state.of(*fault).count, count, "{}", fault.name());
    }
    assert!(state.answered > 50, "{state:?}");
    // Two nodes went on while one was cut off, and one while two were slow.
    assert_eq!(state.of(Fault::Cut).others.len(), 2);
    assert_eq!(state.of(Fault::Slow).others.len(), 1);
    // Everybody goes from node to node, and so do guesses that are made at once.
    let entries = || histories.iter().flatten();
    let spread = |entry: &&Entry| {
        let nodes = entry.sent.to.iter().map(|visit| visit.node);
        nodes.collect::<std::collections::BTreeSet<_>>().len() > 1
    };
    assert!(entries().any(|entry| spread(&entry)));
    let elsewhere = |entry: &&Entry| {
        let node = entry.sent.to[0].node;
        entry.with.is_some_and(|session| session.node != node)
    };
    assert!(entries().filter(elsewhere).count() > 5);
    // A login ends where it did not begin.
    let moved = histories.iter().map(|history| ended_elsewhere(history));
    assert!(moved.sum::<usize>() > 0);
    // Control: the guess won back is found here, too, the session that another node does not know, and the login that ends
    // at two nodes.
    // Two ends at once are not in every run.
    let tampers: [(Tamper, bool); 4] = [
        (won_back, true),
        (turned_off, true),
        (free, true),
        (opened_twice, false),
    ];
    for (tamper, always) in tampers {
        let lies = histories.iter().filter_map(|history| {
            let mut history = history.clone();
            let lied = history.iter_mut().rev().any(tamper);
            lied.then(|| Checker::replay(ATTEMPTS, &history).is_err())
        });
        let found: Vec<bool> = lies.collect();
        assert!(
            (!found.is_empty() || !always) && found.iter().all(|found| *found),
            "{found:?}"
        );
    }
}

/// The last thing that was done with the session of the account's creation was refused, because that has ended.
fn turned_off(entry: &mut Entry) -> bool {
    let created = entry.with.is_some_and(|session| session.by == By::Creation);
    // Nobody has asked for its erasure by then.
    let early = !matches!(entry.asked, Asked::List | Asked::Get | Asked::Erase);
    match &mut entry.came[..] {
        [came @ Came::Done(_)] if created && early => {
            *came = Came::Refused(Refusal {
                code: "401 session-ended".into(),
                left: None,
                current: None,
            });
            true
        }
        _ => false,
    }
}

/// The last wrong guess was told of as many attempts as there are.
fn won_back(entry: &mut Entry) -> bool {
    let wrong = entry.came.iter_mut().find_map(|came| match came {
        Came::Refused(refusal) => refusal.left.as_mut(),
        _ => None,
    });
    wrong.map(|left| *left = ATTEMPTS).is_some()
}

/// The last login began without a charge.
fn free(entry: &mut Entry) -> bool {
    let begun = entry.came.iter_mut().find_map(|came| match came {
        Came::Done(Told::Begun { left, .. }) => left.as_mut(),
        _ => None,
    });
    begun.map(|left| *left = ATTEMPTS).is_some()
}

/// Of two ends that came at once to two nodes the one that came too late opened a session, too.
fn opened_twice(entry: &mut Entry) -> bool {
    let [one, other] = &mut entry.came[..] else {
        return false;
    };
    let both = matches!(&entry.asked, Asked::End { right, .. } if *right == [true; 2]);
    let (first, second) = match (&*one, &*other) {
        (Came::Done(_), Came::Refused(_)) => (one, other),
        (Came::Refused(_), Came::Done(_)) => (other, one),
        _ => return false,
    };
    if both {
        second.clone_from(first);
    }
    both
}

/// How many logins were let in at another node than they began at.
fn ended_elsewhere(history: &[Entry]) -> usize {
    let mut begun = std::collections::BTreeMap::new();
    let mut moved = 0;
    for entry in history {
        let nodes = entry.sent.to.iter().map(|visit| visit.node);
        match &entry.asked {
            Asked::Begin(logins) => {
                begun.extend(logins.iter().map(|login| login.number).zip(nodes))
            }
            Asked::End { login, .. } => {
                let opened = |(_, came): &(usize, &Came)| matches!(came, Came::Done(_));
                let at = nodes.zip(&entry.came).find(opened);
                moved += usize::from(at.is_some_and(|(node, _)| begun.get(login) != Some(&node)));
            }
            _ => {}
        }
    }
    moved
}

/// The last release brought what was there before anything was written.
fn lost(entry: &mut Entry) -> bool {
    let read = entry.came.iter_mut().find_map(|came| match came {
        Came::Done(Told::Secret(kept)) if kept.version > 1 => Some(kept),
        _ => None,
    });
    match read.filter(|_| !matches!(entry.asked, Asked::Put { .. })) {
        Some(kept) => {
            kept.version = 1;
            true
        }
        None => false,
    }
}

fn another(entry: &mut Entry) -> bool {
    let read = entry.came.iter_mut().find_map(|came| match came {
        Came::Done(Told::Secret(kept)) if kept.version > 0 => Some(kept),
        _ => None,
    });
    match read.filter(|_| !matches!(entry.asked, Asked::Put { .. })) {
        Some(kept) => {
            kept.content = "another".into();
            true
        }
        None => false,
    }
}
