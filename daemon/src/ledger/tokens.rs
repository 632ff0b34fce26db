//! Several tokens: which of them are the realm's, by the word of its head.
//!
//! Called at the start, by `init`, and by the committer. Every token of the set is anchored in before
//! anything of a batch is released; one that does not answer in time is given up by a head that names the
//! rest, which the rest has anchored before anybody is told; and a token that the newest head does not name is
//! used for nothing. From this follows what a start may do:
//!
//! * *All that the head names are there*: whatever was released is anchored in the tokens that the newest head
//!   names, so the head that the database shows is, or descends from, each of their anchors, or it was put
//!   back. If the database is older than the giving up of a token, it names that token *and* one that
//!   knows better: refused.
//! * *One that the head names is not there*: refused, although those that are there may all agree. They may be
//!   the ones that were given up. A token learns of that by nothing, for it was given up because it did not
//!   answer; with a database of that moment, which names it, it says in good faith that it is the newest. An
//!   administrator who has that database, and waits until the other token is lost, would have everything
//!   since then undone. Two tokens cannot both go on alone when the other is away; while the daemon serves the
//!   one that answers may, so at a start neither. Only a person knows that the other one is lost and
//!   has not served alone (`custodyd token expel`), and has witnesses to ask.
//! * *The tokens are known by serial number*, and not by their names in the configuration: an expelled token
//!   under another's name would have an older anchor, from which a put back database may descend.
//! * A token comes in by the same rule backwards: first the realm's own tokens are named, then the
//!   newcomer is anchored in, then a head names it. So every head that could be believed on the newcomer alone
//!   names another token as well.
//!
//! * A token that the newest head does not name is asked which MAC key it has heard of, at the start or as soon as it answers
//!   (`unheard`): whoever knows an older one can have made that head.
//!
//! A crash between any two of these steps leaves a head that is durable and not anchored everywhere. It
//! descends from the anchors of those that it names, and is anchored in all of them by the start.

use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::root_keys::{self, KeyCheck};
use custodyd_hsm::{KeyVersions, Member, Pool, TokenSet};

use super::anchoring::{Lost, found_in};
use super::head::Head;
use super::log::TokenChange;
use super::{Ledger, LedgerError, Order, keys, lost};

/// A dozen operations on a token that may be slow, before it serves.
const COMPARING: Duration = Duration::from_secs(30);

/// Which tokens to ask whether they have made this head: those that it names, as far as they are there.
/// It is not believed yet, and nothing is believed for being named. Only before anything is served: a head that
/// the database shows later changes nothing here.
pub(super) fn prefer(pool: &Pool, head: &Head) {
    let Some(set) = pool.set() else { return };
    let named = of(set, head);
    if named.iter().any(|id| set.of_id(id).is_some()) {
        set.is_of(&named);
    }
}

/// The tokens that this head means: the first one that is configured, where it names none.
fn of(set: &TokenSet, head: &Head) -> Vec<String> {
    match head.state.tokens.as_slice() {
        [] => set
            .members()
            .first()
            .and_then(|first| first.id().ok())
            .into_iter()
            .collect(),
        named => named.to_vec(),
    }
}

/// What the next head names, where this one does not: of a realm that is told of its second token, the first;
/// without those that an operator has said to be lost.
pub(super) fn change(pool: &Pool, head: &Head) -> Option<TokenChange> {
    let set = pool.set()?;
    let before = head.state.tokens.clone();
    let mut after = of(set, head);
    let lost = set.lost();
    after.retain(|id| !lost.contains(id));
    (before != after).then_some(TokenChange { before, after })
}

/// Refuses to go on with other tokens than those that the head names, and with such as are not alike.
///
/// # Errors
/// `Refused` names the token and what to do; `Token` where one does not answer.
pub(super) async fn hold(pool: &Pool, head: &Head) -> Result<(), LedgerError> {
    let named = &head.state.tokens;
    let Some(set) = pool.set() else {
        return match named.is_empty() {
            true => Ok(()),
            false => only(&pool.identity()?, named),
        };
    };
    let mut wanted = of(set, head);
    let lost = lost::meant(set, &wanted)?;
    wanted.retain(|id| !lost.contains(id));
    if wanted.is_empty() {
        return Err(LedgerError::Refused(match named.is_empty() {
            true => format!(
                "the realm was made with one token, and the first of the configuration does not answer: {}",
                absent(set)
            ),
            false => "no token of the realm would be left".into(),
        }));
    }
    let mut members = Vec::with_capacity(wanted.len());
    for id in &wanted {
        match set.of_id(id) {
            Some(member) => members.push(Arc::clone(member)),
            None => return Err(missing(set, id)),
        }
    }
    set.is_of(&wanted);
    alike(&members, &head.state.keys).await
}

/// The one token of the configuration must be the one of the realm.
fn only(id: &str, named: &[String]) -> Result<(), LedgerError> {
    if named == [id.to_owned()] {
        return Ok(());
    }
    Err(LedgerError::Refused(match named.contains(&id.to_owned()) {
        true => format!(
            "the realm has {} tokens ({}), and the configuration names one: name the others in [token.replicas]; \
             where one is lost, and has not served without this one: custodyd token expel SERIAL (docs/handbook/lose-hsm.md)",
            named.len(),
            named.join(", ")
        ),
        false => format!(
            "the token {id} is none of the realm's, which are {}: it was given up, or never taken in. Put one of \
             those back; with one of them serving, `custodyd token readmit` takes this one in",
            named.join(", ")
        ),
    }))
}

