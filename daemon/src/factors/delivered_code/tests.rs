//! Golden codes, the rules of who gets which form, and a model of what may be
//! redeemed, against which sequences of operations are run.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test that cannot go on must stop

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use custodyd_policies::Timestamp;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

const VECTORS: &str = include_str!("../../../vectors/delivered_code.json");
const TEN_MINUTES: Duration = Duration::from_secs(600);

fn secret() -> OtpSecret {
    OtpSecret {
        secret: SharedSecret::new(vec![3; 32].into()),
        salt: [4; 16],
    }
}

fn bound(thumbprint: &str) -> Requester<'_> {
    Requester {
        thumbprint,
        bound: true,
    }
}

fn stranger(thumbprint: &str) -> Requester<'_> {
    Requester {
        thumbprint,
        bound: false,
    }
}

fn pending(step: u64, counter: u64, form: Form) -> Pending {
    Pending {
        counter,
        step,
        form,
        issued: Timestamp(0),
        expires: Timestamp(1),
        requesters: ["phone".to_owned()].into(),
        crowded: false,
    }
}

#[test]
fn codes_are_those_of_the_vectors() {
    let mut vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let record = format!(
        r#"{{"secret":{},"salt":{}}}"#,
        vectors["secret"], vectors["salt"]
    );
    let secret: OtpSecret = serde_json::from_str(&record).unwrap();
    assert_eq!(vectors["device_id"], secret.device_id());
    let codes = vectors["codes"].as_array_mut().unwrap();
    assert_eq!(codes.len(), 30);
    for vector in codes {
        let form: Form = serde_json::from_value(vector["form"].take()).unwrap();
        let number = |name: &str| vector[name].as_u64().unwrap();
        let pending = pending(number("step"), number("counter"), form);
        let text = vector["text"].as_str().unwrap();
        assert_eq!(*secret.code(&pending).text(), text);
        assert!(
            secret.matches(&pending, &Code::parse(text).unwrap()),
            "{text}"
        );
    }
}

#[test]
fn typed_codes_have_one_shape_each() {
    for (typed, form, text) in [
        (" 123 456\n", Form::Digits(6), "123456"),
        ("0000-0000-00", Form::Digits(10), "0000000000"),
        ("0123456789012345", Form::Long, "0123-4567-8901-2345"),
        ("abcd efgh jkmn pqrs", Form::Long, "ABCD-EFGH-JKMN-PQRS"),
        ("iLoO-0000-0000-0000", Form::Long, "1100-0000-0000-0000"),
    ] {
        let code = Code::parse(typed).unwrap();
        assert_eq!((code.form(), code.text().as_str()), (form, text), "{typed}");
    }
    for typed in [
        "",
        "12345",
        "12345678901",
        "12345a",
        "l23456",
        "١٢٣٤٥٦",
        "ABCD-EFGH-JKMN-PQR",
        "ABCD-EFGH-JKMN-PQRU",
        "ABCD-EFGH-JKMN-PQRS-T",
    ] {
        assert_eq!(Code::parse(typed).unwrap_err(), CodeFormat, "{typed}");
    }
    assert_eq!(Code::parse(&" ".repeat(5000)).unwrap_err(), CodeFormat);
}

#[test]
fn debug_shows_no_code() {
    let code = Code::parse("123456").unwrap();
    assert_eq!(format!("{code:?}"), "Code(Digits(6), redacted)");
    assert!(format!("{:?}", secret()).contains("redacted"));
}

#[test]
fn a_contact_has_a_secret_and_a_device_id_of_its_own() {
    let (one, other) = (OtpSecret::new().unwrap(), OtpSecret::new().unwrap());
    assert_eq!(one.secret.len(), 32);
    assert_ne!(one.device_id(), other.device_id());
    let salted = OtpSecret {
        salt: other.salt,
        ..one.clone()
    };
    assert_ne!(one.device_id(), salted.device_id());
}

#[test]
fn the_step_is_as_long_as_the_code_is_good_for() {
    let mut codes = PendingCodes::default();
    let mut issue = |valid_for, now| {
        let issued = codes.issue(bound("a"), Form::Long, valid_for, Timestamp(now));
        issued.map(|code| (code.step, code.expires.0))
    };
    assert_eq!(issue(TEN_MINUTES, 1_799), Ok((2, 2_399)));
    assert_eq!(
        issue(Duration::from_millis(1500), 1_800),
        Ok((1_800, 1_802))
    );
    assert_eq!(
        issue(Duration::from_millis(999), 1_800),
        Err(IssueError::NoTime)
    );
    assert_eq!(issue(Duration::MAX, 1_800), Ok((0, u64::MAX)));
}

