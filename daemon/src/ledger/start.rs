//! Starting: from what the database shows to what is believed.
//!
//! Called once, by `startup`, before anything is served. The token says which head was the
//! newest when something was last released; the head that the database shows must be that one or
//! descend from it, and everything else must hash to what the head says. Caches that do not are
//! built anew from the tables that do, and the log says so. Nothing is written here: what has to
//! be mended is returned, and the boot batch writes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::{Pool, RealmName};
use tlog_tiles::{Hash, record_hash};

use super::anchoring::{Anchoring, Mode};
use super::head::Head;
use super::log::{LogEnd, StateLeaf, TILE, TileRow, may_be_gone};
use super::members::MemberList;
use super::memory::Believed;
use super::memory::Memory;
use super::queue::queue;
use super::tree::{BUCKETS, Digest, StateTree, bucket_digest};
use super::{Cache, Committer, Ledger, LedgerError, QUEUE, Reader, keys, realm};
use crate::clock::Clock;
use crate::store::{HeadRow, Store, steps};

/// Entries that are read at a time where all of them are.
const CHUNK: u64 = 512;
/// How often a start waits for its turn among other nodes, some seconds each.
const TURNS: u32 = 8;
/// How often a start that verifies for long says that it is there: a turn in which nobody says anything is ended.
const RENEWAL: Duration = Duration::from_secs(5);

/// A database that was found to be what the token says it must be.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) believed: Believed,
    /// Caches that contradicted the tables they were made from, and what they must hold.
    pub(crate) repairs: Repairs,
}

#[derive(Debug, Default)]
pub(crate) struct Repairs {
    pub(crate) what: Vec<String>,
    pub(crate) digests: BTreeMap<u32, Digest>,
    pub(crate) tiles: Vec<TileRow>,
}

/// What the ledger is opened with.
#[derive(Debug)]
pub struct Settings<'a> {
    pub cache: Cache,
    pub mode: Mode<'a>,
    /// Digest of the policies that decisions will be made under.
    pub configuration: Digest,
    /// Whether checkpoints carry the Ed25519 line, once the realm has a key for it.
    pub public_log: bool,
    /// Whether the configuration says that custodians can bring the keys back.
    pub escrowed: bool,
}

/// A realm that was believed, and has logged that it serves.
#[derive(Debug)]
pub struct Opened {
    pub reader: Arc<Reader>,
    pub committer: Committer,
}

impl Opened {
    /// The handle that services hold, and what writes for it until the last of them is gone.
    pub fn serve(
        self,
        clock: Arc<Clock>,
    ) -> (
        Ledger,
        impl Future<Output = Result<(), LedgerError>> + Send + 'static,
    ) {
        let (changes, queue) = queue(QUEUE);
        let ledger = Ledger::new(self.reader, changes, clock);
        (ledger, self.committer.run(queue))
    }
}

/// Believes the database, or says why not; then logs that this daemon took over, and anchors that.
///
/// # Errors
/// As `find`; `Store` and `Token` where the boot batch can not be written or anchored.
pub async fn open(
    store: &Arc<dyn Store>,
    pool: &Pool,
    name: &RealmName,
    clock: &Arc<Clock>,
    settings: Settings<'_>,
) -> Result<Opened, LedgerError> {
    // Before the turn: whoever has one has the tables, too, and would wait for the others, who wait for it.
    if !steps::all().is_empty() && Head::read(store, pool, name).await?.state.is_older() {
        store.extend().await?;
    }
    let believing = believed(store, pool, name, clock, settings);
    let (mut committer, repairs) = match store.is_shared() {
        // The database stands still until the boot batch is written, or the store closed. That is written upon this head or not
        // at all, and told of only once no anchor contradicts it: so it needs no turn that is renewed.
        true => in_turn(store, believing).await?,
        false => believing.await?,
    };
    committer.boot(repairs).await?;
    Ok(Opened {
        reader: Arc::clone(committer.reader()),
        committer,
    })
}

