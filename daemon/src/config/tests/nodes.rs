//! Several nodes: what the rest of the configuration has to be for them.

use super::*;

const SEVERAL: &str =
    "[store.postgres]\nurl = \"postgres://c@db.example/k\"\nnodes = \"several\"\n";

fn with(section: &str, ledger: &str) -> Result<Config, ConfigErrors> {
    let text = EXAMPLE.replacen("# escrow = ", "escrow = ", 1);
    let text = text.replacen("\n[ledger]\n", &format!("\n{section}[ledger]\n{ledger}"), 1);
    assert_ne!(text, EXAMPLE);
    read(&text)
}

#[test]
fn several_nodes_are_of_a_server_and_anchor_strictly_in_one_token() {
    let shared = |config: Config| match config.store.database {
        Database::Postgres(place) => place.several_nodes,
        Database::Sqlite(_) => unreachable!("a file"),
    };
    assert!(shared(with(SEVERAL, "").unwrap()));
    for one in [
        SEVERAL.replace("several", "one"),
        SEVERAL.replace("nodes = \"several\"\n", ""),
    ] {
        assert!(!shared(with(&one, "").unwrap()));
    }
    let refused = |section: &str, ledger: &str, what: &str| {
        let said = with(section, ledger).unwrap_err().to_string();
        assert!(said.contains(what), "{said}");
    };
    refused(
        SEVERAL,
        "anchor = \"bounded\"\n",
        "ledger.anchor must be \"strict\"",
    );
    refused(
        &SEVERAL.replace("several", "two"),
        "",
        "expected \"one\" or \"several\"",
    );
    let said = read(&EXAMPLE.replacen("\n[store]\n", "\n[store]\nnodes = \"several\"\n", 1));
    assert!(said.unwrap_err().to_string().contains("nodes"));
    let replica =
        format!("{SEVERAL}[token.replicas.spare]\nlabel = \"spare\"\npin_file = \"spare-pin\"\n");
    refused(&replica, "", "without [token.replicas]");
    let section = SEVERAL.replacen("[store", "\n[store", 1);
    let tpm = EXAMPLE
        .replacen("# escrow = ", "escrow = ", 1)
        .replacen(
            "\nlabel = \"custodyd\"\n",
            "\nkind = \"tpm\"\ntcti = \"device:/dev/tpmrm0\"\nstorage_key = \"000b\"\nstate_directory = \"tpm\"\n",
            1,
        )
        .replacen("\n[ledger]\n", &format!("\n{section}[ledger]\nanchor = \"strict\"\n"), 1);
    let said = read(&tpm).unwrap_err().to_string();
    assert!(said.contains("the token can not be a TPM"), "{said}");
}

#[test]
fn a_node_may_differ_in_what_is_named_and_demanded() {
    let rollout = |list: &str| {
        let section = format!("{SEVERAL}rollout = {list}\n");
        with(&section, "").map(|config| match config.store.database {
            Database::Postgres(place) => place.rollout,
            Database::Sqlite(_) => unreachable!("a file"),
        })
    };
    assert_eq!(rollout("[]").unwrap(), []);
    assert_eq!(
        rollout("[\"policies\", \"listen.url\"]").unwrap(),
        [Agreed::Policies, Agreed::Url]
    );
    for list in ["[\"version\"]", "[\"limit\"]", "\"limits\"", "[1]"] {
        let said = rollout(list).unwrap_err().to_string();
        assert!(said.contains("store.postgres.rollout"), "{list}: {said}");
    }
}
