//! Making what is missing: the storage key, the realm's keys, the NV index of the anchors.
//!
//! Called by `init` and `token provision`. It never deletes, overwrites or mends: what is wrong
//! stops it before it begins, because the right answer depends on what is sealed under which key.
//! Only here the owner hierarchy is asked for anything. The daemon asks nothing of it but a newer key, and the end of an
//! older one; a password for that comes with the operator's request and is forgotten with it.

use aws_lc_rs::rand;

use super::{
    Options,
    anchor::store::Store,
    attributes::{self, Form},
    esys::{Esys, Tr},
    import, index,
    keys::{KeyTable, Scan, form_of, handle_of},
    mechanism, policy,
    response::Meaning,
    token::{self, Connection, Name, auth, command, hex},
};
use crate::{
    backend::{
        attempt::{Attempt, Trouble},
        known_answer::sha256,
        origin,
    },
    encoding,
    error::Error,
    id::{KeyId, KeyPurpose},
    report::ProvisionReport,
    root_keys::{KeyOrigin, RootKey, RootKeys},
    secret::{Secret, SecretBytes},
};

/// What provisioning did, and the name to configure.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) report: ProvisionReport,
    /// In hexadecimal; none in a dry run on a TPM without a storage key.
    pub(super) storage_key: Option<String>,
}

pub(super) fn run(
    options: &Options,
    store: &Store,
    keys: Option<&RootKeys>,
    dry_run: bool,
) -> Attempt<Done> {
    // Before anything is made: the secret is good enough.
    auth(&options.secret, "")?;
    let mut esys = token::reach(options)?;
    let mut created = Vec::new();
    let (storage_key, name) = match token::find(&mut esys, options.handles)? {
        Some(key) => (key, accepted(&mut esys, key, options)?),
        None => {
            refuse_another(options)?;
            refuse_a_loss(store)?;
            created.push(format!("storage key 0x{:08x}", options.handles));
            if dry_run {
                with_unsalted(&mut esys, |esys, session| {
                    let primary = primary(esys, options, session)?;
                    command(esys, "free a place", |esys| esys.flush(primary))
                })?;
                created.extend(KeyPurpose::REQUIRED.map(|p| KeyId::new(p, 1).label()));
                if let Some(pcrs) = &options.pcrs {
                    created.push(format!("recovery object and NV index of the PCRs {pcrs}"));
                }
                return Ok(Done {
                    report: report(created, Vec::new(), dry_run),
                    storage_key: None,
                });
            }
            if options.pcrs.is_some() {
                policy::recovery_key(options)?;
            }
            make_storage_key(&mut esys, options)?
        }
    };
    let description = token::describe(&mut esys, options, &name)?;
    let mut connection = Connection::with_session(esys, storage_key, description)?;
    let report = below(&mut connection, options, store, keys, (created, dry_run))?;
    Ok(Done {
        report,
        storage_key: Some(hex(&name)),
    })
}

fn report(created: Vec<String>, existing: Vec<String>, dry_run: bool) -> ProvisionReport {
    ProvisionReport {
        created,
        existing,
        dry_run,
    }
}

/// The keys and the index, under a session.
fn below(
    connection: &mut Connection,
    options: &Options,
    store: &Store,
    keys: Option<&RootKeys>,
    (mut created, dry_run): (Vec<String>, bool),
) -> Attempt<ProvisionReport> {
    set_owner(connection, &options.owner_password)?;
    connection.binding = policy::find(connection, options)?;
    let before = Scan::of(connection, options)?;
    match (keys, before.reports().first()) {
        (Some(_), Some(there)) => return Err(origin::refuse_occupied(&there.label).into()),
        (None, _) if !before.missing().is_empty() => origin::refuse_imported(options.origin)?,
        _ => {}
    }
    refuse(&before)?;
    created.extend(bind(connection, options, &before, dry_run)?);
    let existing = before.reports().into_iter().map(|r| r.label).collect();
    if before.missing().is_empty() && created.is_empty() {
        // A wrong secret is told as one, before the index refuses it.
        before.table(connection, options)?;
    }
    if index::provision(connection, options, store, dry_run)? {
        created.push(format!("NV index 0x{:08x}", options.nv_index));
    }
    let wanted = match keys {
        Some(keys) => keys.iter().map(|key| (key.id, Some(key))).collect(),
        None => before.missing().into_iter().map(first).collect::<Vec<_>>(),
    };
    for (id, key) in wanted {
        if !dry_run {
            keep(connection, options, id, key)?;
        }
        created.push(id.label());
    }
    if dry_run && !created.is_empty() {
        prove_owner(connection)?;
    }
    if !dry_run {
        // What was made is judged like what was found, and what was found must know the secret.
        let after = Scan::of(connection, options)?;
        refuse(&after)?;
        after.table(connection, options)?.answers(connection)?;
    }
    Ok(report(created, existing, dry_run))
}