/// Who writes, once everything is verified that the boot batch is written upon; and what that has to mend.
async fn believed(
    store: &Arc<dyn Store>,
    pool: &Pool,
    name: &RealmName,
    clock: &Arc<Clock>,
    settings: Settings<'_>,
) -> Result<(Committer, Repairs), LedgerError> {
    let found = find(store, pool, name).await?;
    clock.heard(found.believed.head.state.time);
    clock.committed(found.believed.head.state.time);
    let believed = &found.believed;
    let mut anchoring = Anchoring::begin(pool, name, settings.mode, store, believed).await?;
    anchoring.refuse_laggards()?;
    let boot_epoch = anchoring.boot_epoch(store, believed).await?;
    let memory = Memory::new(found.believed, boot_epoch);
    memory.decides_under(settings.configuration);
    let reader = Reader::new(
        Arc::clone(store),
        pool.clone(),
        name.clone(),
        settings.cache,
        memory,
        Arc::clone(clock),
    );
    let reader = Arc::new(reader.of_a_public_log(settings.public_log));
    realm::check(&reader, Some(settings.escrowed)).await?;
    let committer = Committer::new(reader, Arc::clone(clock), anchoring);
    Ok((committer, found.repairs))
}

/// Other nodes may write, or start.
async fn its_turn(store: &Arc<dyn Store>) -> Result<Option<HeadRow>, LedgerError> {
    let mut tries = TURNS;
    loop {
        tries -= 1;
        match store.take_turn().await {
            Ok(shown) => return Ok(shown.examine()),
            Err(error) if tries == 0 => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "another node writes for long; waiting"),
        }
    }
}

/// Verifies while no other node writes. Where caches have to be built anew that takes long, and whoever asks another node
/// for a change is told to come again: what is verified on a database that moves would fit no head of it.
async fn in_turn<T>(
    store: &Arc<dyn Store>,
    verifying: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    let began = its_turn(store).await?;
    let mut verifying = std::pin::pin!(verifying);
    loop {
        tokio::select! {
            biased;
            verified = &mut verifying => return verified,
            () = tokio::time::sleep(RENEWAL) => {}
        }
        #[cfg(test)]
        if store.weakness().lapses {
            continue;
        }
        // Where the server has ended it, this is another one.
        if store.take_turn().await?.examine() != began {
            return Err(LedgerError::Refused(
                "the server ended this start's turn at writing while it verified the database, and another node has \
                 written since: start it again"
                    .into(),
            ));
        }
    }
}

/// Verifies the database against the token, and changes nothing.
///
/// # Errors
/// As `find`.
pub async fn check(
    store: &Arc<dyn Store>,
    pool: &Pool,
    name: &RealmName,
    mode: Mode<'_>,
    escrowed: bool,
) -> Result<(), LedgerError> {
    let memory = Memory::new(believe(store, pool, name, mode).await?, 0);
    let reader = Reader::new(
        Arc::clone(store),
        pool.clone(),
        name.clone(),
        Cache::new(0),
        memory,
        Arc::default(),
    );
    realm::check(&reader, Some(escrowed)).await
}

/// What a start would believe, by the token and by what this host remembers.
///
/// # Errors
/// As `find`; `Refused` and `Tampered` where it is not what the token has anchored.
pub(super) async fn believe(
    store: &Arc<dyn Store>,
    pool: &Pool,
    name: &RealmName,
    mode: Mode<'_>,
) -> Result<Believed, LedgerError> {
    let believed = find(store, pool, name).await?.believed;
    let anchoring = Anchoring::begin(pool, name, mode, store, &believed).await?;
    anchoring.warm(store, &believed).await?;
    Ok(believed)
}

/// Verifies the database by its own head. Whether that is the newest, `Anchoring::begin` says.
///
/// # Errors
/// `Tampered` names what contradicts what; `Refused` as `keys::hold`; `Store` and `Token` where they do not answer.
pub(crate) async fn find(
    store: &Arc<dyn Store>,
    pool: &Pool,
    realm: &RealmName,
) -> Result<Found, LedgerError> {
    let head = Head::read(store, pool, realm).await?;
    is_ours(store, &head).await?;
    keys::hold(pool, &head).await?;
    let mut repairs = Repairs::default();
    let end = log(store, &head, &mut repairs).await?;
    let tree = state(store, &head, &mut repairs).await?;
    let believed = Believed { head, tree, end };
    for what in &repairs.what {
        tracing::error!(
            what,
            "a cache contradicted what it was made from; it is built anew"
        );
        metrics::counter!("custodyd_tampered_total").increment(1);
    }
    Ok(Found { believed, repairs })
}

