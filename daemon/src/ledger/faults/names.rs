//! Aliases: one account each, whatever comes at once, fails, or is put back by an administrator.

use custodyd_hsm::AccountId;
use custodyd_policies::Timestamp;

use super::broken::{Commit, Script};
use super::rig::{Rig, account, app};
use crate::account::{Account, Alias, AliasName};
use crate::ledger::{EventKind, Journal, LedgerError, Loaded, Moment, NewEvent};

pub(in crate::ledger) fn name(text: &str) -> AliasName {
    AliasName::chosen(text).unwrap()
}

async fn load(rig: &Rig, id: AccountId) -> Loaded {
    rig.ledger().load(&app(), id).await.unwrap().unwrap()
}

async fn owner(rig: &Rig, text: &str) -> Option<AccountId> {
    let found = rig.ledger().find_alias(&app(), &name(text)).await.unwrap();
    found.map(|loaded| loaded.account.id)
}

async fn alias(rig: &Rig, text: &str) -> Alias {
    rig.ledger().alias(&app(), name(text)).await.unwrap()
}

pub(super) fn claiming(
    aliases: Vec<Alias>,
) -> impl FnOnce(&mut Account, Moment, &mut Journal) -> Result<(), LedgerError> + Send + 'static {
    move |account, _, journal| {
        for alias in aliases {
            account.add_alias(alias);
        }
        journal.note(NewEvent::new(EventKind::DeviceBound));
        Ok(())
    }
}

pub(super) async fn claim(rig: &Rig, id: AccountId, text: &str) -> Result<(), LedgerError> {
    let loaded = rig.ledger().load(&app(), id).await?.unwrap();
    let alias = rig.ledger().alias(&app(), name(text)).await?;
    let made = rig.ledger().commit(loaded, claiming(vec![alias])).await;
    made.map(drop)
}

async fn release(rig: &Rig, id: AccountId, text: &str) -> Result<bool, LedgerError> {
    let (loaded, name) = (load(rig, id).await, name(text));
    let drop = move |account: &mut Account, _: Moment, _: &mut Journal| {
        Ok::<_, LedgerError>(account.drop_alias(&name))
    };
    Ok(rig.ledger().commit(loaded, drop).await?.0)
}

#[tokio::test]
async fn an_alias_is_found_taken_given_up_and_free_again() {
    for cache in [0, 1 << 20] {
        let mut rig = Rig::new().await;
        rig.cache = cache;
        rig.restart().await;
        let [a, b] = rig.accounts;
        assert_eq!(owner(&rig, "ann").await, None);
        claim(&rig, a, "ann").await.unwrap();
        assert_eq!(owner(&rig, "Ann").await, Some(a));
        let taken = claim(&rig, b, "ann").await;
        assert!(matches!(taken, Err(LedgerError::AliasTaken)), "{taken:?}");
        // It takes nothing to keep what one has, and a refused claim leaves nothing behind.
        claim(&rig, a, "ann").await.unwrap();
        claim(&rig, b, "bob").await.unwrap();
        rig.restart().await;
        assert_eq!(owner(&rig, "ann").await, Some(a));
        assert!(release(&rig, a, "ann").await.unwrap());
        assert!(!release(&rig, a, "ann").await.unwrap());
        assert_eq!(owner(&rig, "ann").await, None);
        claim(&rig, b, "ann").await.unwrap();
        rig.restart().await;
        assert_eq!(owner(&rig, "ann").await, Some(b));
        assert_eq!(owner(&rig, "bob").await, Some(b));
        assert_eq!(load(&rig, b).await.account.aliases.len(), 2);
        assert!(load(&rig, a).await.account.aliases.is_empty());
    }
}

#[tokio::test]
async fn an_account_may_be_created_with_an_alias() {
    let mut rig = Rig::new().await;
    let id = AccountId([9; 16]);
    let mut new = account(id);
    new.add_alias(alias(&rig, "ann").await);
    rig.ledger()
        .create(new, &[], claiming(Vec::new()))
        .await
        .unwrap();
    rig.restart().await;
    assert_eq!(owner(&rig, "ann").await, Some(id));
}

