//! Anchors as records in files, of which an NV index of the TPM says which one is true.
//!
//! Called by `session` and `provision`. NV memory wears out and is small, so what is kept there is 32
//! bytes: a chain that each change extends, V' = SHA-256(V || digest of the record). The record, all
//! anchors together, is a file that names the V before it. So it is true if and only if it leads
//! from that to the V that the TPM holds, and V never returns to what it was.
//!
//! One change, and what is true after a crash behind each step. A is the record that was true.
//!  1. read V; A leads to it.
//!  2. write B, which names V, into the other file, durably. A is true: B leads elsewhere.
//!  3. extend by the digest of B. The TPM does this whole or not: A is true, or B.
//!  4. remove the file of A. B is true; a file that stays leads to a V that is no more.
//!
//! Who copies files can put back A after step 3, and it leads nowhere: refused. Removing the files or
//! writing rubbish is refused as well. Putting back the TPM's own state takes a TPM that is a file; with
//! the file of A removed there is no record for it, unless it was copied at the same time. Whoever has
//! the secret can extend, and so spoil the chain or go on with a record of their own: that is the host, and
//! with `pcrs` the host as it was booted with approval, since extending takes the policy of the keys.
//! To return to a V one has to undefine the index, for which the owner's password is needed, and to
//! know all that it was extended by; the first of it is random and was forgotten.
//!
//! A destroyed object leaves the record with the next change, and until then it is only hidden: an
//! extension more would be one write more. After a kill it is back, older than what replaced it. So it goes for good
//! before a key does that it may be tagged by.

pub(super) mod record;
pub(super) mod store;
pub(super) mod wear;

use std::collections::BTreeSet;

use self::{record::Record, store::Store, wear::Wear};
use super::{
    Options, attest,
    esys::Tr,
    response::Meaning,
    token::{Connection, hex},
};
use crate::{
    backend::{
        attempt::{Attempt, Trouble},
        known_answer::sha256,
    },
    custody::{AnchorHandle, AnchorObject, MAX_ANCHOR},
    error::{AnchorFault, Error},
    evidence::Evidence,
};

/// Objects that one record may hold. Each realm leaves two at most.
const MOST: usize = 64;

/// The value of the index: a SHA-256 chain.
pub(super) type Chain = [u8; 32];

/// What an extension makes of a value.
pub(super) fn extended(value: &Chain, by: &[u8; 32]) -> Chain {
    sha256(&[value, by])
}

/// Where anchors are, and what is hidden of them.
#[derive(Debug)]
pub(super) struct Anchors<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) index: Tr,
    pub(super) store: &'a Store,
    pub(super) wear: &'a Wear,
    /// Objects that were destroyed and stand in the record until the next change.
    pub(super) hidden: &'a mut BTreeSet<u64>,
    /// Of the epoch, for handles.
    pub(super) epoch: u64,
}

/// The value that the TPM holds.
pub(super) fn value(connection: &mut Connection, index: Tr) -> Attempt<Chain> {
    let read = connection.ask("TPM2_NV_Read", |esys, session| {
        esys.nv_read(index, session, 32)
    })?;
    match read {
        Ok(bytes) => Chain::try_from(bytes)
            .map_err(|bytes| Trouble::Sick(format!("a chain of {} bytes", bytes.len()))),
        Err(meaning) => Err(made_anew(meaning)),
    }
}

/// The index answers, and it is not the one that was provisioned. The secret was good for the
/// keys a moment ago, so a refusal here says that the index is another one.
fn made_anew(meaning: Meaning) -> Trouble {
    let what = match meaning {
        Meaning::Absent => "is gone",
        Meaning::Unwritten => "was made anew",
        _ => "was made anew with another authorization",
    };
    fault(
        AnchorFault::Missing,
        format!(
            "the NV index {what}: whoever has the TPM's owner password removed it, or the TPM was \
             cleared. Nothing says any more which state is the newest; docs/TPM.md has the way back"
        ),
    )
}

fn fault(fault: AnchorFault, detail: String) -> Trouble {
    Trouble::Final(Error::Anchors { fault, detail })
}

