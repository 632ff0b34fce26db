//! The line of `token check` and `doctor` about the escrow.
//!
//! Called by `token check` with a token that has been examined. It opens no share: whether custodians
//! still can is what `escrow verify` asks them.

use custodyd_hsm::Backend;
use serde_json::json;

use super::super::output::Line;
use crate::config::Token;
use crate::escrow;

/// The same beside a running daemon, whose token is not asked a second time.
pub(in crate::cli) fn named(token: &Token) -> Option<Line> {
    let path = token.escrow.as_ref()?;
    Some(match escrow::read_any(path) {
        Ok(manifest) => Line::ok(
            "escrow",
            format!(
                "the keys were made outside of the token: {} of {} custodians can bring them back (ceremony {}; whether \
                 the token holds exactly those: custodyd token check)",
                manifest.needed,
                manifest.custodians.len(),
                manifest.ceremony_name()
            ),
        ),
        Err(error) => Line::red_told("escrow", error.to_string()),
    })
}

/// None for a realm whose keys its token has made.
pub(in crate::cli) fn line(token: &Token, backend: &dyn Backend) -> Option<Line> {
    let path = token.escrow.as_ref()?;
    let asked = escrow::read_any(path)
        .and_then(|manifest| escrow::holds_in(backend, &manifest).map(|()| manifest));
    Some(match asked {
        Ok(manifest) => {
            let names: Vec<&str> = manifest
                .custodians
                .iter()
                .map(|c| c.name.as_str())
                .collect();
            let detail = format!(
                "the keys were made outside of the token: {} of {} can bring them back (ceremony {}); the token holds \
                 exactly those",
                manifest.needed,
                names.join(", "),
                manifest.ceremony_name()
            );
            Line::ok("escrow", detail).with_data(json!({
                "ceremony": manifest.ceremony_name(),
                "realm": manifest.realm,
                "needed": manifest.needed,
                "custodians": names,
                "made": manifest.made,
            }))
        }
        Err(error) => Line::red_told("escrow", error.to_string()),
    })
}
