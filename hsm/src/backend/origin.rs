//! Which of the two ways a token's keys may come about.
//!
//! Asked by the backends before they make keys or take some in.

use crate::{
    error::{Error, Result},
    id::{KeyId, KeyPurpose},
    root_keys::KeyOrigin,
};

/// Keys are not made in a token whose keys are to be in an escrow.
pub(super) fn refuse_imported(origin: KeyOrigin) -> Result<()> {
    match origin {
        KeyOrigin::Token => Ok(()),
        KeyOrigin::Imported => Err(Error::Misconfigured(
            "token.escrow is set, and the token lacks keys: `custodyd escrow create` makes those of a new realm, \
             `custodyd escrow restore` brings back those of an existing one"
                .to_owned(),
        )),
    }
}

/// One sentence for all that a token lacks: of another token it is every one, and whoever reads that is in a hurry.
pub(super) fn lacking(missing: &[KeyPurpose]) -> Option<String> {
    let names = missing.iter().map(|purpose| KeyId::new(*purpose, 1));
    let names: Vec<String> = names.map(|key| key.to_string()).collect();
    let (what, them) = match names.as_slice() {
        [] => return None,
        [one] => (format!("the key {one} is"), "it"),
        all => (format!("the keys {} are", all.join(", ")), "them"),
    };
    Some(format!(
        "{what} missing: `custodyd init` makes {them} in a new realm; in an existing one this is another token, or its keys were \
         deleted (those of an escrowed realm come back by `custodyd escrow restore`)"
    ))
}

/// Nor are keys imported where everybody relies on their never having been outside.
pub(super) fn refuse_made(origin: KeyOrigin) -> Result<()> {
    match origin {
        KeyOrigin::Imported => Ok(()),
        KeyOrigin::Token => Err(Error::Misconfigured(
            "token.escrow is not set, so keys that were made outside of the token are refused; nothing was changed"
                .to_owned(),
        )),
    }
}

/// A key that a token makes by itself would be in no escrow.
pub(super) fn refuse_unescrowed(origin: KeyOrigin, key: KeyId) -> Result<()> {
    match origin {
        KeyOrigin::Token => Ok(()),
        KeyOrigin::Imported => Err(Error::Misconfigured(format!(
            "{key} was not made: the realm's keys are in an escrow, and one that the token makes would be in none and \
             be lost with the token. `custodyd escrow add-version` makes one that is (docs/ESCROW.md, \"Rotation\")"
        ))),
    }
}

/// What is there already is never overwritten.
pub(super) fn refuse_occupied(label: &str) -> Error {
    Error::Misconfigured(format!(
        "the token holds {label} already, so nothing was changed: keys are imported into a token that has none. Keys \
         that were made in a token never leave it, and a realm that uses them cannot be escrowed afterwards; take \
         another token (or, if an import into this one was cut off, initialise it anew)"
    ))
}

/// Nor is another key of the same name brought in beside it.
pub(super) fn refuse_another(label: &str) -> Error {
    Error::Misconfigured(format!(
        "the token holds {label} already, and it is another key than the one that was to be imported, so nothing was \
         changed: it is of another ceremony or of another realm. Take the token of this escrow, or an empty one"
    ))
}

/// And what is brought in beside others must leave no gap.
pub(super) fn refuse_a_gap(labels: &[String]) -> Error {
    Error::Misconfigured(format!(
        "the token lacks {} as well, so nothing was changed: bring the keys of every ceremony in together",
        labels.join(", ")
    ))
}