#[tokio::test]
async fn of_two_claims_in_one_batch_exactly_one_wins() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    let same = alias(&rig, "ann").await;
    let (first, second) = (load(&rig, a).await, load(&rig, b).await);
    let (won, lost) = tokio::join!(
        biased;
        rig.ledger().commit(first, claiming(vec![same.clone()])),
        rig.ledger().commit(second, claiming(vec![alias(&rig, "bob").await, same])),
    );
    won.unwrap();
    assert!(matches!(lost, Err(LedgerError::AliasTaken)), "{lost:?}");
    rig.restart().await;
    assert_eq!(owner(&rig, "ann").await, Some(a));
    // The whole change was refused, its event and its other alias too.
    assert_eq!(owner(&rig, "bob").await, None);
    assert_eq!(load(&rig, b).await.account.trail.count, 1);
}

#[tokio::test]
async fn an_alias_given_up_and_taken_back_in_one_batch_stays_and_is_nobody_elses() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    claim(&rig, a, "ann").await.unwrap();
    let (same, own) = (alias(&rig, "ann").await, load(&rig, a).await);
    let gone = name("ann");
    let (dropped, lost, back) = tokio::join!(
        biased;
        rig.ledger().commit(own.clone(), move |account, _, _| {
            Ok::<_, LedgerError>(account.drop_alias(&gone))
        }),
        rig.ledger().commit(load(&rig, b).await, claiming(vec![same.clone()])),
        rig.ledger().commit(own, claiming(vec![same])),
    );
    assert!(dropped.unwrap().0);
    assert!(matches!(lost, Err(LedgerError::AliasTaken)), "{lost:?}");
    back.unwrap();
    rig.restart().await;
    assert_eq!(owner(&rig, "ann").await, Some(a));
    assert!(release(&rig, a, "ann").await.unwrap());
    assert_eq!(owner(&rig, "ann").await, None);
}

#[tokio::test]
async fn an_account_has_a_bounded_number_of_aliases() {
    let rig = Rig::new().await;
    let [a, _] = rig.accounts;
    let mut aliases = Vec::new();
    for number in 0..=crate::account::MAX_ALIASES {
        aliases.push(alias(&rig, &format!("ann-{number}")).await);
    }
    let most = aliases[1..].to_vec();
    let refused = rig
        .ledger()
        .commit(load(&rig, a).await, claiming(aliases))
        .await;
    assert!(matches!(refused, Err(LedgerError::TooLarge)), "{refused:?}");
    rig.ledger()
        .commit(load(&rig, a).await, claiming(most))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_alias_that_does_not_seal_fails_its_account_alone() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    let names = [alias(&rig, "ann").await, alias(&rig, "bob").await];
    let (first, second) = (load(&rig, a).await, load(&rig, b).await);
    // The second record that is sealed is the alias of whoever is first.
    rig.refuse_derivation(2);
    let [ann, bob] = names;
    let (won, lost) = tokio::join!(
        rig.ledger().commit(first, claiming(vec![ann])),
        rig.ledger().commit(second, claiming(vec![bob])),
    );
    assert_eq!(
        [won.is_ok(), lost.is_ok()].iter().filter(|ok| **ok).count(),
        1
    );
    rig.restart().await;
    assert_eq!(owner(&rig, "ann").await.is_some(), won.is_ok());
    assert_eq!(owner(&rig, "bob").await.is_some(), lost.is_ok());
}

#[tokio::test]
async fn whatever_fails_an_alias_is_where_the_answer_said() {
    for commits in [
        vec![Commit::Lost, Commit::Honest],
        vec![Commit::AnswerLost],
        vec![Commit::Full; 5],
        [&[Commit::AnswerLost][..], &[Commit::Full; 8]].concat(),
        vec![Commit::Lost; 5],
    ] {
        for claims in [true, false] {
            let mut rig = Rig::new().await;
            rig.cache = 1 << 20;
            rig.restart().await;
            let [a, _] = rig.accounts;
            if !claims {
                claim(&rig, a, "ann").await.unwrap();
            }
            rig.script(Script::new(&commits, &[false; 5], &[]));
            let answer = if claims {
                claim(&rig, a, "ann").await
            } else {
                release(&rig, a, "ann").await.map(drop)
            };
            let expected = match answer {
                Ok(()) => Some(claims),
                Err(LedgerError::Store(_)) => Some(!claims),
                Err(LedgerError::Stopped) => None,
                Err(error) => panic!("{error:?}"),
            };
            rig.script(Script::default());
            rig.restart().await;
            let found = owner(&rig, "ann").await.is_some();
            assert!(expected.is_none_or(|held| held == found), "{commits:?}");
            // Envelope and record never part.
            let listed = load(&rig, a).await.account.alias(&name("ann")).is_some();
            assert_eq!(listed, found, "{commits:?}");
        }
    }
}

