//! Tests of the policy parser: the sections about codes, contacts, devices, recovery, enrolment and retention, wrong
//! in each way. Called by the test harness only; must never be compiled into a build.

use super::refusals::mistake;
use super::tests::refused;
use crate::properties::MINIMAL;

fn each_is_refused(cases: &[(&str, &str)]) {
    for (more, expected) in cases {
        let found = mistake(more);
        assert!(found.contains(expected), "{more}: {found}");
    }
}

fn each_is_accepted(cases: &[&str]) {
    for more in cases {
        assert_eq!(refused(&format!("{MINIMAL}\n{more}")), [""; 0], "{more}");
    }
}

#[test]
fn the_codes_of_each_kind_have_bounds() {
    each_is_refused(&[
        ("[totp]\ndigits = 5", "from 6 to 8, found 5"),
        ("[totp]\ndigits = 9", "from 6 to 8, found 9"),
        ("[totp]\nperiod = \"14s\"", "from 15s to 2m, found \"14s\""),
        ("[totp]\nperiod = \"121s\"", "from 15s to 2m"),
        ("[totp]\nwindow = 3", "from 0 to 2, found 3"),
        ("[totp]\nwindow = -1", "from 0 to 2, found -1"),
        ("[totp]\nsecret = 1", "totp: unknown setting \"secret\""),
        ("[delivered_codes]\nexpiry = \"59s\"", "from 1m to 1day"),
        ("[delivered_codes]\nexpiry = \"25h\"", "from 1m to 1day"),
        ("[delivered_codes]\ndigits = 11", "from 6 to 10"),
        ("[delivered_codes]\ninterval = \"9s\"", "from 10s to 1h"),
        ("[delivered_codes]\nper_day = 0", "from 1 to 200"),
        ("[delivered_codes]\nper_day = 201", "from 1 to 200"),
        ("[recovery_codes]\nallowed = 10", "true or false"),
        ("[recovery_codes]\ncount = 10", "unknown setting \"count\""),
    ]);
}

#[test]
fn each_budget_is_checked_under_its_own_name() {
    for section in ["pin", "totp", "delivered_codes", "recovery_codes"] {
        let with = |rounds: &str| mistake(&format!("[{section}]\nrounds = {rounds}"));
        let expected = format!("{section}.rounds: the rounds grant 101");
        let found = with("[{ attempts = 99 }, { attempts = 2, wait = \"1m\" }]");
        assert!(found.starts_with(&expected), "{found}");
        let found = with("[]");
        let expected = format!("{section}.rounds: expected at least one");
        assert!(found.starts_with(&expected), "{found}");
    }
}

#[test]
fn a_link_leads_to_the_app_and_has_one_place_for_the_code() {
    let refused = |link: &str| mistake(&format!("[delivered_codes]\nlink = {link:?}"));
    for (link, expected) in [
        ("https://app.example/", "exactly once"),
        ("https://app.example/{code}/{code}", "exactly once"),
        ("https://app.example/{Code}", "exactly once"),
        ("https://{code}.app.example/", "expected a host name"),
        ("https://other.example/{code}", "one of the app's origins"),
        (
            "https://app.example.other.example/{code}",
            "one of the app's origins",
        ),
        (
            "https://app.example:8443/{code}",
            "one of the app's origins",
        ),
        ("https://app.example:443/{code}", "leave the default port"),
        ("https://app.example@other.example/{code}", "no user name"),
        ("https://app.example\\@other.example/{code}", "no user name"),
        ("https://App.example/{code}", "lower-case"),
        ("http://app.example/{code}", "localhost only"),
        ("javascript:{code}", "expected an origin"),
        ("/{code}", "expected an origin"),
        ("https://app.example/ {code}", "a URL may hold"),
        ("https://app.example/{code}\n", "a URL may hold"),
        ("https://app.example/ü{code}", "a URL may hold"),
        ("https://app.example/{account}/{code}", "a URL may hold"),
    ] {
        let found = refused(link);
        assert!(found.contains(expected), "{link}: {found}");
        assert!(found.starts_with("delivered_codes.link: "), "{found}");
    }
    let long = format!("https://app.example/{}{{code}}", "a".repeat(487));
    assert!(refused(&long).contains("at most 512 bytes"));
    let longest = format!("https://app.example/{}{{code}}", "a".repeat(486));
    for link in [
        "https://app.example/{code}",
        "https://app.example#c={code}",
        "https://app.example?c={code}&x=%C3%BC",
        longest.as_str(),
    ] {
        each_is_accepted(&[&format!("[delivered_codes]\nlink = {link:?}")]);
    }
}

