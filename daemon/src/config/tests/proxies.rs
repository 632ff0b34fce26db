//! `listen.proxy_protocol`.

use super::*;

const DEFAULT: &str = "# proxy_protocol = []";

fn lists(listed: &str, address: &str) -> bool {
    let text = EXAMPLE.replacen(DEFAULT, &format!("proxy_protocol = {listed}"), 1);
    let config = read(&text).unwrap();
    config.listen.proxy_protocol.lists(address.parse().unwrap())
}

#[test]
fn addresses_and_networks_are_listed_and_by_default_nobody_is() {
    assert!(!lists("[]", "10.0.0.1"));
    let listed = r#"["192.0.2.10", "10.1.0.0/16", "2001:db8::/64"]"#;
    for address in ["192.0.2.10", "10.1.255.1", "2001:db8::1"] {
        assert!(lists(listed, address), "{address}");
    }
    for address in ["192.0.2.11", "10.2.0.1", "2001:db9::1"] {
        assert!(!lists(listed, address), "{address}");
    }
}

#[test]
fn a_list_that_is_too_wide_or_none_is_refused_with_what_to_write() {
    for (listed, told) in [
        (
            r#""10.0.0.0/8""#,
            "addresses and networks of load balancers",
        ),
        (
            r#"["balancer.example"]"#,
            "addresses and networks of load balancers",
        ),
        (
            r#"["10.0.0.1:443"]"#,
            "addresses and networks of load balancers",
        ),
        ("[10]", "expected a string"),
        (r#"["0.0.0.0/0"]"#, "every address there is"),
        (r#"["::/0"]"#, "every address there is"),
        (r#"["10.1.2.3/8"]"#, r#"write "10.0.0.0/8" for the network"#),
    ] {
        let errors = errors_with(DEFAULT, &format!("proxy_protocol = {listed}"));
        assert!(errors.contains("listen.proxy_protocol"), "{errors}");
        assert!(errors.contains(told), "{listed}: {errors}");
    }
}