#[tokio::test]
async fn an_absent_alias_costs_the_token_what_a_known_one_does() {
    let rig = Rig::new().await;
    let [a, _] = rig.accounts;
    claim(&rig, a, "ann").await.unwrap();
    let before = rig.token_work();
    assert!(owner(&rig, "ann").await.is_some());
    let known = rig.token_work() - before;
    assert!(owner(&rig, "bob").await.is_none());
    assert_eq!(rig.token_work() - before, 2 * known);
    assert_eq!(known, 4);
}

/// Rows of the records and lists of everything, as an administrator may keep and put back.
#[tokio::test]
async fn what_an_administrator_does_to_an_alias_is_noticed() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    claim(&rig, a, "ann").await.unwrap();
    claim(&rig, b, "bob").await.unwrap();
    let (ann, bob) = (alias(&rig, "ann").await, alias(&rig, "bob").await);
    let (row, of) = (rig.row(ann.record()).await, rig.row(bob.record()).await);
    let tampered = |found: Result<Option<Loaded>, LedgerError>| {
        assert!(matches!(found, Err(LedgerError::Tampered(_))), "{found:?}");
    };
    let find = |text: &'static str| (app(), name(text));

    // Deleted; written back, it serves again: the control of all of these.
    rig.sql("DELETE FROM records WHERE id = ?", ann.record())
        .await;
    let (app, wanted) = find("ann");
    tampered(rig.ledger().find_alias(&app, &wanted).await);
    // Deleted with its entry in the list: the name looks free, until its account moves.
    rig.put_row(ann.record(), &row).await;
    assert_eq!(owner(&rig, "ann").await, Some(a));
    let list = rig.unlist(ann.record()).await;
    tampered(rig.ledger().find_alias(&app, &wanted).await);
    rig.sql("DELETE FROM records WHERE id = ?", ann.record())
        .await;
    let gone = release(&rig, a, "ann").await;
    assert!(matches!(gone, Err(LedgerError::Tampered(_))), "{gone:?}");
    rig.put_row(ann.record(), &row).await;
    rig.put_list(ann.record(), &list).await;
    assert_eq!(owner(&rig, "ann").await, Some(a));
    // Another alias's content in its place, vouched for in the list.
    rig.put_row(ann.record(), &of).await;
    rig.vouch(ann.record(), &of).await;
    tampered(rig.ledger().find_alias(&app, &wanted).await);
    rig.put_row(ann.record(), &row).await;
    rig.put_list(ann.record(), &list).await;
    // Inserted again after it was given up and another has it: an old record leads to an account
    // that does not list it.
    assert!(release(&rig, a, "ann").await.unwrap());
    claim(&rig, b, "ann").await.unwrap();
    assert_eq!(owner(&rig, "ann").await, Some(b));
    let newer = rig.row(ann.record()).await;
    rig.put_row(ann.record(), &row).await;
    rig.vouch(ann.record(), &row).await;
    tampered(rig.ledger().find_alias(&app, &wanted).await);
    rig.put_row(ann.record(), &newer).await;
    rig.vouch(ann.record(), &newer).await;
    assert_eq!(owner(&rig, "ann").await, Some(b));
    // Nobody else was harmed.
    assert_eq!(owner(&rig, "bob").await, Some(b));
    rig.one(a).await.unwrap();
}

#[tokio::test]
async fn a_record_of_one_kind_is_not_taken_for_another() {
    let rig = Rig::new().await;
    let [a, _] = rig.accounts;
    claim(&rig, a, "ann").await.unwrap();
    let ann = alias(&rig, "ann").await;
    let forged = Alias::new(name("eve"), *load(&rig, a).await.record(), Timestamp(1));
    let refused = rig
        .ledger()
        .commit(load(&rig, a).await, claiming(vec![forged]))
        .await;
    assert!(
        matches!(refused, Err(LedgerError::AliasTaken)),
        "{refused:?}"
    );
    rig.change_kind(ann.record(), 1).await;
    let found = rig.ledger().find_alias(&app(), &name("ann")).await;
    assert!(matches!(found, Err(LedgerError::Tampered(_))), "{found:?}");
    rig.change_kind(ann.record(), 2).await;
    assert_eq!(owner(&rig, "ann").await, Some(a));
}