#[test]
fn strangers_get_no_short_code_and_nobody_an_odd_one() {
    let mut codes = PendingCodes::default();
    let mut issue = |requester, form| {
        let issued = codes.issue(requester, form, TEN_MINUTES, Timestamp(0));
        issued.map(|code| code.form)
    };
    for digits in [0, 5, 11, 255] {
        let refused = issue(bound("a"), Form::Digits(digits));
        assert_eq!(refused, Err(IssueError::Digits(digits)));
    }
    let short = Form::Digits(6);
    assert_eq!(
        issue(stranger("a"), short),
        Err(IssueError::ShortForStranger)
    );
    assert_eq!(issue(bound("a"), short), Ok(short));
    // Nor by the way of attaching to one.
    assert_eq!(codes.attach(stranger("b"), Timestamp(1)), None);
    assert!(codes.attach(bound("b"), Timestamp(1)).is_some());
}

#[test]
fn one_who_attaches_gets_the_latest_code_that_suits() {
    let mut codes = PendingCodes::default();
    let now = Timestamp(100);
    for (requester, form) in [
        (stranger("a"), Form::Long),
        (stranger("b"), Form::Long),
        (bound("c"), Form::Digits(8)),
    ] {
        codes.issue(requester, form, TEN_MINUTES, now).unwrap();
    }
    assert_eq!(codes.attach(stranger("d"), now).unwrap().counter, 1);
    assert_eq!(codes.attach(bound("e"), now).unwrap().counter, 2);
    assert_eq!(codes.attach(bound("e"), now.plus(TEN_MINUTES)), None);
    assert!(codes.codes().is_empty());
}

#[test]
fn a_full_list_refuses_but_a_long_code_displaces_a_short_one() {
    let mut codes = PendingCodes::default();
    let now = Timestamp(0);
    for counter in 0..8 {
        let form = if counter == 3 {
            Form::Digits(6)
        } else {
            Form::Long
        };
        codes.issue(bound("a"), form, TEN_MINUTES, now).unwrap();
    }
    let short = codes.issue(bound("b"), Form::Digits(6), TEN_MINUTES, now);
    assert_eq!(short, Err(IssueError::Full));
    codes
        .issue(stranger("b"), Form::Long, TEN_MINUTES, now)
        .unwrap();
    let left: Vec<u64> = codes.codes().iter().map(|code| code.counter).collect();
    assert_eq!(left, [0, 1, 2, 4, 5, 6, 7, 8]);
    let long = codes.issue(stranger("c"), Form::Long, TEN_MINUTES, now);
    assert_eq!(long, Err(IssueError::Full));
    assert_eq!(codes.attach(stranger("c"), now).unwrap().counter, 8);
    // Room comes with time.
    let later = now.plus(TEN_MINUTES);
    assert!(
        codes
            .issue(stranger("c"), Form::Long, TEN_MINUTES, later)
            .is_ok()
    );
    assert_eq!(codes.codes().len(), 1);
}

#[test]
fn a_crowd_of_requesters_keeps_nobody_from_a_long_code() {
    let mut codes = PendingCodes::default();
    let now = Timestamp(0);
    codes
        .issue(stranger("first"), Form::Long, TEN_MINUTES, now)
        .unwrap();
    let names: Vec<String> = (2..=MAX_REQUESTERS).map(|n| n.to_string()).collect();
    for name in &names {
        codes.attach(stranger(name), now).unwrap();
    }
    // Asking again is asking last, and takes no second place.
    let full = codes.attach(stranger("first"), now).unwrap();
    assert_eq!(full.requesters.len(), MAX_REQUESTERS);
    let over = codes.attach(stranger("one more"), now).unwrap();
    assert_eq!(over.requesters.len(), MAX_REQUESTERS);
    assert!(over.crowded && !full.crowded);
    for name in ["first", "2", "one more", "whoever reads the mail"] {
        assert!(over.open_to(name, now), "{name}");
    }
    assert!(!full.open_to("whoever reads the mail", now));
    assert!(!over.open_to("first", over.expires));
    // A device that was removed may be among the crowd, so nobody is.
    codes.forget_requester("2");
    assert!(codes.codes().is_empty());
}

