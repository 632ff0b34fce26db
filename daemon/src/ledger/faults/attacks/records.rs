//! Attacks on records, aliases, tombstones and member lists, while the daemon runs.

use std::sync::Arc;

use custodyd_hsm::{AccountId, RecordId, RecordKind, seal};

use super::{BUDGET, Rig, Weakness, app, creating, is_exhausted, is_tampered, strong};
use crate::ledger::faults::names::{claim, name};
use crate::ledger::faults::rig::account;
use crate::ledger::faults::tables::{ALL, MEMBERS, RECORDS, Tables};
use crate::ledger::members::{Member, MemberList};
use crate::ledger::{BUCKET_BITS, LedgerError};
use crate::store::admin::Cell;

/// Whom an attack is about.
#[derive(Clone, Copy, Debug)]
enum About {
    Victim,
    Erased,
    Nobody,
    Alias,
    NoAlias,
}

struct Attack(&'static str, About, Tables);

struct Scene {
    rig: Rig,
    erased: AccountId,
    nobody: AccountId,
    victim: RecordId,
    other: RecordId,
    stone: RecordId,
    absent: RecordId,
    alias: RecordId,
    others_alias: RecordId,
    no_alias: RecordId,
    wallet: RecordId,
    /// The victim has guessed once; the erased one lives.
    old: Tables,
    /// The victim has no guess left.
    newest: Tables,
}

fn bytes(id: &RecordId) -> Cell {
    Cell::Bytes(id.as_bytes().as_slice().into())
}

fn bucket(id: &RecordId) -> Cell {
    Cell::Number(id.bucket(BUCKET_BITS).into())
}

fn row(tables: &Tables, id: &RecordId) -> (i64, Arc<[u8]>) {
    match tables.row(RECORDS, &[bytes(id)]).unwrap().as_slice() {
        [_, Cell::Number(generation), Cell::Bytes(sealed)] => (*generation, Arc::clone(sealed)),
        other => panic!("{other:?}"),
    }
}

fn list(tables: &Tables, id: &RecordId) -> MemberList {
    match tables.row(MEMBERS, &[bucket(id)]).map(Vec::as_slice) {
        Some([_, Cell::Bytes(list)]) => MemberList::parse(list).unwrap(),
        None => MemberList::default(),
        other => panic!("{other:?}"),
    }
}

fn with_row(mut tables: Tables, id: &RecordId, generation: i64, sealed: &[u8]) -> Tables {
    let row = vec![
        bytes(id),
        Cell::Number(generation),
        Cell::Bytes(sealed.into()),
    ];
    tables.put(RECORDS, row);
    tables
}

fn with_list(mut tables: Tables, id: &RecordId, list: &[u8]) -> Tables {
    tables.put(MEMBERS, vec![bucket(id), Cell::Bytes(list.into())]);
    tables
}

/// A list that says that the record has this content.
fn vouched(
    tables: Tables,
    id: &RecordId,
    kind: RecordKind,
    generation: i64,
    sealed: &[u8],
) -> Tables {
    let mut list = list(&tables, id);
    list.put(Member {
        kind,
        id: *id,
        generation: u64::try_from(generation).unwrap_or(u64::MAX),
        digest: seal::digest(sealed),
    });
    let tables = with_list(tables, id, &list.encode());
    with_row(tables, id, generation, sealed)
}

/// Row and list as they were in `from`.
fn restored(tables: Tables, from: &Tables, id: &RecordId) -> Tables {
    let (generation, sealed) = row(from, id);
    let tables = with_list(tables, id, &list(from, id).encode());
    with_row(tables, id, generation, &sealed)
}

fn without(mut tables: Tables, id: &RecordId, row: bool, entry: bool) -> Tables {
    if row {
        tables.remove(RECORDS, &[bytes(id)]);
    }
    if entry {
        let mut list = list(&tables, id);
        list.remove(id);
        tables = with_list(tables, id, &list.encode());
    }
    tables
}

impl Scene {
    async fn new() -> Self {
        let mut rig = Rig::new().await;
        rig.start(strong()).await.unwrap();
        let [a, b] = rig.accounts;
        let (erased, nobody) = (AccountId([3; 16]), AccountId([4; 16]));
        rig.create(erased).await;
        let foreign = custodyd_hsm::AppId::parse("wallet").unwrap();
        let mut there = account(a);
        there.app = foreign.clone();
        rig.ledger().create(there, &[], creating).await.unwrap();
        claim(&rig, a, "ann").await.unwrap();
        claim(&rig, b, "bob").await.unwrap();
        rig.guess(a).await.unwrap();
        let old = rig.tables().await;
        for _ in 1..BUDGET {
            rig.guess(a).await.unwrap();
        }
        rig.erase(erased).await.unwrap();
        let reader = &rig.ledger().reader;
        let wallet = reader.record_id(&foreign, a).await.unwrap();
        Self {
            victim: rig.record(a).await,
            other: rig.record(b).await,
            stone: rig.record(erased).await,
            absent: rig.record(nobody).await,
            alias: rig.alias_record("ann").await,
            others_alias: rig.alias_record("bob").await,
            no_alias: rig.alias_record("eve").await,
            newest: rig.tables().await,
            wallet,
            erased,
            nobody,
            old,
            rig,
        }
    }

    /// What is answered about whom.
    async fn probe(&self, about: About) -> Result<String, LedgerError> {
        let [a, _] = self.rig.accounts;
        let said = |of: Option<u64>| format!("{of:?}");
        match about {
            About::Victim => self.rig.charged(a).await.map(said),
            About::Erased => self.rig.charged(self.erased).await.map(said),
            About::Nobody => self.rig.charged(self.nobody).await.map(said),
            About::Alias => Ok(format!("{:?}", self.rig.found("ann").await?)),
            About::NoAlias => Ok(format!("{:?}", self.rig.found("eve").await?)),
        }
    }

    fn blobs(&self) -> Vec<Attack> {
        use About::Victim;
        let newest = || self.newest.clone();
        let id = &self.victim;
        let (generation, sealed) = row(&self.newest, id);
        let (old_generation, old) = row(&self.old, id);
        let set = |sealed: &[u8]| with_row(newest(), id, generation, sealed);
        let vouch = |generation, sealed: &[u8]| {
            vouched(newest(), id, RecordKind::Account, generation, sealed)
        };
        let mut attacks = vec![
            Attack("cut", Victim, set(&sealed[..sealed.len() - 1])),
            Attack("extended", Victim, set(&[&sealed[..], &[0]].concat())),
            Attack("emptied", Victim, set(&[])),
            Attack("larger than any", Victim, set(&vec![0; 4 << 20])),
            Attack("deleted", Victim, without(newest(), id, true, false)),
            Attack("unlisted", Victim, without(newest(), id, false, true)),
            Attack("hidden", Victim, without(newest(), id, true, true)),
            Attack(
                "old row",
                Victim,
                with_row(newest(), id, old_generation, &old),
            ),
            Attack("old blob", Victim, set(&old)),
            Attack(
                "old blob under the new number",
                Victim,
                vouch(generation, &old),
            ),
            Attack("old version", Victim, restored(newest(), &self.old, id)),
            Attack(
                "forged number",
                Victim,
                with_row(newest(), id, generation + 1, &sealed),
            ),
            Attack(
                "forged and vouched number",
                Victim,
                vouch(generation + 1, &sealed),
            ),
            Attack(
                "negative number",
                Victim,
                with_row(newest(), id, -1, &sealed),
            ),
            Attack(
                "huge number",
                Victim,
                with_row(newest(), id, i64::MAX, &sealed),
            ),
        ];
        for at in (0..64).chain(sealed.len() - 16..sealed.len()) {
            let mut flipped = sealed.to_vec();
            flipped[at] ^= 1 << (at % 8);
            attacks.push(Attack("flipped", Victim, set(&flipped)));
            attacks.push(Attack(
                "flipped and vouched",
                Victim,
                vouch(generation, &flipped),
            ));
        }
        for (name, from) in [
            ("another account's", self.other),
            ("another app's", self.wallet),
            ("an alias's", self.alias),
            ("a tombstone's", self.stone),
        ] {
            let (generation, sealed) = row(&self.newest, &from);
            attacks.push(Attack(
                name,
                Victim,
                with_row(newest(), id, generation, &sealed),
            ));
            attacks.push(Attack(name, Victim, vouch(generation, &sealed)));
        }
        attacks
    }

    fn lists(&self) -> Vec<Attack> {
        use About::Victim;
        let newest = || self.newest.clone();
        let id = &self.victim;
        let encoded = list(&self.newest, id).encode();
        let set = |list: &[u8]| with_list(newest(), id, list);
        let mut twice = encoded.clone();
        twice.extend_from_slice(&encoded[8..]);
        let count = (twice.len() - 8) / 73;
        twice[4..8].copy_from_slice(&u32::try_from(count).unwrap().to_be_bytes());
        let mut gone = newest();
        gone.remove(MEMBERS, &[bucket(id)]);
        let moved = {
            let mut list = list(&self.newest, &self.other);
            list.put(*self::list(&self.newest, id).get(id).unwrap());
            let tables = with_list(newest(), &self.other, &list.encode());
            without(tables, id, false, true)
        };
        let other = list(&self.newest, &self.other).encode();
        let mut attacks = vec![
            Attack("list gone", Victim, gone),
            Attack("list emptied", Victim, set(MemberList::EMPTY)),
            Attack("list of nothing", Victim, set(&[])),
            Attack("listed twice", Victim, set(&twice)),
            Attack("another bucket's list", Victim, set(&other)),
            Attack("old list", Victim, set(&list(&self.old, id).encode())),
            Attack("listed in another bucket", Victim, moved),
            Attack("list larger than any", Victim, set(&vec![0; 5 << 20])),
        ];
        for kind in [RecordKind::Realm, RecordKind::Alias, RecordKind::Tombstone] {
            let mut list = list(&self.newest, id);
            let member = *list.get(id).unwrap();
            list.put(Member { kind, ..member });
            attacks.push(Attack("of another kind", Victim, set(&list.encode())));
        }
        for at in 0..encoded.len() {
            let mut flipped = encoded.clone();
            flipped[at] ^= 0x11;
            attacks.push(Attack("flipped list", Victim, set(&flipped)));
        }
        attacks
    }

    fn others(&self) -> Vec<Attack> {
        use About::{Alias, Erased, NoAlias, Nobody};
        let newest = || self.newest.clone();
        let copy = |to: &RecordId, kind, from: &RecordId| {
            let (generation, sealed) = row(&self.newest, from);
            vouched(newest(), to, kind, generation, &sealed)
        };
        let (alias, stone) = (&self.alias, &self.stone);
        let account = RecordKind::Account;
        vec![
            Attack(
                "stone taken away",
                Erased,
                without(newest(), stone, true, true),
            ),
            Attack(
                "stone's row taken away",
                Erased,
                without(newest(), stone, true, false),
            ),
            Attack("raised", Erased, restored(newest(), &self.old, stone)),
            Attack("replaced", Erased, copy(stone, account, &self.other)),
            Attack(
                "pre-created",
                Nobody,
                copy(&self.absent, account, &self.other),
            ),
            Attack("pre-created row", Nobody, {
                let (generation, sealed) = row(&self.newest, &self.other);
                with_row(newest(), &self.absent, generation, &sealed)
            }),
            Attack(
                "pre-erased",
                Nobody,
                copy(&self.absent, RecordKind::Tombstone, stone),
            ),
            Attack(
                "alias deleted",
                Alias,
                without(newest(), alias, true, false),
            ),
            Attack("alias hidden", Alias, without(newest(), alias, true, true)),
            Attack(
                "repointed",
                Alias,
                copy(alias, RecordKind::Alias, &self.others_alias),
            ),
            Attack(
                "inserted",
                NoAlias,
                copy(&self.no_alias, RecordKind::Alias, alias),
            ),
        ]
    }

    fn all(&self) -> Vec<Attack> {
        let mut all = self.blobs();
        all.extend(self.lists());
        all.extend(self.others());
        all
    }
}

/// Each is refused, and once it is undone all is served as before.
#[tokio::test]
async fn no_row_and_no_list_can_be_anything_but_the_newest() {
    let scene = Scene::new().await;
    let mut honest = Vec::new();
    for about in [
        About::Victim,
        About::Erased,
        About::Nobody,
        About::Alias,
        About::NoAlias,
    ] {
        honest.push((about, scene.probe(about).await.unwrap()));
    }
    let attacks = scene.all();
    assert!(attacks.len() > 250, "{}", attacks.len());
    for Attack(name, about, tables) in attacks {
        scene.rig.put(&tables, &[RECORDS, MEMBERS]).await;
        let answer = scene.probe(about).await;
        assert!(is_tampered(&answer), "{name}: {answer:?}");
        // And nothing is written upon it: neither to the victim nor beside it.
        if matches!(about, About::Victim) {
            let answer = scene.rig.guess(scene.rig.accounts[0]).await;
            assert!(is_tampered(&answer), "{name}: {answer:?}");
        }
    }
    scene.rig.put(&scene.newest, &ALL).await;
    for (about, said) in honest {
        assert_eq!(scene.probe(about).await.unwrap(), said);
    }
    assert!(is_exhausted(&scene.rig.guess(scene.rig.accounts[0]).await));
}

/// The seal is a defence of its own: with any list believed, only what was whole once is served.
#[tokio::test]
async fn without_the_state_tree_only_what_was_honest_once_succeeds() {
    let mut scene = Scene::new().await;
    let any_list = Weakness {
        any_list: true,
        ..strong()
    };
    scene.rig.start(any_list).await.unwrap();
    scene.newest = scene.rig.tables().await;
    let mut succeeded = Vec::new();
    for Attack(name, about, tables) in scene.all() {
        scene.rig.put(&tables, &[RECORDS, MEMBERS]).await;
        if let Ok(answer) = scene.probe(about).await {
            succeeded.push((name, answer));
        }
    }
    let said = |text: &str| text.to_owned();
    let expected = vec![
        ("hidden", said("None")),
        ("old version", said("Some(1)")),
        ("stone taken away", said("None")),
        ("raised", said("Some(0)")),
        ("alias hidden", said("None")),
    ];
    assert_eq!(succeeded, expected);
    // The guesses come back, and a name can be squatted.
    let [a, b] = scene.rig.accounts;
    let tables = restored(scene.newest.clone(), &scene.old, &scene.victim);
    scene.rig.put(&tables, &[RECORDS, MEMBERS]).await;
    assert_eq!(scene.rig.guess(a).await.unwrap(), 2);
    let tables = without(scene.newest.clone(), &scene.alias, true, true);
    scene.rig.put(&tables, &[RECORDS, MEMBERS]).await;
    claim(&scene.rig, b, "ann").await.unwrap();
}

/// Two contents of one number exist once a batch was given up before it was anchored. Only the
/// digest in the list tells them apart.
#[tokio::test]
async fn a_content_that_was_given_up_is_not_taken_for_the_one_of_its_number() {
    for weak in [false, true] {
        let mut rig = Rig::new().await;
        let any_content = weak;
        rig.start(Weakness {
            any_content,
            ..strong()
        })
        .await
        .unwrap();
        let [a, _] = rig.accounts;
        for _ in 0..2 {
            rig.guess(a).await.unwrap();
        }
        let before = rig.tables().await;
        rig.anchoring(&[super::super::broken::Anchor::Lost; 3]);
        rig.succeed(a).await.unwrap_err();
        let given_up = rig.tables().await;
        rig.anchoring(&[]);
        rig.start_upon(
            &before,
            Weakness {
                any_content,
                ..strong()
            },
        )
        .await
        .unwrap();
        assert_eq!(rig.guess(a).await.unwrap(), 3);
        let id = rig.record(a).await;
        let (generation, sealed) = row(&given_up, &id);
        assert_eq!(row(&rig.tables().await, &id).0, generation);
        let tables = with_row(rig.tables().await, &id, generation, &sealed);
        rig.put(&tables, &[RECORDS]).await;
        let answer = rig.guess(a).await;
        // Control: it brings all guesses back.
        if weak {
            assert_eq!(answer.unwrap(), 1);
        } else {
            assert!(is_tampered(&answer), "{answer:?}");
        }
    }
}

/// An alias that was given up is squatted by nobody who only has its old record.
#[tokio::test]
async fn an_alias_that_was_given_up_does_not_lead_back() {
    for any_list in [false, true] {
        let mut rig = Rig::new().await;
        rig.start(Weakness {
            any_list,
            ..strong()
        })
        .await
        .unwrap();
        let [a, b] = rig.accounts;
        claim(&rig, a, "ann").await.unwrap();
        let old = rig.tables().await;
        let loaded = rig.ledger().load(&app(), a).await.unwrap().unwrap();
        let dropped = rig.ledger().commit(loaded, |account, _, _| {
            account.drop_alias(&name("ann"));
            Ok::<_, LedgerError>(())
        });
        dropped.await.unwrap();
        claim(&rig, b, "ann").await.unwrap();
        let id = rig.alias_record("ann").await;
        rig.put(
            &restored(rig.tables().await, &old, &id),
            &[RECORDS, MEMBERS],
        )
        .await;
        // Without the tree it is the account that says that it has no such alias.
        let answer = rig.found("ann").await;
        assert!(is_tampered(&answer), "{answer:?}");
        // Its old envelope with it: then, and only then, it leads back.
        let of = rig.record(a).await;
        let tables = restored(rig.tables().await, &old, &of);
        rig.put(&tables, &[RECORDS, MEMBERS]).await;
        let answer = rig.found("ann").await;
        if any_list {
            assert_eq!(answer.unwrap(), Some(a));
        } else {
            assert!(is_tampered(&answer), "{answer:?}");
        }
    }
}