/// Brings in those of these keys that are missing, into a TPM that holds others of the same realm.
pub(super) fn missing(
    options: &Options,
    keys: &RootKeys,
    dry_run: bool,
) -> Attempt<ProvisionReport> {
    let mut connection = Connection::begin(options)?;
    beside(&mut connection, options, keys, dry_run)
}

fn beside(
    connection: &mut Connection,
    options: &Options,
    keys: &RootKeys,
    dry_run: bool,
) -> Attempt<ProvisionReport> {
    let before = Scan::of(connection, options)?;
    refuse(&before)?;
    policy::require(connection, options)?;
    let table = before.table(connection, options)?;
    let mut report = report(Vec::new(), Vec::new(), dry_run);
    let mut wanted = Vec::new();
    for key in keys.iter() {
        place_of(options, key.id)?;
        match table.holds(key.id) {
            true => {
                refuse_another_key(connection, &table, key)?;
                report.existing.push(key.id.label());
            }
            false => {
                report.created.push(key.id.label());
                wanted.push(key);
            }
        }
    }
    set_owner(connection, &options.owner_password)?;
    if dry_run {
        if !wanted.is_empty() {
            prove_owner(connection)?;
        }
        return Ok(report);
    }
    for key in wanted {
        keep(connection, options, key.id, Some(key))?;
    }
    let after = Scan::of(connection, options)?;
    refuse(&after)?;
    let table = after.table(connection, options)?;
    table.answers(connection)?;
    for key in keys.iter() {
        refuse_another_key(connection, &table, key)?;
    }
    Ok(report)
}

/// One that is there must be the one that was to come in.
fn refuse_another_key(connection: &mut Connection, table: &KeyTable, key: &RootKey) -> Attempt<()> {
    let same = match key.public() {
        Some(point) => table.pair(key.id)?.1 == *point,
        None => {
            let message = encoding::key_check(key.id);
            let tag = table.mac(connection, key.id, &message)?;
            tag.expose().as_slice() == key.check().check
        }
    };
    match same {
        true => Ok(()),
        false => Err(origin::refuse_another(&key.id.label()).into()),
    }
}

/// What binds the keys to what was booted, before there are any.
fn bind(
    connection: &mut Connection,
    options: &Options,
    before: &Scan,
    dry_run: bool,
) -> Attempt<Vec<String>> {
    if options.pcrs.is_some() && connection.binding.is_none() && !before.reports().is_empty() {
        return Err(Trouble::Final(policy::unbound()));
    }
    let recovery = |connection: &mut Connection, auth: &[u8; 32]| {
        let handle = options.handles.saturating_add(policy::RECOVERY);
        let (parent, template) = (
            connection.storage_key,
            Form::Sealed.template(KeyOrigin::Token),
        );
        // Nobody ever asks for what is in it: it is there to be authorized.
        let unused = root(connection)?;
        let object = connection.command("TPM2_Create", |esys, session| {
            esys.create((parent, session), &template, auth, unused.expose())
        })?;
        persist(connection, object, handle)
    };
    let keys = !before.missing().is_empty();
    let made = policy::provision(connection, options, recovery, (keys, dry_run))?;
    if made.is_empty() {
        policy::require(connection, options)?;
    }
    Ok(made)
}

fn refuse(scan: &Scan) -> Result<(), Error> {
    let problems = scan.problems();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Misconfigured(format!(
        "nothing was changed, because objects in the TPM are not sound: {}",
        problems.join("; ")
    )))
}

/// A pinned name and no key of it: making another one would only hide that.
fn refuse_another(options: &Options) -> Result<(), Error> {
    match &options.storage_key {
        None => Ok(()),
        Some(pinned) => Err(Error::Misconfigured(format!(
            "token.storage_key pins {pinned}, and the TPM has no storage key at 0x{:08x}: it was cleared, or it \
             is another one. Put the right TPM back; for a new realm remove token.storage_key and provision again",
            options.handles
        ))),
    }
}

/// Records of anchors and no storage key: this host has served a realm from a TPM, and it was not this
/// one as it is now.
fn refuse_a_loss(store: &Store) -> Result<(), Error> {
    if store.is_empty() {
        return Ok(());
    }
    Err(Error::Misconfigured(format!(
        "nothing was changed: {} holds anchors of a realm, and the TPM that answers has no storage key: it was \
         cleared, or it is another one. Put the right TPM back; what a cleared one held is gone. For a new \
         realm give an empty token.state_directory",
        store.directory().display()
    )))
}

