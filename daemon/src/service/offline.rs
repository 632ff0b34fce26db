//! What happened on a device while nobody saw it.
//!
//! The daemon's budget does not protect a copy that opens offline, so wrong PINs there are only
//! counted, by the device itself. The report makes them an event, which every other device of the owner
//! reads. The adversary here is whoever holds the device: he can leave the report out, or send a false one,
//! which is as much as he could do to the app on that device. He wins and charges nothing by it.

use super::{Caller, Refused, Service, sessions};
use crate::ledger::{EventKind, NewEvent};

/// More than anybody types; a larger number is a mistake of the client's.
const MOST: u32 = 1_000_000;

impl Service {
    /// Writes down that wrong PINs were tried offline. A session that only reads may say so: the device
    /// has it before its owner types anything.
    ///
    /// # Errors
    /// `Malformed` for a number that nobody counted; those of a commit.
    pub async fn report_offline(&self, caller: Caller, wrong_pins: u32) -> Result<(), Refused> {
        if !(1..=MOST).contains(&wrong_pins) {
            return Err(Refused::Malformed(format!(
                "`wrong_pins` must be between 1 and {MOST}; send no report where nothing happened"
            )));
        }
        let session = caller.session;
        self.ledger
            .commit::<(), Refused>(caller.loaded, move |account, _, journal| {
                sessions::stands(&session, account)?;
                journal.note(
                    NewEvent::new(EventKind::OfflinePinsRefused)
                        .on(&session.device_thumbprint)
                        .about(&wrong_pins.to_string()),
                );
                Ok(())
            })
            .await?;
        metrics::counter!("custodyd_offline_pins_refused_total").increment(u64::from(wrong_pins));
        Ok(())
    }
}
