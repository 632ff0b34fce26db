//! Which of the realm's tokens an operator means who says that one is lost.
//!
//! Called by `tokens` at a start. The head knows serial numbers, a person the name in the configuration, and the token
//! that could say how the two go together is the one that is away. Its name will do where that leaves one answer, with every
//! other token of the configuration one of the realm's; else the serial number has to be given. Must never guess: what is left out is not waited for any more.

use custodyd_hsm::TokenSet;

use super::LedgerError;

/// The serial numbers that were meant; from now on the set knows them by these.
///
/// # Errors
/// `Refused` where one is none of the realm's, or nobody can say which.
pub(super) fn meant(set: &TokenSet, named: &[String]) -> Result<Vec<String>, LedgerError> {
    let said = set.lost();
    let meant: Result<Vec<_>, _> = said.iter().map(|said| one(set, named, said)).collect();
    let meant = meant?;
    set.are_lost(meant.clone());
    Ok(meant)
}

fn one(set: &TokenSet, named: &[String], said: &str) -> Result<String, LedgerError> {
    if named.iter().any(|id| id == said) {
        return Ok(said.to_owned());
    }
    let stranger = || {
        LedgerError::Refused(format!(
            "{said} is none of the realm's tokens, which are {}",
            named.join(", ")
        ))
    };
    let member = set.members().iter().find(|member| member.name() == said);
    let member = member.ok_or_else(stranger)?;
    if let Ok(id) = member.id() {
        return match named.contains(&id) {
            true => Ok(id),
            false => Err(stranger()),
        };
    }
    // It is away: the one that no other token of the configuration is, if it is the only one away.
    let away = set.members().iter().filter(|member| member.id().is_err());
    let left: Vec<&String> = named.iter().filter(|id| set.of_id(id).is_none()).collect();
    // One that is there and none of the realm's may have the name of one that is: then the one away may be anybody.
    let strangers = set.members().iter();
    let strangers = strangers.filter(|member| member.id().is_ok_and(|id| !named.contains(&id)));
    match (away.count() + strangers.count(), left.as_slice()) {
        (_, []) => Err(stranger()),
        (1, [only]) => Ok((*only).clone()),
        _ => Err(LedgerError::Refused(format!(
            "{said} does not answer, and so does not say which of the realm's tokens it is: give its serial number, which is \
             one of {} (`custodyd ledger tail` shows when each came in)",
            left.iter()
                .map(|id| id.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::faults::several::tokens::{Soft, pool};
    use super::*;

    #[test]
    fn a_name_will_do_where_every_other_token_is_one_of_the_realms() {
        let [a, b] = Soft::pair();
        a.goes();
        let pool = pool(&[&a, &b]);
        let set = pool.set().unwrap();
        let said = |said: &str, named: &[&str]| {
            set.are_lost(vec![said.to_owned()]);
            let named: Vec<String> = named.iter().map(ToString::to_string).collect();
            meant(set, &named).map_err(|error| error.to_string())
        };
        assert_eq!(said("a", &["A", "B"]).unwrap(), ["A"]);
        assert_eq!(said("A", &["A"]).unwrap(), ["A"]);
        // B is none of the realm's: whose place it has nobody can say.
        let why = said("a", &["A"]).unwrap_err();
        assert!(why.contains("give its serial number"), "{why}");
        let why = said("a", &["A", "B", "C"]).unwrap_err();
        assert!(why.contains("give its serial number"), "{why}");
        assert!(said("a", &["B"]).is_err() && said("c", &["A", "B"]).is_err());
    }
}