/// The name of a storage key that was there.
fn accepted(esys: &mut Esys, key: Tr, options: &Options) -> Attempt<Name> {
    let public = command(esys, "read the storage key", |esys| {
        esys.read_public(key, None)
    })?;
    let name = token::name(&public)?;
    let (judged, _) = attributes::judge(&public, Form::StorageKey, KeyOrigin::Token, None);
    if let Some(why) = attributes::first_bad(&judged) {
        return Err(Trouble::Final(Error::Misconfigured(format!(
            "nothing was changed: the object at 0x{:08x} is no storage key of custodyd ({why}); set token.handles \
             to a free range",
            options.handles
        ))));
    }
    match &options.storage_key {
        Some(pinned) if pinned.to_ascii_lowercase() != hex(&name) => {
            Err(Trouble::Final(Error::Misconfigured(format!(
                "nothing was changed: the TPM that answers is not the one that token.storage_key pins; its \
                 storage key is {}",
                hex(&name)
            ))))
        }
        _ => Ok(name),
    }
}

/// Before there is a storage key no session can be salted; what passes here is not secret, but for
/// the proof of the owner's password, by which somebody on the bus could guess a weak one.
fn make_storage_key(esys: &mut Esys, options: &Options) -> Attempt<(Tr, Name)> {
    let key = with_unsalted(esys, |esys, session| {
        persisted_storage_key(esys, options, session)
    })?;
    let public = command(esys, "read the storage key", |esys| {
        esys.read_public(key, None)
    })?;
    Ok((key, token::name(&public)?))
}

fn with_unsalted<T>(esys: &mut Esys, work: impl FnOnce(&mut Esys, Tr) -> Attempt<T>) -> Attempt<T> {
    let session = command(esys, "start a session", |esys| esys.start_session(None))?;
    let done = work(esys, session);
    let flushed = command(esys, "end a session", |esys| esys.flush(session));
    let done = done?;
    flushed?;
    Ok(done)
}

/// In a transient place. That the owner lets it be made shows that the password is theirs, and changes nothing.
fn primary(esys: &mut Esys, options: &Options, session: Tr) -> Attempt<Tr> {
    command(esys, "set the owner's password", |esys| {
        esys.set_auth(Tr::OWNER, options.owner_password.expose())
    })?;
    let template = Form::StorageKey.template(KeyOrigin::Token);
    owners(command(esys, "TPM2_CreatePrimary", |esys| {
        unless_refused(esys.create_primary(session, &template))
    })?)
}

/// The same under a session that stands: before anybody counts on a change that the owner has to allow.
fn prove_owner(connection: &mut Connection) -> Attempt<()> {
    let template = Form::StorageKey.template(KeyOrigin::Token);
    let primary = connection.command("TPM2_CreatePrimary", |esys, session| {
        unless_refused(esys.create_primary(session, &template))
    })?;
    let primary = owners(primary)?;
    connection.command("free a place", |esys, _| esys.flush(primary))
}

fn persisted_storage_key(esys: &mut Esys, options: &Options, session: Tr) -> Attempt<Tr> {
    let primary = primary(esys, options, session)?;
    let kept = command(esys, "TPM2_EvictControl", |esys| {
        unless_refused(esys.persist(primary, session, options.handles))
    });
    let flushed = command(esys, "free a place", |esys| esys.flush(primary));
    owners(kept?)?;
    flushed?;
    token::find(esys, options.handles)?
        .ok_or_else(|| Trouble::Sick("the storage key was kept, and is not there".to_owned()))
}

/// A refusal of the owner's password is about that, and not about the realm's secret; and one for want of room is about the TPM.
fn unless_refused<T>(
    done: Result<T, super::esys::Code>,
) -> Result<Result<T, Meaning>, super::esys::Code> {
    match done {
        Err(code) if matches!(code.meaning(), Meaning::WrongAuth | Meaning::Full) => {
            Ok(Err(code.meaning()))
        }
        other => other.map(Ok),
    }
}

fn owners<T>(done: Result<T, Meaning>) -> Attempt<T> {
    done.map_err(|meaning| {
        Trouble::Final(index::refused_by_owner(meaning, index::NO_ROOM_FOR_A_KEY))
    })
}

fn set_owner(connection: &mut Connection, password: &SecretBytes) -> Attempt<()> {
    connection.command("set the owner's password", |esys, _| {
        esys.set_auth(Tr::OWNER, password.expose())
    })
}

/// One change that wants the owner. The connection serves on afterwards, and does not keep the password.
fn for_owner<T>(
    connection: &mut Connection,
    password: &SecretBytes,
    change: impl FnOnce(&mut Connection) -> Attempt<T>,
) -> Attempt<T> {
    set_owner(connection, password)?;
    let done = change(connection);
    let forgotten = set_owner(connection, &SecretBytes::from(Vec::new()));
    let done = done?;
    forgotten?;
    Ok(done)
}

