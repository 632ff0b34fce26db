//! Related origins (WebAuthn Level 3, section 5.11): pages outside the relying party's domain.

use super::*;

const RELATED: &str = "https://app.other";

fn serving(origins: &str, related: &str) -> RelyingParty {
    let text = format!(
        "app = \"demo\"\norigins = [{origins}]\n[relying_party]\nid = \"app.example\"\nrelated_origins = [{related}]"
    );
    let policy = custodyd_policies::parse("demo.toml", &text).unwrap();
    RelyingParty::new(&policy, [0; 32]).unwrap()
}

/// The codes of a registration and then of a login, each on its own page.
fn outcome(rp: &RelyingParty, registered_on: &'static str, login_on: &'static str) -> &'static str {
    let mut authenticator = Authenticator {
        origin: registered_on,
        ..Authenticator::new()
    };
    let mut passkey = match register(rp, &authenticator) {
        Ok(new) => new.passkey,
        Err(error) => return error.code(),
    };
    authenticator.origin = login_on;
    let (options, state) = rp.start_authentication(&[]).unwrap();
    let answer = authenticator.get(&options);
    match rp.finish_authentication(&answer, &state, OWNER, &mut passkey) {
        Ok(()) => "ok",
        Err(error) => error.code(),
    }
}

#[test]
fn a_listed_page_registers_and_signs_in() {
    let rp = serving(
        r#""https://app.example", "https://app.other""#,
        r#""https://app.other""#,
    );
    assert_eq!(outcome(&rp, ORIGIN, RELATED), "ok");
    assert_eq!(outcome(&rp, RELATED, ORIGIN), "ok");
    assert_eq!(outcome(&rp, RELATED, RELATED), "ok");
}

#[test]
fn another_page_of_the_same_site_is_none() {
    let rp = serving(
        r#""https://app.example", "https://app.other""#,
        r#""https://app.other""#,
    );
    for page in [
        "https://app.other:8443",
        "https://sub.app.other",
        "http://app.other",
        "https://other",
    ] {
        assert_eq!(outcome(&rp, page, ORIGIN), "origin-not-allowed", "{page}");
        assert_eq!(outcome(&rp, ORIGIN, page), "origin-not-allowed", "{page}");
    }
    // The control: without the list it is a page like any other.
    assert_eq!(
        outcome(&relying_party(), RELATED, ORIGIN),
        "origin-not-allowed"
    );
}

#[test]
fn an_app_may_have_related_pages_only() {
    let rp = serving(r#""https://app.other""#, r#""https://app.other""#);
    assert_eq!(outcome(&rp, RELATED, RELATED), "ok");
    // The identifier's own page is not listed, although the library knows it.
    assert_eq!(outcome(&rp, ORIGIN, RELATED), "origin-not-allowed");
    assert_eq!(outcome(&rp, RELATED, ORIGIN), "origin-not-allowed");
}
