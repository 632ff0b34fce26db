//! Shows every witness the newest checkpoint, again and again.
//!
//! Started by `startup` and dropped with the service's other tasks. One checkpoint in each period is
//! for all of them, so that enough can cosign the same; each witness is followed apart from the
//! others, so that one that hangs holds up none. A witness may lie, be put back, or be somebody
//! else: what it returns is verified, and the sizes it names are claims. It must never be shown
//! what the token has not anchored, and nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Witnesses;
use super::disputes::KEPT;
use super::exchange::{Answer, Witness, request};
use super::failure::Failure;
use super::note::{Cosignature, Forged, Note, signatures};
use crate::ledger::{Checkpoint, LedgerError};
use crate::service::Service;

/// Before the second try, and twice as long before each further one, up to the period.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A cosignature says when it was made; clocks may differ by so much.
const CLOCKS: u64 = 600;

type Proposed = Option<Arc<Checkpoint>>;

/// Runs until it is dropped.
pub(crate) async fn run(service: Arc<Service>, witnesses: Witnesses, period: Duration) {
    if witnesses.0.is_empty() {
        return;
    }
    tracing::info!(
        origin = service.ledger.origin(),
        vkeys = verifier_keys(&service),
        "the log is shown to witnesses"
    );
    let (propose, proposed) = watch::channel(None);
    let followers = witnesses.0.into_iter().map(|witness| {
        let follower = Follower {
            service: Arc::clone(&service),
            witness,
            period,
            cosigned: 0,
            failures: 0,
            told: None,
        };
        follower.run(proposed.clone())
    });
    let followers = join_all(followers);
    tokio::join!(
        look_at_what_was_kept(&service, period),
        proposals(&service, propose, period),
        followers
    );
}

/// What a witness's operator has to be given, for the newest checkpoint key of each kind: one is enough.
fn verifier_keys(service: &Service) -> String {
    let keys = service.auditors.verifier_keys(&service.ledger.origin());
    keys.join(" ")
}