impl Anchors<'_> {
    pub(super) fn list(&mut self) -> Attempt<Vec<AnchorObject>> {
        let (_, record) = self.current()?;
        let shown = record.objects.into_iter();
        Ok(shown
            .filter(|(id, _)| !self.hidden.contains(id))
            .map(|(id, content)| AnchorObject {
                handle: AnchorHandle {
                    epoch: self.epoch,
                    object: id,
                },
                size: u64::try_from(content.len()).unwrap_or(u64::MAX),
                content: match content.len() {
                    0..=MAX_ANCHOR => content,
                    _ => Vec::new(),
                },
            })
            .collect())
    }

    /// The record that is true, and the TPM's word for it.
    pub(super) fn certify(&mut self, options: &Options, nonce: &[u8]) -> Attempt<Evidence> {
        let (_, record) = self.current()?;
        attest::certify(self.connection, options, self.index, (nonce, &record))
    }

    /// Adds an object: one extension of the index.
    pub(super) fn create(&mut self, content: &[u8]) -> Attempt<()> {
        let (value, record) = self.current()?;
        let mut next = self.without_hidden(value, &record)?;
        if next.objects.len() >= MOST {
            return Err(Trouble::Final(Error::invalid(
                "anchor",
                format!("there are {MOST} already"),
            )));
        }
        next.objects.push((next.next_id, content.to_vec()));
        next.next_id = next.next_id.saturating_add(1);
        self.replace(&next)
    }

    /// Hides the object if it still is what was listed.
    pub(super) fn destroy(&mut self, object: &AnchorObject) -> Attempt<()> {
        let same = |there: &AnchorObject| there == object;
        if self.list()?.iter().any(same) {
            self.hidden.insert(object.handle.object);
        }
        Ok(())
    }

    /// Makes what is hidden go for good: at the end of a process, and before a MAC key is destroyed. Costs an extension.
    pub(super) fn settle(&mut self) -> Attempt<()> {
        if self.hidden.is_empty() {
            return Ok(());
        }
        let (value, record) = self.current()?;
        let next = self.without_hidden(value, &record)?;
        self.replace(&next)
    }

    /// The value in the TPM, and the one record that leads to it.
    fn current(&mut self) -> Attempt<(Chain, Record)> {
        let value = value(self.connection, self.index)?;
        let found = self.store.records()?;
        if let Some(record) = found.iter().find(|record| record.leads_to(&value)) {
            return Ok((value, record.clone()));
        }
        let (what, why) = match found.is_empty() {
            true => (AnchorFault::Missing, "there is none that can be read"),
            false => (AnchorFault::Behind, "those that are there lead elsewhere"),
        };
        Err(fault(
            what,
            format!(
                "the TPM's NV index stands at {}..., and no record in {} leads there ({why}): the files or the \
                 TPM were put back to another state, or another program has extended the index. Put the \
                 newest files in place; if there are none, docs/TPM.md has the way back",
                hex(value.get(..8).unwrap_or_default()),
                self.store.directory().display()
            ),
        ))
    }

    /// What follows a record, if another write may be made.
    fn without_hidden(&self, value: Chain, record: &Record) -> Attempt<Record> {
        let mut next = record.clone();
        next.before = value;
        next.wear = self.wear.spend(record.wear).map_err(Trouble::Final)?;
        next.writes = next.writes.saturating_add(1);
        next.objects.retain(|(id, _)| !self.hidden.contains(id));
        Ok(next)
    }

    fn replace(&mut self, next: &Record) -> Attempt<()> {
        let slot = self.store.write(next)?;
        let (index, digest) = (self.index, next.digest());
        let extended = self
            .connection
            .ask_with_index("TPM2_NV_Extend", |esys, by| {
                esys.nv_extend(index, by, &digest)
            })?;
        extended.map_err(made_anew)?;
        // They are in no record any more, or in none that is true.
        self.hidden.clear();
        self.store.remove_other(slot);
        if self.wear.runs_low(next.wear) {
            let (left, writes) = (next.wear.left, next.writes);
            tracing::warn!(
                left,
                writes,
                "nine tenths of the TPM's wear budget are spent"
            );
        }
        Ok(())
    }
}
