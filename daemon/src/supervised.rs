//! What a service manager is told (sd_notify(3)): ready, stopping, still alive.
//!
//! Called by `startup` and by the courier. Without `NOTIFY_SOCKET` nothing happens. The sign of life
//! comes from a task of the runtime that hands work to another thread and back: it stops when no worker
//! gets to run any more. Whether the token answers is readiness, which a restart would not mend.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// Says that requests are answered, and from then on that the process lives, as often as was asked for.
pub(crate) fn ready() -> JoinHandle<()> {
    tell(&[NotifyState::Ready]);
    let period = sd_notify::watchdog_enabled().map(|limit| limit / 3);
    tokio::spawn(async move {
        match period {
            Some(period) if !period.is_zero() => live(period).await,
            _ => {}
        }
    })
}

async fn live(period: Duration) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if tokio::spawn(async {}).await.is_ok() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