#[test]
fn contacts_and_aliases_are_checked() {
    each_is_refused(&[
        (
            "[contacts]\nchannels = [\"post\"]",
            "expected one of \"email\", \"sms\", found \"post\"",
        ),
        (
            "[contacts]\nchannels = [\"sms\", \"sms\"]",
            "\"sms\" is listed twice",
        ),
        (
            "[contacts]\nchannels = []",
            "expected at least one, unless delivered_codes.allowed is false",
        ),
        ("[contacts]\nmax_per_account = 5", "from 1 to 4"),
        ("[contacts]\nalias = \"no\"", "true or false"),
        ("[contacts]\nnotices = false", "unknown setting \"notices\""),
        ("[aliases]\nmax_per_account = 0", "from 1 to 4"),
        ("[aliases]\nnames = []", "unknown setting \"names\""),
    ]);
    each_is_accepted(&[
        "[delivered_codes]\nallowed = false\n[contacts]\nchannels = []",
        "[contacts]\nchannels = [\"sms\", \"email\"]",
    ]);
}

#[test]
fn what_an_unknown_device_gets_is_checked() {
    let no_codes = "[delivered_codes]\nallowed = false\n[devices]";
    let code_without_codes = format!("{no_codes}\ncode = \"then-pin\"");
    let no_pin = "[pin]\nallowed = false\n[devices]\nstranger_pin = [{ attempts = 1 }]";
    each_is_refused(&[
        (&code_without_codes, "devices.code: expected \"no\""),
        (no_pin, "devices.stranger_pin: leave it out"),
        (
            "[devices]\nunknown = \"passkey\"",
            "unknown setting \"unknown\"",
        ),
        (
            "[devices]\nstranger_pin = []",
            "devices.stranger_pin: expected at least one round",
        ),
        (
            "[devices]\nstranger_pin = [{ attempts = 9 }, { attempts = 2, wait = \"1m\" }]",
            "grant 11 attempts together, expected at most 10",
        ),
    ]);
    each_is_accepted(&[
        &format!("{no_codes}\ncode = \"no\""),
        no_codes,
        "[devices]\ncode = \"suffices\"",
        "[devices]\nstranger_pin = [{ attempts = 10 }]",
    ]);
}

#[test]
fn who_may_recover_is_checked() {
    each_is_refused(&[
        (
            "[recover]\nby = [\"device\"]",
            "whoever steals a device has its key",
        ),
        ("[recover]\nby = [\"creation\"]", "is never written"),
        (
            "[recover]\nby = [\"mail\"]",
            "\"delivered-code\", \"device\", found \"mail\"",
        ),
        (
            "[recover]\nby = [\"pin\", \"pin\"]",
            "\"pin\" is listed twice",
        ),
        (
            "[totp]\nallowed = false\n[recover]\nby = [\"totp\"]",
            "\"totp\" can never recover anything",
        ),
        ("[recover]\ndelay = \"31d\"", "from 0s to 30days"),
        ("[recover]\nnotice = false", "unknown setting \"notice\""),
        (
            "[release]\nrecover = [\"pin\"]",
            "recover is reserved, it has a section of its own",
        ),
    ]);
    each_is_accepted(&[
        "[recover]\nby = []",
        "[recover]\ndelay = \"0s\"",
        "[recover]\ndelay = \"30d\"",
    ]);
}

#[test]
fn weak_factors_release_only_what_a_server_slot_holds_and_only_when_listed() {
    for weak in ["totp", "delivered-code"] {
        let rule = format!("[release]\nnotes = [\"{weak}\"]");
        each_is_accepted(&[&rule]);
        let found = mistake(&format!("[secrets]\nserver_slot = \"forbidden\"\n{rule}"));
        let expected = format!("\"{weak}\" recovers only what has a server slot");
        assert!(found.contains(&expected), "{found}");
        // While server slots end, those that are there still open.
        each_is_accepted(&[&format!("[secrets]\nserver_slot = \"ending\"\n{rule}")]);
    }
    let weak_only = "[pin]\nallowed = false\n[passkeys]\nallowed = false\n\
                     [recovery_codes]\nallowed = false\n";
    each_is_refused(&[(weak_only, "release.*: missing, expected a list")]);
    each_is_accepted(&[&format!("{weak_only}[release]\n\"*\" = [\"totp\"]")]);
}

const COORDINATE: &str = "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY";

fn ticket(kid: &str, x: &str, y: &str) -> String {
    format!("{{ kid = {kid:?}, x = {x:?}, y = {y:?} }}")
}

