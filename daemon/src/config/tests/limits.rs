//! `[limits]`: how much at once, and apps with limits of their own.

use custodyd_hsm::AppId;

use super::*;

fn with(more: &str) -> Result<Config, ConfigErrors> {
    read(&EXAMPLE.replacen("[limits]\n", &format!("[limits]\n{more}\n"), 1))
}

#[test]
fn requests_at_once_never_outgrow_the_committers_queue() {
    assert_eq!(read(EXAMPLE).unwrap().limits.requests_at_once, 256);
    let most = with("requests_at_once = 1024").unwrap();
    assert_eq!(most.limits.requests_at_once, MOST_REQUESTS);
    for wrong in ["0", "1025"] {
        let said = with(&format!("requests_at_once = {wrong}"))
            .unwrap_err()
            .to_string();
        assert!(said.contains("a whole number from 1 to 1024"), "{said}");
    }
}

#[test]
fn an_app_may_have_limits_of_its_own() {
    let own = "app_burst = 70\n[limits.apps.notes]\nper_second = 7\n[limits.apps.wallet]\nburst = 9\n[limits.more]";
    let text = EXAMPLE.replacen("[limits]\n", "", 1) + "\n[limits]\n" + own;
    let said = read(&text).unwrap_err().to_string();
    assert!(said.contains("limits.more: unknown key"), "{said}");
    let limits = read(&text.replace("\n[limits.more]", "")).unwrap().limits;
    let of = |name: &str| {
        let limit = limits.apps.get(&AppId::parse(name).unwrap()).unwrap();
        (limit.per_second.get(), limit.burst.get())
    };
    assert_eq!(of("notes"), (7, 70), "what is not said is as for all");
    assert_eq!(of("wallet"), (1000, 9));
    assert!(read(EXAMPLE).unwrap().limits.apps.is_empty());
    let wrong = text.replace("\n[limits.more]", "\n[limits.apps.Notes]");
    let said = read(&wrong).unwrap_err().to_string();
    assert!(
        said.contains("limits.apps: \"Notes\" is no app's name"),
        "{said}"
    );
}
