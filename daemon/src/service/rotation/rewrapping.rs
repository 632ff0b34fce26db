//! The pass that moves all records to the newest wrap key: begun, joined, watched.
//!
//! Called by the operator's socket, and by the command line where no daemon runs. What a pass does, and why a crash loses nothing of
//! it, stands in `ledger::rewrap`; here it is one task, whose end everybody sees who asks.

use std::sync::{Arc, Mutex, PoisonError};

use custodyd_hsm::{AppId, KeyPurpose};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{KeyError, refused};
use crate::ledger::rewrap::{Census, Moving, Share};
use crate::service::Service;

/// The newest pass, running or ended.
#[derive(Debug)]
pub(super) struct Rewrap {
    share: Share,
    /// Those that it was told of beside the ones that are served.
    named: Vec<AppId>,
    moving: Arc<Moving>,
    ended: Arc<Mutex<Option<Result<Census, String>>>>,
    task: JoinHandle<()>,
}

impl Rewrap {
    /// What it has moved stays so.
    pub(super) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    fn names(&self) -> Vec<String> {
        self.named.iter().map(ToString::to_string).collect()
    }

    /// Whether who asks for this can be told of the pass that runs as of theirs. Whoever asks for nothing in particular can.
    fn does(&self, share: Option<Share>, named: &[AppId]) -> Result<(), KeyError> {
        let other = share.is_some_and(|share| share != self.share);
        if !other && named.iter().all(|app| self.named.contains(app)) {
            return Ok(());
        }
        let apps: String = self
            .names()
            .iter()
            .map(|app| format!(" --app {app}"))
            .collect();
        refused(format!(
            "a pass runs already, with --share {}{apps}, and goes on as it was begun; nothing was changed. `custodyd key \
             rewrap` without options shows how far it is: run this again when it has ended. A restart of the daemon ends \
             it at once, and what was moved stays so",
            self.share.as_percent()
        ))
    }
}

impl Service {
    /// Begins to move all records to the newest wrap key, in the background; joins a pass that runs.
    /// `named` are apps that are not served any more.
    ///
    /// # Errors
    /// `Refused` where a pass runs that does other than what is wanted: it goes on as it was begun.
    pub fn begin_rewrap(
        self: &Arc<Self>,
        share: Option<Share>,
        named: Vec<AppId>,
    ) -> Result<Value, KeyError> {
        {
            let mut newest = self.rotation.rewrap();
            let running = newest.as_ref().filter(|pass| !pass.task.is_finished());
            if let Some(pass) = running {
                pass.does(share, &named)?;
            } else {
                let share = share.unwrap_or_default();
                let mut apps = self.served();
                apps.extend(named.iter().cloned());
                let moving = Arc::<Moving>::default();
                let ended = Arc::<Mutex<Option<Result<Census, String>>>>::default();
                let task = tokio::spawn({
                    let (ledger, moving) = (self.ledger.clone(), Arc::clone(&moving));
                    let ended = Arc::clone(&ended);
                    async move {
                        let done = ledger.rewrap(apps, share, &moving).await;
                        match &done {
                            Ok(census) => tracing::info!(
                                moved = moving.moved(),
                                under = ?census.under,
                                "all records were gone over for the newest wrap key"
                            ),
                            Err(error) => {
                                tracing::error!(%error, "rewrapping stopped; run it again")
                            }
                        }
                        let done = done.map_err(|error| error.to_string());
                        *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
                    }
                });
                *newest = Some(Rewrap {
                    share,
                    named,
                    moving,
                    ended,
                    task,
                });
            }
        }
        Ok(self.rewrapping())
    }

    /// How far the newest pass is, and what it has found at its end.
    #[must_use]
    pub fn rewrapping(&self) -> Value {
        let newest = self.rotation.rewrap();
        let Some(pass) = newest.as_ref() else {
            return json!({ "running": false, "begun": false });
        };
        let (done, of) = pass.moving.buckets();
        let ended = pass.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = json!({
            "begun": true,
            "running": ended.is_none() && !pass.task.is_finished(),
            "share": pass.share.as_percent(),
            "apps": pass.names(),
            "buckets": done,
            "of": of,
            "moved": pass.moving.moved(),
            "unopened": pass.moving.unopened(),
            "seconds": pass.moving.seconds(),
        });
        let more = match &*ended {
            None => return answer,
            Some(Ok(census)) => {
                let newest = self.ledger.keys().current(KeyPurpose::Wrap).version;
                let under = census.under.iter();
                let left: u64 = under.filter(|(v, _)| **v != newest).map(|(_, n)| n).sum();
                let of_none = pass.named.iter().filter(|app| !pass.moving.found(app));
                let of_none: Vec<String> = of_none.map(ToString::to_string).collect();
                let served: Vec<String> = self.served().iter().map(ToString::to_string).collect();
                json!({
                    "left": left,
                    "damaged": census.damaged,
                    "under": census.under,
                    "of_none": of_none,
                    "served": served,
                })
            }
            Some(Err(error)) => json!({ "error": error }),
        };
        if let (Some(answer), Value::Object(more)) = (answer.as_object_mut(), more) {
            answer.extend(more);
        }
        answer
    }
}
