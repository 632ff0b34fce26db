//! What the nodes of one realm are to have in common, by name; `store.postgres.rollout` lists some of it.
//!
//! Called by `database`, by `startup`, which compares, and by the store, which carries it from node to node.

use toml::de::DeValue;

use super::check::{expected, string};

/// A setting in which a node may not differ from those that serve, but for `Version`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Agreed {
    Url,
    Limits,
    PublicLog,
    Escrow,
    Policies,
    Token,
    /// Which versions serve beside each other is the schema's rule: a difference is told of, and no more.
    Version,
}

impl Agreed {
    pub const ALL: [Self; 7] = [
        Self::Url,
        Self::Limits,
        Self::PublicLog,
        Self::Escrow,
        Self::Policies,
        Self::Token,
        Self::Version,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Url => "listen.url",
            Self::Limits => "limits",
            Self::PublicLog => "ledger.public_log",
            Self::Escrow => "token.escrow",
            Self::Policies => "policies",
            Self::Token => "token",
            Self::Version => "version",
        }
    }

    /// By which nodes of all versions know it: less than 128, and never given to another. 1 were limits in another spelling.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Url => 0,
            Self::PublicLog => 2,
            Self::Escrow => 3,
            Self::Version => 4,
            Self::Token => 5,
            Self::Policies => 6,
            Self::Limits => 7,
        }
    }

    /// Whether a node that has something else is refused.
    #[must_use]
    pub fn is_demanded(self) -> bool {
        self != Self::Version
    }
}

/// `rollout`: settings in which this node may differ for now.
pub(super) fn rollout(value: &DeValue<'_>) -> Result<Vec<Agreed>, String> {
    let demanded = || Agreed::ALL.into_iter().filter(|one| one.is_demanded());
    let what = || {
        let names: Vec<_> = demanded().map(|one| format!("{:?}", one.name())).collect();
        format!("a list of {}", names.join(", "))
    };
    let DeValue::Array(listed) = value else {
        return Err(expected(&what(), value));
    };
    let one = |value: &DeValue<'_>| {
        let name = string(value)?;
        let found = demanded().find(|one| one.name() == name);
        found.ok_or_else(|| expected(&what(), value))
    };
    listed.iter().map(|value| one(value.get_ref())).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn each_setting_has_a_number_of_its_own_that_leaves_room_for_a_permission() {
        let mut numbers: Vec<_> = Agreed::ALL.map(Agreed::number).to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), Agreed::ALL.len());
        assert!(numbers.iter().all(|&number| number != 1 && number < 128));
    }
}
