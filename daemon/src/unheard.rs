//! The background task that asks tokens which the realm's head does not name, and which did not answer at the start.
//!
//! Started by `startup` and dropped with the service's other tasks. What such a token may know, and what happens
//! then, stands in `ledger::unheard`; here it is opened, over and over, until it has answered once. It must present no PIN
//! that was refused (the backend sees to that), and leave no more than one thread in a module that hangs.

use std::sync::Arc;
use std::time::Duration;

use crate::ledger::LedgerError;
use crate::service::Service;

/// So soon after such a token is back, everybody is told what it knows.
const EVERY: Duration = Duration::from_secs(5);

/// Runs until it is dropped, or no token is left that has not answered.
pub(crate) async fn run(service: Arc<Service>) {
    let Some(set) = service.ledger.pool().set().cloned() else {
        return;
    };
    let unheard = || set.members().iter().filter(|member| member.is_unheard());
    while unheard().next().is_some() {
        unheard().for_each(|member| member.open_by_and_by());
        tokio::time::sleep(EVERY).await;
        match service.ledger.hear_the_unheard().await {
            Ok(()) | Err(LedgerError::Busy) => {}
            // It has said why, and the committer has ended.
            Err(_) => return,
        }
    }
}