#[test]
fn ticket_keys_are_checked() {
    let with = |keys: &str| format!("[enrolment]\ntickets = [{keys}]");
    let (short, loose) = (&COORDINATE[1..], COORDINATE.replace("wpY", "wpZ"));
    let standard = COORDINATE.replace('8', "+");
    for (keys, expected) in [
        (ticket("a b", COORDINATE, COORDINATE), "tickets[0].kid: exp"),
        (ticket("", COORDINATE, COORDINATE), "tickets[0].kid: exp"),
        (
            ticket(&"k".repeat(65), COORDINATE, COORDINATE),
            "tickets[0].kid: exp",
        ),
        (ticket("k", short, COORDINATE), "tickets[0].x: expected 32"),
        (ticket("k", COORDINATE, &loose), "tickets[0].y: expected 32"),
        (ticket("k", &standard, COORDINATE), "tickets[0].x: exp"),
        (
            "{ kid = \"k\", x = \"\" }".replace("\"\"", &format!("{COORDINATE:?}")),
            "tickets[0].y: missing, expected 32 bytes",
        ),
        (
            [
                ticket("k", COORDINATE, COORDINATE),
                ticket("k", COORDINATE, COORDINATE),
            ]
            .join(","),
            "enrolment.tickets: two keys have the kid \"k\"",
        ),
        (
            (0..9)
                .map(|n| ticket(&n.to_string(), COORDINATE, COORDINATE))
                .collect::<Vec<_>>()
                .join(","),
            "enrolment.tickets: expected at most 8, found 9",
        ),
    ] {
        let found = mistake(&with(&keys));
        assert!(found.contains(expected), "{keys}: {found}");
    }
    let two = [
        ticket("a.B_9-", COORDINATE, COORDINATE),
        ticket("k", COORDINATE, COORDINATE),
    ];
    each_is_accepted(&[&with(&two.join(",")), &with("")]);
    each_is_refused(&[
        ("[enrolment]\nquota_per_hour = 0", "from 1 to 1000000"),
        ("[enrolment]\nquota_per_hour = 1000001", "from 1 to 1000000"),
    ]);
}

#[test]
fn hashes_of_credentials_are_checked_and_not_repeated() {
    let with = |texts: &[&str]| format!("[backend]\ncredentials_sha256 = {texts:?}");
    let hash = "ab".repeat(32);
    let credential = "correct-horse-battery-staple";
    let signed = format!("+{}", &hash[1..]);
    for (texts, expected) in [
        (&[credential][..], "expected a SHA-256 hash"),
        (&[&hash[1..]], "expected a SHA-256 hash"),
        (&[signed.as_str()], "expected a SHA-256 hash"),
        (&["é".repeat(32).as_str()], "expected a SHA-256 hash"),
        (
            &[hash.as_str(), hash.to_uppercase().as_str()],
            "a hash is listed twice",
        ),
    ] {
        let found = mistake(&with(texts));
        assert!(found.contains(expected), "{found}");
        assert!(!found.contains(credential), "{found}");
    }
    let nine: Vec<String> = (1..=9).map(|n| format!("{n}").repeat(64)).collect();
    let nine: Vec<&str> = nine.iter().map(String::as_str).collect();
    assert!(mistake(&with(&nine)).contains("expected at most 8, found 9"));
    let eight = nine.get(1..).unwrap_or_default();
    each_is_accepted(&[&with(eight), &with(&[])]);
}

#[test]
fn related_origins_lie_outside_and_are_listed() {
    let policy = |related: &[&str]| {
        refused(&format!(
            "app = \"demo\"\norigins = [\"https://app.example\", \"https://other.test\"]\n\
             [relying_party]\nid = \"app.example\"\nrelated_origins = {related:?}"
        ))
        .join("\n")
    };
    assert_eq!(policy(&["https://other.test"]), "");
    assert!(policy(&[]).contains("does not cover \"other.test\""));
    for (related, expected) in [
        (
            &["https://other.test", "https://third.test"][..],
            "\"https://third.test\" is none of the app's origins",
        ),
        (
            &["https://other.test", "https://other.test"],
            "is listed twice",
        ),
        (
            &["https://other.test", "https://app.example"],
            "\"https://app.example\" is covered by id already",
        ),
    ] {
        let found = policy(related);
        assert!(found.contains(expected), "{found}");
    }
    let many = vec!["https://third.test"; 17];
    assert!(policy(&many).contains("expected at most 16, found 17"));
    let most = vec!["https://third.test"; 16];
    assert!(!policy(&most).contains("expected at most"));
}

#[test]
fn retention_has_bounds() {
    each_is_refused(&[
        ("[retention]\ninactive = \"29d\"", "from 30days to"),
        ("[retention]\ninactive = \"3651d\"", "from 30days to"),
        ("[retention]\nevents = \"29d\"", "from 30days to"),
        ("[retention]\nevents = \"never\"", "a duration such as"),
    ]);
    each_is_accepted(&["[retention]\ninactive = \"30d\"\nevents = \"3650d\""]);
}
