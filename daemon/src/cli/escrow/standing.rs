//! The line of `token check` and `doctor` about the escrow.
//!
//! Called by `token check` with a token that has been examined. It opens no share: whether custodians
//! still can is what `escrow verify` asks them.

use custodyd_hsm::Backend;
use custodyd_hsm::escrow::{Manifest, Manifests};
use serde_json::{Value, json};

use super::super::output::Line;
use crate::config::Token;
use crate::escrow;

/// The same beside a running daemon, whose token is not asked a second time.
pub(in crate::cli) fn named(token: &Token) -> Option<Line> {
    let path = token.escrow.as_ref()?;
    Some(match escrow::read_any(path) {
        Ok(manifests) => {
            let first = manifests.first();
            let detail = format!(
                "the keys were made outside of the token: {} of {} custodians can bring them back (ceremony {}; whether \
                 the token holds exactly those: custodyd token check){}",
                first.needed,
                first.custodians.len(),
                first.ceremony_name(),
                added(&manifests)
            );
            Line::ok("escrow", detail)
        }
        Err(error) => Line::red_told("escrow", error.to_string()),
    })
}

/// None for a realm whose keys its token has made.
pub(in crate::cli) fn line(token: &Token, backend: &dyn Backend) -> Option<Line> {
    let path = token.escrow.as_ref()?;
    let asked = escrow::read_any(path).and_then(|manifests| {
        let lacking = escrow::holds_in(backend, &manifests)?;
        Ok((manifests, lacking))
    });
    Some(match asked {
        Ok((manifests, lacking)) => {
            let first = manifests.first();
            let held = match lacking.is_empty() {
                true => "the token holds exactly those".to_owned(),
                false => format!(
                    "the token holds those but for {}: destroyed, or not brought into it",
                    escrow::names(&lacking)
                ),
            };
            let detail = format!(
                "the keys were made outside of the token: {} of {} can bring them back (ceremony {}); {held}{}",
                first.needed,
                first.custodian_names(),
                first.ceremony_name(),
                added(&manifests)
            );
            Line::ok("escrow", detail).with_data(data(&manifests))
        }
        Err(error) => Line::red_told("escrow", error.to_string()),
    })
}

/// Who can bring back what later ceremonies have added.
fn added(manifests: &Manifests) -> String {
    let each = manifests.further().iter().map(|of| {
        format!(
            "; {}: {} of {} (ceremony {})",
            of.key_names(),
            of.needed,
            of.custodian_names(),
            of.ceremony_name()
        )
    });
    each.collect()
}

fn data(manifests: &Manifests) -> Value {
    let of = |manifest: &Manifest| {
        let custodians = manifest.custodians.iter().map(|of| of.name.as_str());
        let keys = manifest.keys.iter().map(|of| of.key.to_string());
        json!({
            "ceremony": manifest.ceremony_name(),
            "realm": manifest.realm,
            "needed": manifest.needed,
            "custodians": custodians.collect::<Vec<_>>(),
            "keys": keys.collect::<Vec<_>>(),
            "made": manifest.made,
        })
    };
    let mut data = of(manifests.first());
    let further: Vec<Value> = manifests.further().iter().map(of).collect();
    if let Some(members) = data.as_object_mut() {
        members.insert("further".to_owned(), further.into());
    }
    data
}