/// What this custodyd does not know may stand there by the word of a head alone.
async fn is_ours(store: &Arc<dyn Store>, head: &Head) -> Result<(), LedgerError> {
    #[cfg(test)]
    if store.weakness().schema.is_some() {
        return Ok(());
    }
    let further = store.further().await?.examine();
    if further.is_empty() || head.state.is_extended() {
        return Ok(());
    }
    Err(LedgerError::Refused(format!(
        "the schema custodyd holds something that custodyd did not make: {:.300}. A newer custodyd that adds to the tables \
         says so in the head, and this one says schema {}: look for who made it, or start the newer version",
        further.join("; "),
        head.state.schema
    )))
}

/// The edge of the log that the head names, from its tiles or else from all of its entries.
async fn log(
    store: &Arc<dyn Store>,
    head: &Head,
    repairs: &mut Repairs,
) -> Result<LogEnd, LedgerError> {
    let end = match edge(store, head.size).await? {
        Some(end) if end.root() == head.log_root => end,
        #[cfg(test)]
        Some(end) if store.weakness().any_log => end,
        _ => {
            let mut end = LogEnd::default();
            while end.size() < head.size {
                let leaves = leaves(store, end.size(), CHUNK.min(head.size - end.size())).await?;
                for leaf in leaves {
                    end.append(&leaf);
                }
            }
            if end.root() != head.log_root {
                return Err(LedgerError::Tampered(format!(
                    "the log's {} entries are not those that the head names",
                    head.size
                )));
            }
            repairs.what.push("tiles of the log".into());
            repairs.tiles = end.take_rows();
            repairs
                .tiles
                .retain(|row| !may_be_gone(head.size, row.level, row.index));
            end
        }
    };
    last_leaf(store, head).await?;
    Ok(end)
}

/// The last entry must say of the state what the head says.
async fn last_leaf(store: &Arc<dyn Store>, head: &Head) -> Result<(), LedgerError> {
    let Some(at) = head.size.checked_sub(1) else {
        return Err(LedgerError::Tampered("the head names an empty log".into()));
    };
    let leaf = leaves(store, at, 1).await?;
    match leaf.first().and_then(|leaf| StateLeaf::parse(leaf)) {
        Some(leaf) if leaf.state == head.state && leaf.size == at => Ok(()),
        _ => Err(LedgerError::Tampered(format!(
            "log entry {at}: it is not the state that the head names"
        ))),
    }
}

/// Entries of the log, none missing. Not verified yet.
pub(super) async fn leaves(
    store: &Arc<dyn Store>,
    from: u64,
    count: u64,
) -> Result<Vec<Vec<u8>>, LedgerError> {
    let rows = store.leaves(from, count).await?.examine();
    let mut leaves = Vec::with_capacity(rows.len());
    for (expected, (index, leaf)) in (from..).zip(rows) {
        if index != expected {
            break;
        }
        leaves.push(leaf);
    }
    if leaves.len() as u64 == count {
        Ok(leaves)
    } else {
        let missing = from.saturating_add(leaves.len() as u64);
        Err(LedgerError::Tampered(format!(
            "log entry {missing}: is missing"
        )))
    }
}