fn first(purpose: KeyPurpose) -> (KeyId, Option<&'static RootKey>) {
    (KeyId::new(purpose, 1), None)
}

/// Makes a key, or takes one in, and keeps it at its handle.
fn keep(
    connection: &mut Connection,
    options: &Options,
    id: KeyId,
    key: Option<&RootKey>,
) -> Attempt<()> {
    let handle = place_of(options, id)?;
    let object = match key {
        Some(key) => import::object(connection, options, key)?,
        None => make(connection, options, id)?,
    };
    persist(connection, object, handle)
}

/// Keeps a transient object at a handle, and frees its place.
fn persist(connection: &mut Connection, object: Tr, handle: u32) -> Attempt<()> {
    let kept = connection.ask("TPM2_EvictControl", |esys, session| {
        esys.persist(object, session, handle)
    });
    let flushed = connection.command("free a place", |esys, _| esys.flush(object));
    owners(kept?)?;
    flushed
}

fn make(connection: &mut Connection, options: &Options, key: KeyId) -> Attempt<Tr> {
    let form = form_of(key.purpose, options.mode);
    let auth = auth(&options.secret, &key.label())?;
    let root = match form {
        Form::Sealed => Some(root(connection)?),
        Form::StorageKey | Form::Hmac | Form::Ecdsa | Form::Attest => None,
    };
    let data = root.as_ref().map_or(&[][..], |root| root.expose());
    let policy = connection.policy_of(form);
    let (parent, template) = (
        connection.storage_key,
        form.template_with(KeyOrigin::Token, policy.as_ref()),
    );
    connection.command("TPM2_Create", |esys, session| {
        esys.create((parent, session), &template, auth.expose(), data)
    })
}

/// Random bytes of a TPM that may have no storage key yet. They are mixed with the host's, so whoever
/// sits in between and knows them has nothing.
pub(super) fn entropy(options: &Options) -> Attempt<Secret<32>> {
    let mut esys = token::reach(options)?;
    let session = command(&mut esys, "start a session", |esys| {
        esys.start_session(None)
    })?;
    let bytes = command(&mut esys, "TPM2_GetRandom", |esys| esys.random(session, 32));
    let _ = command(&mut esys, "end a session", |esys| esys.flush(session));
    let bytes = zeroize::Zeroizing::new(bytes?);
    match bytes.as_slice().try_into() {
        Ok(bytes) => Ok(Secret::init(|place: &mut [u8; 32]| *place = bytes)),
        Err(_) => Err(Trouble::Sick("random bytes that are too few".to_owned())),
    }
}

/// Makes a newer key in an epoch that stands. Refused by the owner, it leaves nothing behind.
pub(super) fn make_newer(
    connection: &mut Connection,
    options: &Options,
    key: KeyId,
    owner: &SecretBytes,
) -> Attempt<()> {
    let handle = place_of(options, key)?;
    if is_there(connection, handle)? {
        let there = Error::invalid("key version", format!("{key} is in the TPM already"));
        return Err(Trouble::Final(there));
    }
    for_owner(connection, owner, |connection| {
        keep(connection, options, key, None)
    })
}

/// Takes a key out of the TPM for good; one that is gone already is no error.
pub(super) fn destroy(
    connection: &mut Connection,
    options: &Options,
    key: KeyId,
    owner: &SecretBytes,
) -> Attempt<()> {
    let handle = place_of(options, key)?;
    if !is_there(connection, handle)? {
        return Ok(());
    }
    let object = connection.command("find a key", |esys, session| {
        esys.find(handle, Some(session))
    })?;
    let gone = for_owner(connection, owner, |connection| {
        connection.ask("TPM2_EvictControl", |esys, session| {
            esys.persist(object, session, handle)
        })
    })?;
    owners(gone)
}

fn is_there(connection: &mut Connection, handle: u32) -> Attempt<bool> {
    let listed = connection.command("list handles", |esys, _| esys.handles(handle))?;
    Ok(listed.contains(&handle))
}

fn place_of(options: &Options, key: KeyId) -> Attempt<u32> {
    handle_of(options.handles, key)
        .ok_or_else(|| Trouble::Final(Error::invalid("key version", "expected 1 to 15 in a TPM")))
}

/// From the TPM and from the host: good where either is.
fn root(connection: &mut Connection) -> Attempt<Secret<32>> {
    let theirs = Secret::<32>::try_init(|place| mechanism::random(connection, place))?;
    let own = Secret::<32>::try_init(|place| rand::fill(place))
        .map_err(|_| Trouble::Sick("the host gives no random bytes".to_owned()))?;
    Ok(Secret::init(|place| {
        *place = sha256(&[own.expose(), theirs.expose()]);
    }))
}
