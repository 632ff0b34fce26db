//! Tests of `[witnesses]`.

use super::*;

pub(super) const WITNESS: &str = "# [witnesses.example-witness]
# url = \"https://witness.example\"
# vkey = \"witness.example/w1+240e77bf+BFhmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZm\"
";

/// The example with a witness and a quorum, changed once.
fn with(from: &str, to: &str) -> Result<Config, ConfigErrors> {
    let text = EXAMPLE
        .replace(WITNESS, &uncommented(WITNESS))
        .replace("# quorum = 1\n", "quorum = 1\n");
    assert!(text.contains(from), "{from}");
    read(&text.replacen(from, to, 1))
}

fn errors(from: &str, to: &str) -> String {
    with(from, to).unwrap_err().to_string()
}

const VKEY: &str = "witness.example/w1+240e77bf+BFhmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZm";

#[test]
fn a_witness_is_read() {
    let read = with("quorum", "quorum").unwrap().witnesses;
    assert_eq!((read.quorum, read.period), (1, Duration::from_secs(60)));
    assert_eq!(read.alert_after, Duration::from_secs(3600));
    assert_eq!(read.known.len(), 1);
    let witness = read.known.first().unwrap();
    assert_eq!(witness.name, "example-witness");
    assert_eq!(witness.url, "https://witness.example");
    assert_eq!(witness.key.to_text(), VKEY);
    let slash = with("https://witness.example", "https://witness.example/a/").unwrap();
    assert_eq!(
        slash.witnesses.known.first().unwrap().url,
        "https://witness.example/a"
    );
    let slow = with("# period = \"1m\"", "period = \"12h\"")
        .unwrap()
        .witnesses;
    assert_eq!(slow.alert_after, Duration::from_secs(86_400));
    let none = self::read(EXAMPLE).unwrap().witnesses;
    assert_eq!((none.quorum, none.known.len()), (0, 0));
}

#[test]
fn what_is_wrong_with_a_witness_is_named() {
    let second =
        format!("[witnesses.other]\nurl = \"https://other.example\"\nvkey = \"{VKEY}\"\n[log]");
    for (from, to, said) in [
        ("quorum = 1\n", "", "witnesses.quorum: missing"),
        (
            "quorum = 1\n",
            "quorum = 2\n",
            "more than the 1 that are listed",
        ),
        (
            "quorum = 1\n",
            "quorum = 0\n",
            "witnesses.quorum: expected a whole number",
        ),
        (
            VKEY,
            "witness.example/w1",
            "witnesses.example-witness.vkey: expected a verifier key",
        ),
        ("w1+", "w2+", "does not fit together"),
        (
            "https://witness.example",
            "http://witness.example",
            "url: expected an https URL",
        ),
        (
            "https://witness.example",
            "https://witness.example/?a=b",
            "url: expected an https URL",
        ),
        (
            "url = \"https://witness.example\"\n",
            "",
            "witnesses.example-witness.url is missing",
        ),
        (
            "[witnesses.example-witness]",
            "[witnesses.\"two words\"]",
            "witnesses: a name has",
        ),
        (
            "[log]",
            second.as_str(),
            "witnesses.other.vkey: example-witness has the same key",
        ),
        (
            "quorum = 1\n",
            "quorum = 1\nperod = \"1m\"\n",
            "witnesses.perod: unknown key, and not a table",
        ),
        (
            "# alert_after = \"1h\"",
            "alert_after = \"30s\"",
            "it would always alert",
        ),
        (
            "# period = \"1m\"",
            "period = \"0s\"",
            "witnesses.period: expected a duration",
        ),
    ] {
        let errors = errors(from, to);
        assert!(errors.contains(said), "{to}: {errors}");
    }
    let alone = read(&EXAMPLE.replace("# quorum = 1\n", "quorum = 1\n")).unwrap_err();
    assert!(
        alone
            .to_string()
            .contains("witnesses.quorum: no witness is listed"),
        "{alone}"
    );
}
