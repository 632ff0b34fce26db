//! After a restore: no factor opens an account but the strongest that it has.
//!
//! Called by the guesses before they charge, by every sign-in before its session opens, and by
//! whatever half a sign-in may change. The
//! restore has put the account back to what it was earlier (`account::restored`). Whatever was
//! removed since then is there again: a lost device, a mailbox that somebody else reads, a PIN
//! that was seen. So the owner first shows who they are by the strongest factor, and everything
//! else serves again from then on. A passkey that was removed since is still believed; that is
//! what the approvers of a restore accept.

use custodyd_policies::{Factor, Strength, Timestamp};

use super::{Device, Refused, held, slots};
use crate::account::Account;
use crate::ledger::Journal;

/// Whether this factor may open the account now.
///
/// # Errors
/// `ConfirmFirst`.
pub(super) fn admits(
    account: &Account,
    device: &Device,
    by: Factor,
    now: Timestamp,
) -> Result<(), Refused> {
    if !account.quarantined {
        return Ok(());
    }
    let strengths = held(account, &device.app, now)
        .into_iter()
        .map(Factor::strength);
    let strongest = strengths.max().unwrap_or(Strength::DeviceKey);
    if by.strength() >= strongest {
        Ok(())
    } else {
        Err(Refused::ConfirmFirst)
    }
}

/// The owner has shown who they are by this factor. What the restore has voided is cleared away.
///
/// # Errors
/// As `admits`.
pub(super) fn lift(
    account: &mut Account,
    device: &Device,
    by: Factor,
    now: Timestamp,
    journal: &mut Journal,
) -> Result<(), Refused> {
    admits(account, device, by, now)?;
    if account.quarantined {
        account.quarantined = false;
        // Half sign-ins of meanwhile were not the owner's, for all that is known.
        account.session_epoch += 1;
        slots::drop_void_codes(account, journal);
    }
    Ok(())
}