fn missing(set: &TokenSet, id: &str) -> LedgerError {
    LedgerError::Refused(format!(
        "the token {id} is one of the realm's, and is not there: {}. A start needs them all, since the others \
         can not know whether it has served without them. Bring it back; if it is lost, and was not \
         the one that served last: custodyd token expel {id} (docs/handbook/lose-hsm.md)",
        absent(set)
    ))
}

fn absent(set: &TokenSet) -> String {
    let away: Vec<&str> = set
        .members()
        .iter()
        .filter(|member| !member.is_open())
        .map(|member| member.name())
        .collect();
    match away.is_empty() {
        true => "every token of the configuration is there, so that it is none of these".into(),
        false => format!("of the configuration {} did not answer", away.join(", ")),
    }
}

/// Whether all of these hold the same keys, in the versions that are in use.
///
/// # Errors
/// `Refused` names the first that differs.
pub(crate) async fn alike(
    members: &[Arc<Member>],
    versions: &KeyVersions,
) -> Result<(), LedgerError> {
    let Some((first, others)) = members.split_first() else {
        return Ok(());
    };
    let wanted: Vec<_> = versions.accepted().collect();
    let checks: Vec<KeyCheck> = first
        .pool()?
        .call_within(COMPARING, "compare-keys", move |token| {
            wanted
                .into_iter()
                .map(|key| root_keys::check_of(token, key))
                .collect()
        })
        .await?;
    for other in others {
        let checks = checks.clone();
        let differing = other
            .pool()?
            .call_within(COMPARING, "compare-keys", move |token| {
                root_keys::differing(token, &checks)
            })
            .await?;
        if let Some(key) = differing {
            return Err(LedgerError::Refused(format!(
                "the token {} has another {} than the token {}, or none: tokens of one realm hold the same keys. Import \
                 them from the escrow (docs/ESCROW.md), or leave it out of [token.replicas]",
                other.name(),
                keys::names(&[key]),
                first.name()
            )));
        }
    }
    Ok(())
}

impl Ledger {
    /// The serial numbers of the tokens that the newest head names.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.reader.memory().read().head.state.tokens.clone()
    }

    /// Takes a token of the configuration into the set: it must hold the same keys, and remember of this
    /// realm nothing, or something older.
    ///
    /// # Errors
    /// `Refused` and `Tampered` say why not; then it is where it was.
    pub(crate) async fn readmit(&self, member: Arc<Member>) -> Result<(), LedgerError> {
        let set = self.pool().set();
        let inside = set.and_then(|set| set.serving().next().cloned());
        let inside = inside.ok_or(LedgerError::internal("find a token of the set"))?;
        // An anchor that it was told before it was given up could still come, beside one of the same number.
        if member.stuck() > 0 {
            return Err(LedgerError::Refused(format!(
                "the token {} has not come back yet from what it was asked before it was given up: try again when it \
                 has; where its module hangs for good, after a restart of the daemon",
                member.name()
            )));
        }
        // By a head that leaves it out because it knows better, it would seem to be of this history.
        self.hear(&member).await?;
        alike(&[inside, Arc::clone(&member)], &self.keys()).await?;
        let (head, end) = {
            let believed = self.reader.memory().read();
            (believed.head.clone(), believed.end.clone())
        };
        let found = found_in(&member, self.realm(), self.store(), (&head, &end)).await?;
        let order = |reply| Order::Readmit {
            member,
            found,
            reply,
        };
        self.order(order).await
    }

    /// Takes a token out of the set; another must be well.
    ///
    /// # Errors
    /// `Refused` where none would be left.
    pub(crate) async fn expel(&self, member: &Arc<Member>) -> Result<(), LedgerError> {
        let id = member.id()?;
        let lost = Lost {
            id: id.clone(),
            name: member.name().to_owned(),
            error: LedgerError::Refused("an operator took it out".into()),
        };
        let set = self.pool().set();
        let others = set.into_iter().flat_map(|set| set.serving());
        let mut well = false;
        for other in others.filter(|other| other.id().is_ok_and(|known| known != id)) {
            let probed = other.pool()?.call("probe", |token| token.probe()).await;
            well |= probed.is_ok();
        }
        if !well {
            return Err(LedgerError::Refused(
                "no other token of the realm answers, so this one stays".into(),
            ));
        }
        self.order(|reply| Order::Expel { lost, reply }).await
    }
}

/// The tokens of a new realm: all that are configured, and they must be there and alike.
///
/// # Errors
/// `Refused` as `hold`.
pub(super) async fn of_new(
    pool: &Pool,
    versions: &KeyVersions,
) -> Result<Vec<String>, LedgerError> {
    let Some(set) = pool.set() else {
        return Ok(Vec::new());
    };
    alike(set.members(), versions).await?;
    let ids = set.members().iter().map(|member| member.id());
    Ok(ids.collect::<Result<_, _>>()?)
}