/// The checkpoint that was cosigned in an earlier life must be one of this log. If it is not, the
/// database and the token were put back together. Asked until there is an answer: a token that is away at the start, or a
/// database that hides an entry, is none.
async fn look_at_what_was_kept(service: &Service, period: Duration) {
    let Some(kept) = service.cosigned.kept() else {
        return;
    };
    let mut told = false;
    let continues = loop {
        match service.ledger.had(kept.size, &kept.root).await {
            Ok(continues) => break continues,
            Err(error) if !told => {
                tracing::warn!(%error, "it could not be looked at whether the log continues what witnesses have cosigned; it is tried again");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(period).await;
    };
    // That it continues now takes nothing back: since a dispute it may have been replaced by what others have cosigned.
    if !continues {
        service.cosigned.disputes.set(KEPT, true).await;
        tracing::error!(
            kept = kept.note,
            "witnesses have cosigned another log under this name than the database and the token hold: they were put back together, or this log was forked; see docs/LOG.md"
        );
        service.cosigned.forget(&kept);
    }
}

/// One checkpoint in each period, if the token signs.
async fn proposals(service: &Service, propose: watch::Sender<Proposed>, period: Duration) {
    let mut tick = interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match service.ledger.checkpoint().await {
            Ok(newest) => drop(propose.send_replace(Some(newest))),
            Err(error) => tracing::warn!(%error, "no checkpoint could be signed for the witnesses"),
        }
        service.cosigned.look(std::time::Instant::now());
    }
}

struct Follower {
    service: Arc<Service>,
    witness: Arc<Witness>,
    period: Duration,
    /// Entries of this log that it has cosigned last, as far as we know.
    cosigned: u64,
    /// Since it cosigned last.
    failures: u32,
    /// The last failure that was logged.
    told: Option<String>,
}

impl Follower {
    async fn run(mut self, mut proposed: watch::Receiver<Proposed>) {
        loop {
            let changed = proposed.changed();
            let changed = match pause(self.failures, self.period) {
                None => changed.await,
                // The same one again, unless there is a newer one before.
                Some(pause) => timeout(pause, changed).await.unwrap_or(Ok(())),
            };
            if changed.is_err() {
                return;
            }
            let Some(checkpoint) = proposed.borrow_and_update().clone() else {
                continue;
            };
            match self.submit(&checkpoint).await {
                Ok(cosignature) => self.accept(&checkpoint, &cosignature).await,
                Err(failure) => self.fail(&checkpoint, &failure).await,
            }
        }
    }

    /// Shows it the checkpoint; a second time, where it has seen another size than we thought.
    async fn submit(&mut self, checkpoint: &Checkpoint) -> Result<Cosignature, Failure> {
        let size = checkpoint.size();
        let mut old = self.cosigned.min(size);
        let mut corrected = false;
        loop {
            let proof = self.service.ledger.continuation(checkpoint, old).await?;
            let body = request(old, &proof, checkpoint.note());
            match self.witness.add_checkpoint(body).await {
                Answer::Lines(lines) => return self.believe(checkpoint, &lines),
                Answer::Inconsistent => {
                    return Err(Failure::Inconsistent { theirs: old, size });
                }
                Answer::Refused(what) => return Err(Failure::Refused(what)),
                Answer::Away(what) => return Err(Failure::Away(what)),
                Answer::Size(theirs) if theirs > size => return Err(self.ahead(theirs).await?),
                Answer::Size(_) if corrected => {
                    let what =
                        "it names another size each time; does somebody else show it this log?";
                    return Err(Failure::Away(what.to_owned()));
                }
                Answer::Size(theirs) => {
                    if theirs < self.cosigned {
                        tracing::warn!(
                            witness = self.witness.name,
                            theirs,
                            cosigned = self.cosigned,
                            "a witness has forgotten what it has cosigned: it was put back itself"
                        );
                    }
                    (old, corrected) = (theirs, true);
                }
            }
        }
    }

    /// It has seen more than what we showed it. An auditor may have shown it a newer checkpoint;
    /// but never one that we have not signed.
    async fn ahead(&self, theirs: u64) -> Result<Failure, LedgerError> {
        let newest = self.service.ledger.checkpoint().await?.size();
        if theirs <= newest {
            let what = "somebody has shown it a newer checkpoint; it gets one in its turn";
            return Ok(Failure::Away(what.to_owned()));
        }
        Ok(Failure::Ahead {
            theirs,
            ours: newest,
        })
    }

    fn believe(&self, checkpoint: &Checkpoint, lines: &str) -> Result<Cosignature, Failure> {
        let lines = signatures(lines).ok_or(Failure::NotBelieved("no signature lines"))?;
        let found = self.witness.key.cosignature(checkpoint.text(), &lines);
        match found {
            Err(Forged) => Err(Failure::NotBelieved(
                "a signature under its name that does not verify",
            )),
            Ok(None) => Err(Failure::NotBelieved("no signature by its key")),
            Ok(Some(one)) if one.time.abs_diff(self.service.now().0) > CLOCKS => Err(
                Failure::NotBelieved("a cosignature of another time; compare the clocks"),
            ),
            Ok(Some(one)) => Ok(one),
        }
    }

    async fn accept(&mut self, checkpoint: &Checkpoint, cosignature: &Cosignature) {
        let name = &self.witness.name;
        count(name, "cosigned");
        self.service.cosigned.disputes.set(name, false).await;
        metrics::gauge!("custodyd_witness_cosigned_size", "witness" => name.clone())
            .set(checkpoint.size() as f64);
        metrics::gauge!("custodyd_witness_cosigned_time_seconds", "witness" => name.clone())
            .set(cosignature.time as f64);
        if self.told.take().is_some() || self.cosigned == 0 {
            tracing::info!(
                witness = name,
                size = checkpoint.size(),
                "a witness cosigns the log"
            );
        }
        self.cosigned = checkpoint.size();
        self.failures = 0;
        let cosigned = &self.service.cosigned;
        if let Some(kept) = cosigned.add(name, checkpoint, cosignature) {
            cosigned.write(&kept).await;
        }
    }

    async fn fail(&mut self, checkpoint: &Checkpoint, failure: &Failure) {
        let name = &self.witness.name;
        count(name, failure.outcome());
        self.failures = match failure {
            // Nothing that a few seconds would change.
            Failure::Away(_) => self.failures.saturating_add(1),
            _ => u32::MAX,
        };
        let text = failure.to_string();
        let told = self.told.as_ref() == Some(&text);
        self.told = Some(text);
        if failure.is_dispute() {
            self.service.cosigned.disputes.set(name, true).await;
            if !told {
                self.alert(checkpoint, failure).await;
            }
            return;
        }
        match failure {
            _ if told => {}
            Failure::Own(LedgerError::Tampered(_)) => {
                metrics::counter!("custodyd_tampered_total").increment(1);
                tracing::error!(witness = name, %failure, "the log can not be shown to a witness");
            }
            Failure::Refused(_) => tracing::warn!(
                witness = name,
                %failure,
                origin = self.service.ledger.origin(),
                vkeys = verifier_keys(&self.service),
                "a witness does not cosign the log"
            ),
            _ => tracing::warn!(witness = name, %failure, "a witness does not cosign the log"),
        }
    }

    /// Says all that is known of a dispute: what the witness shows, too, if this realm has signed
    /// it. Two checkpoints that do not continue each other are proof for anybody.
    async fn alert(&self, checkpoint: &Checkpoint, failure: &Failure) {
        let origin = self.service.ledger.origin();
        let shown = self.witness.shown(&origin).await.unwrap_or_default();
        let signed = Note::parse(&shown)
            .is_some_and(|note| note.is_signed_by(&origin, &self.service.auditors.keys()));
        tracing::error!(
            witness = self.witness.name,
            %failure,
            ours = checkpoint.note(),
            theirs = if signed { shown.as_str() } else { "not shown, or not signed by this realm" },
            "a witness knows another log of this realm; keep both, and see docs/LOG.md"
        );
    }
}

/// Before a witness is tried again; none while it cosigns.
fn pause(failures: u32, period: Duration) -> Option<Duration> {
    let doublings = failures.checked_sub(1)?;
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    Some(FIRST_PAUSE.saturating_mul(factor).min(period))
}

fn count(witness: &str, outcome: &'static str) {
    let witness = witness.to_owned();
    metrics::counter!("custodyd_witness_submissions_total", "witness" => witness, "outcome" => outcome)
        .increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_the_period() {
        let period = Duration::from_secs(60);
        let seconds = |failures| pause(failures, period).map(|pause| pause.as_secs());
        assert_eq!(seconds(0), None);
        let few: Vec<_> = (1..8).map(seconds).collect();
        assert_eq!(few, [1, 2, 4, 8, 16, 32, 60].map(Some));
        assert_eq!(seconds(100), Some(60));
        assert_eq!(seconds(u32::MAX), Some(60));
    }
}