#[test]
fn the_last_number_is_never_given_twice() {
    let json = serde_json::json!({ "next": u64::MAX, "codes": [] });
    let mut codes: PendingCodes = serde_json::from_value(json).unwrap();
    let refused = codes.issue(bound("a"), Form::Long, TEN_MINUTES, Timestamp(0));
    assert_eq!(refused, Err(IssueError::Counter));
}

#[test]
fn a_code_found_may_be_gone_when_it_is_redeemed() {
    let mut codes = PendingCodes::default();
    let code = codes
        .issue(bound("a"), Form::Long, TEN_MINUTES, Timestamp(0))
        .unwrap();
    assert_eq!(codes.redeem(code.counter, "b", Timestamp(1)), None);
    assert_eq!(codes.redeem(code.counter, "a", code.expires), None);
    assert_eq!(codes.redeem(code.counter + 1, "a", Timestamp(1)), None);
    let mut voided = codes.clone();
    voided.void();
    assert_eq!(voided.redeem(code.counter, "a", Timestamp(1)), None);
    let next = voided.issue(bound("a"), Form::Long, TEN_MINUTES, Timestamp(1));
    assert_eq!(next.unwrap().counter, code.counter + 1);
    assert_eq!(codes.redeem(code.counter, "a", Timestamp(1)), Some(code));
}