/// The log's edge as the cached tiles have it; `None` where they can not be right.
async fn edge(store: &Arc<dyn Store>, size: u64) -> Result<Option<LogEnd>, LedgerError> {
    let tile = TILE as u64;
    let newest = size % tile;
    let mut open: Vec<Vec<Hash>> = vec![
        leaves(store, size - newest, newest)
            .await?
            .iter()
            .map(|leaf| record_hash(leaf))
            .collect(),
    ];
    let mut wanted = Vec::new();
    for level in 1u8.. {
        let count = size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        if count == 0 {
            break;
        }
        wanted.push((level, count / tile, count % tile));
    }
    let rows: Vec<(u8, u64)> = wanted
        .iter()
        .filter(|(.., width)| *width > 0)
        .map(|(level, index, _)| (*level, *index))
        .collect();
    let rows = store.tiles(&rows).await?.examine();
    for (level, index, width) in wanted {
        let row = rows
            .iter()
            .find(|row| row.level == level && row.index == index);
        let hashes = row.map_or(&[][..], |row| row.data.as_chunks::<32>().0);
        let hashes: Vec<Hash> = hashes.iter().map(|hash| Hash(*hash)).collect();
        if width > 0 && hashes.len() as u64 != width {
            return Ok(None);
        }
        open.push(if width > 0 { hashes } else { Vec::new() });
    }
    Ok(LogEnd::from_open_tiles(size, open))
}

/// The state tree that the head names, from the cached digests or else from every member list.
async fn state(
    store: &Arc<dyn Store>,
    head: &Head,
    repairs: &mut Repairs,
) -> Result<StateTree, LedgerError> {
    let realm = &head.state.realm;
    let cached: BTreeMap<u32, Digest> = store
        .digests()
        .await?
        .examine()
        .into_iter()
        .filter_map(|(bucket, digest)| Some((bucket, digest.try_into().ok()?)))
        .collect();
    let tree = StateTree::fold(&cached);
    if tree.root() == head.state.state_root {
        return Ok(tree);
    }
    #[cfg(test)]
    if store.weakness().any_state {
        return Ok(tree);
    }
    let (digests, first_odd) = of_every_list(store, realm).await?;
    let tree = StateTree::fold(&digests);
    if tree.root() == head.state.state_root {
        repairs.what.push("digests of buckets".into());
        // A digest of a bucket that has no list any more: an empty list's, as for all of these.
        for bucket in cached.keys().filter(|bucket| !digests.contains_key(bucket)) {
            repairs.digests.insert(*bucket, [0; 32]);
        }
        repairs.digests.extend(digests);
        return Ok(tree);
    }
    let evidence = match first_odd {
        Some(bucket) => format!("bucket {bucket} does not parse, and "),
        None => odd_bucket(&cached, &digests),
    };
    Err(LedgerError::Tampered(format!(
        "{evidence}the member lists are not those that the head names; the tables are not of one \
         moment, or were altered"
    )))
}

/// The digest of every member list, and the first bucket whose list does not parse. Lists are as large as somebody with
/// the database likes, up to their bound, and there are many: they are held a part at a time.
async fn of_every_list(
    store: &Arc<dyn Store>,
    realm: &RealmName,
) -> Result<(BTreeMap<u32, Digest>, Option<u32>), LedgerError> {
    let (mut digests, mut first_odd) = (BTreeMap::new(), None);
    let mut next = 0;
    while next < BUCKETS {
        let part = store.lists(next, BUCKETS).await?.examine();
        // Whatever a database shows, this comes to an end.
        let upto = part.last().map_or(BUCKETS, |(bucket, _)| bucket + 1);
        next = upto.clamp(next + 1, BUCKETS);
        for (bucket, list) in part {
            // One that is larger than any has no content here, and is none.
            let list = list.unwrap_or_default();
            if MemberList::parse(&list).is_err() {
                first_odd.get_or_insert(bucket);
            }
            digests.insert(bucket, bucket_digest(realm, bucket, &list));
        }
    }
    Ok((digests, first_odd))
}

/// Where the cache still says what the list was, it says which list was altered.
fn odd_bucket(cached: &BTreeMap<u32, Digest>, found: &BTreeMap<u32, Digest>) -> String {
    let odd = cached
        .iter()
        .find(|(bucket, digest)| found.get(bucket) != Some(digest));
    odd.map_or(String::new(), |(bucket, _)| {
        format!("bucket {bucket} differs from its cached digest, and ")
    })
}
