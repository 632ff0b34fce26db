//! PINs by Argon2id on this host (RFC 9106), for clients that cannot do OPAQUE.
//!
//! Called by `service/`, in this order: [`PinHasher::reserve`], then the charge
//! of the guess budget, durably, then [`PinHasher::evaluate`], then the outcome.
//! It must never evaluate what was not charged, which is why a reservation is
//! needed and is taken first: a charge that then finds no capacity would cost
//! its owner an attempt for nothing.
//!
//! The adversary who has the database has no verifier (envelopes are sealed),
//! and one who has an opened envelope still lacks the pepper, which the token
//! computes. The adversary on the network can only wait in a bounded queue.

mod record;
#[cfg(test)]
mod tests;
mod workers;

use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use custodyd_hsm::{Secret, SecretBytes};
use custodyd_policies::PinPolicy;
use tokio::sync::oneshot;

pub use self::record::{MAX_LANES, MAX_MEMORY_KIB, MAX_PASSES, PinRecord};
use self::workers::{Memory, Place, Workers};
use super::{RandomFailed, random};
use crate::account::first_mac_key;

/// No capacity: nothing was charged and nothing evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many PIN checks are under way: try again in {} s", retry_after.as_secs())]
pub struct Busy {
    /// For the Retry-After header; whole seconds, 1 to 60.
    pub retry_after: Duration,
}

/// Why an evaluation gave no answer. Where an attempt was charged for it, the
/// charge stands until its outcome is known or it expires.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Parameters outside of what this host will spend.
    #[error(
        "Argon2id parameters out of range: memory {memory_kib} KiB, {passes} passes, {lanes} lanes"
    )]
    Parameters {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// The host has no memory for it.
    #[error("no memory for an Argon2id evaluation of {memory_kib} KiB")]
    Memory {
        /// What was asked for.
        memory_kib: u32,
    },
    /// The host has no randomness for a salt.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// Argon2 refused its input.
    #[error("Argon2id: {0}")]
    Argon2(argon2::Error),
    /// The threads are ending, or a defect of this program was caught in one.
    #[error("the PIN check was not finished")]
    Stopped,
}

/// Dedicated threads for Argon2id, one set per process.
pub struct PinHasher {
    workers: Workers,
}

/// The right to one evaluation. Dropping it gives the place back.
#[must_use = "capacity is reserved before the attempt is charged"]
pub struct Reservation {
    /// Held for its Drop.
    _place: Place,
}

impl std::fmt::Debug for PinHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinHasher")
            .field("taken", &self.workers.taken())
            .finish()
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reservation")
    }
}

/// What one evaluation needs, moved to its thread.
struct Work {
    pin: SecretBytes,
    pepper: Secret<32>,
    salt: [u8; 16],
    params: Params,
}

impl PinHasher {
    /// `threads` evaluate at once (at most one per core), `queue` more may wait.
    pub fn new(threads: usize, queue: usize) -> std::io::Result<Self> {
        Ok(PinHasher {
            workers: Workers::start(threads, queue)?,
        })
    }

    /// Take a place, before anything is charged. One app's requests hold as many as stay free at the most.
    pub fn reserve(&self) -> Result<Reservation, Busy> {
        self.place(false)
    }

    /// The same for a stranger's try, which half of the places must be enough for: anybody can
    /// make any number of those, and the other half is for devices that are bound.
    pub fn reserve_for_stranger(&self) -> Result<Reservation, Busy> {
        self.place(true)
    }

    fn place(&self, stranger: bool) -> Result<Reservation, Busy> {
        self.workers
            .reserve(stranger)
            .map(|place| Reservation { _place: place })
            .map_err(|retry_after| Busy { retry_after })
    }

    /// Places taken: running, waiting, or reserved and not yet used. For metrics.
    pub fn taken(&self) -> usize {
        self.workers.taken()
    }

    /// Whether `pin` is the PIN of `record`. Compared in constant time.
    ///
    /// A caller who is dropped before the evaluation began does not get one, and
    /// the place is free again; one that has begun is finished.
    pub async fn evaluate(
        &self,
        reservation: Reservation,
        pin: SecretBytes,
        pepper: Secret<32>,
        record: &PinRecord,
    ) -> Result<bool, PinError> {
        let work = Work {
            pin,
            pepper,
            salt: record.salt,
            params: record.params()?,
        };
        let tag = self.run(reservation, work).await?;
        Ok(tag.ct_eq(&record.verifier))
    }

    /// The work of [`PinHasher::evaluate`], with the cost that the policy sets, where there is no
    /// PIN to compare with: whoever tries must not see that by the clock or by a full queue.
    pub async fn decoy(
        &self,
        reservation: Reservation,
        pin: SecretBytes,
        pepper: Secret<32>,
        policy: &PinPolicy,
    ) -> Result<(), PinError> {
        let work = Work {
            pin,
            pepper,
            salt: [0; 16],
            params: record::params(policy.memory_kib, policy.passes, policy.lanes)?,
        };
        self.run(reservation, work).await.map(drop)
    }

    /// A record for a new PIN, with the cost that the policy sets and a fresh
    /// salt. Whether the PIN is acceptable was decided before, by the policy.
    pub async fn enrol(
        &self,
        reservation: Reservation,
        pin: SecretBytes,
        pepper: Secret<32>,
        policy: &PinPolicy,
    ) -> Result<PinRecord, PinError> {
        let (memory_kib, passes, lanes) = (policy.memory_kib, policy.passes, policy.lanes);
        let params = record::params(memory_kib, passes, lanes)?;
        let salt = random()?;
        let work = Work {
            pin,
            pepper,
            salt,
            params,
        };
        let verifier = self.run(reservation, work).await?;
        Ok(PinRecord {
            salt,
            // Whoever gave the pepper says where it is from.
            mac_key: first_mac_key(),
            memory_kib,
            passes,
            lanes,
            verifier,
        })
    }

    async fn run(&self, reservation: Reservation, work: Work) -> Result<Secret<32>, PinError> {
        let (reply, answer) = oneshot::channel();
        self.workers.submit(Box::new(move |memory| {
            // The place is held until the work is done, also where the caller
            // has gone meanwhile: what runs counts.
            let place = reservation;
            if !reply.is_closed() {
                let tag = work.tag(memory);
                drop(place);
                // Nobody waits any more: then the tag is wiped right here.
                drop(reply.send(tag));
            }
        }));
        answer.await.map_err(|_| PinError::Stopped)?
    }
}

impl Work {
    /// Argon2id version 1.3 with the pepper as the secret value K.
    fn tag(&self, memory: &mut Memory) -> Result<Secret<32>, PinError> {
        let argon2 = Argon2::new_with_secret(
            self.pepper.expose(),
            Algorithm::Argon2id,
            Version::V0x13,
            self.params.clone(),
        )
        .map_err(PinError::Argon2)?;
        let blocks = memory
            .blocks(self.params.block_count())
            .ok_or(PinError::Memory {
                memory_kib: self.params.m_cost(),
            })?;
        Secret::try_init(|tag| {
            argon2
                .hash_password_into_with_memory(self.pin.expose(), &self.salt, tag, blocks)
                .map_err(PinError::Argon2)
        })
    }
}