#[test]
fn the_list_comes_back_from_json() {
    let mut codes = PendingCodes::default();
    codes
        .issue(bound("a"), Form::Digits(6), TEN_MINUTES, Timestamp(0))
        .unwrap();
    codes
        .issue(stranger("b"), Form::Long, TEN_MINUTES, Timestamp(0))
        .unwrap();
    let json = serde_json::to_string(&codes).unwrap();
    assert_eq!(serde_json::from_str::<PendingCodes>(&json).unwrap(), codes);
    assert!(serde_json::from_str::<PendingCodes>(&json.replacen('{', r#"{"more":1,"#, 1)).is_err());
}

/// No digit is preferred: 4,000 codes of ten digits, each digit of each place
/// within six standard deviations of a tenth.
#[test]
fn digits_are_even() {
    let secret = secret();
    let mut counts = [[0u32; 10]; 10];
    for counter in 0..4000 {
        let text = secret.code(&pending(1, counter, Form::Digits(10))).text();
        for (place, digit) in text.bytes().enumerate() {
            counts[place][usize::from(digit - b'0')] += 1;
        }
    }
    for (place, counts) in counts.iter().enumerate() {
        for (digit, count) in counts.iter().enumerate() {
            assert!((286..=514).contains(count), "{digit} at {place}: {count}");
        }
    }
}

/// What happens to a list. Devices 0 and 1 are bound, the others are not.
#[derive(Debug, Clone)]
enum Step {
    Issue {
        device: usize,
        short: bool,
    },
    Attach {
        device: usize,
    },
    Wait {
        seconds: u64,
    },
    /// A code that was sent, however long ago, and who shows it.
    Redeem {
        device: usize,
        sent: usize,
    },
}

const DEVICES: [&str; 4] = ["phone", "tablet", "new phone", "thief"];

fn requester(device: usize) -> Requester<'static> {
    Requester {
        thumbprint: DEVICES[device],
        bound: device < 2,
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..4, any::<bool>()).prop_map(|(device, short)| Step::Issue { device, short }),
        2 => (0usize..4).prop_map(|device| Step::Attach { device }),
        1 => (0u64..400).prop_map(|seconds| Step::Wait { seconds }),
        4 => (0usize..4, 0usize..40).prop_map(|(device, sent)| Step::Redeem { device, sent }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What a code was sent for, as the model sees it.
struct Sent {
    counter: u64,
    code: Code,
    short: bool,
    expires: Timestamp,
    devices: BTreeSet<usize>,
}

proptest! {
    /// A code redeems at most once, for its requesters only, and never after it
    /// expired; nobody who asks is left without a code; the list stays short.
    #[test]
    fn what_is_redeemed_was_due(steps in steps()) {
        let secret = secret();
        let mut codes = PendingCodes::default();
        let mut now = Timestamp(1_000_000);
        let mut sent: Vec<Sent> = Vec::new();
        let mut redeemed = BTreeSet::new();
        for step in steps {
            match step {
                Step::Wait { seconds } => now = Timestamp(now.0 + seconds),
                Step::Issue { device, short } => {
                    let form = if short { Form::Digits(10) } else { Form::Long };
                    match codes.issue(requester(device), form, TEN_MINUTES, now) {
                        Ok(pending) => sent.push(Sent {
                            counter: pending.counter,
                            code: Code::parse(&secret.code(&pending).text()).unwrap(),
                            short,
                            expires: pending.expires,
                            devices: [device].into(),
                        }),
                        Err(IssueError::ShortForStranger) => prop_assert!(short && device >= 2),
                        Err(error) => {
                            prop_assert_eq!(error, IssueError::Full);
                            prop_assert!(codes.attach(requester(device), now).is_some());
                            let latest = codes.codes().last().unwrap().counter;
                            let known = sent.iter_mut().find(|sent| sent.counter == latest);
                            known.unwrap().devices.insert(device);
                        }
                    }
                }
                Step::Attach { device } => {
                    if let Some(pending) = codes.attach(requester(device), now) {
                        let known = sent.iter_mut().find(|sent| sent.counter == pending.counter);
                        known.unwrap().devices.insert(device);
                    }
                }
                Step::Redeem { device, sent: which } => {
                    let Some(shown) = sent.get(which) else { continue };
                    let name = DEVICES[device];
                    let found = codes.find(&secret, name, &shown.code, now);
                    let due = shown.devices.contains(&device)
                        && now < shown.expires
                        && !redeemed.contains(&shown.counter);
                    match found {
                        Some(counter) => {
                            prop_assert!(due);
                            prop_assert_eq!(counter, shown.counter);
                            prop_assert!(codes.redeem(counter, name, now).is_some());
                            prop_assert!(codes.redeem(counter, name, now).is_none());
                            prop_assert!(redeemed.insert(counter));
                        }
                        // Only a short code may have been displaced.
                        None => prop_assert!(!due || shown.short),
                    }
                    prop_assert_eq!(codes.find(&secret, name, &shown.code, now), None);
                }
            }
            prop_assert!(codes.codes().len() <= MAX_PENDING);
            for code in codes.codes() {
                let strangers = code.requesters.iter().any(|name| !DEVICES[..2].contains(&name.as_str()));
                prop_assert!(code.form == Form::Long || !strangers);
            }
        }
    }

    /// Another step, counter, form or secret is another code.
    #[test]
    fn distinct_moments_have_distinct_codes(moments in proptest::collection::btree_set((0u64..50, 0u64..50), 2..40)) {
        let mut seen = BTreeMap::new();
        let other = OtpSecret { secret: SharedSecret::new(vec![4; 32].into()), ..secret() };
        for (which, secret) in [secret(), other].iter().enumerate() {
            for (step, counter) in &moments {
                let code = secret.code(&pending(*step, *counter, Form::Long));
                let earlier = seen.insert(code.text().to_string(), (which, *step, *counter));
                prop_assert_eq!(earlier, None);
            }
        }
    }

    #[test]
    fn codes_come_back_from_their_text(step: u64, counter: u64, digits in 5u8..=10) {
        let form = if digits == 5 { Form::Long } else { Form::Digits(digits) };
        let pending = pending(step, counter, form);
        let code = secret().code(&pending);
        prop_assert_eq!(code.form(), form);
        let typed = Code::parse(&code.text()).unwrap();
        prop_assert!(secret().matches(&pending, &typed));
        let next = Pending { counter: counter.wrapping_add(1), ..pending };
        prop_assert!(form != Form::Long || !secret().matches(&next, &typed));
    }

    /// Two texts are the same code only if they differ by liberties of typing.
    #[test]
    fn typed_codes_are_canonical(typed in "[0-9]{5,11}|[0-9A-Za-z -]{14,24}|\\PC*") {
        if let Ok(code) = Code::parse(&typed) {
            let text = code.text();
            prop_assert_eq!(&Code::parse(&text).unwrap().text(), &text);
            let plain: String = typed.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
            let plain = plain.to_ascii_uppercase().replace(['I', 'L'], "1").replace('O', "0");
            prop_assert_eq!(plain, text.replace('-', ""));
        }
    }
}
