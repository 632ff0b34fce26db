//! Which of the realm's tokens an operator means who says that one is lost.
//!
//! Called by `tokens` at a start. The head knows serial numbers, a person the name in the configuration, and the token
//! that could say how the two go together is the one that is away. Its name will do where that leaves one answer;
//! else the serial number has to be given. Must never guess: what is left out is not waited for any more.

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
    match (away.count(), left.as_slice()) {
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
