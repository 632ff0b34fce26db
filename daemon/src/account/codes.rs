//! What the envelope keeps of codes: the authenticator app, the recovery codes, and the changes
//! that wait because a weaker factor asked for them.
//!
//! Part of [`super::Account`], changed by `service` inside commits. Plain state: whether a code
//! is right is `factors`' to say, whether it may be tried is a budget's.

use std::time::Duration;

use custodyd_policies::{Budget, Factor, Recovery, Timestamp, recover};
use serde::{Deserialize, Serialize};

use crate::factors::recovery_code::RecoveryCodes;
use crate::factors::totp::TotpRecord;

/// An authenticator app that is in use.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundTotp {
    pub record: TotpRecord,
    pub device_id: String,
    pub binding: String,
    pub added: Timestamp,
    pub budget: Budget,
}

/// One that has not shown yet that it holds its secret. Opens nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingTotp {
    pub record: TotpRecord,
    pub device_id: String,
    pub binding: String,
    pub expires: Timestamp,
    pub budget: Budget,
}

/// A set of recovery codes; it stays, and so do its sessions, when the last code is spent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundRecoveryCodes {
    pub codes: RecoveryCodes,
    pub device_id: String,
    pub binding: String,
    pub added: Timestamp,
    /// Of the bound devices.
    pub budget: Budget,
}

/// A change by the exception to step-up that waits until it is due, and may be cancelled.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingRecovery {
    pub change: Recovery,
    /// Thumbprint of the device that asked, and that alone may have it.
    pub device: String,
    pub by: Factor,
    pub requested: Timestamp,
    /// What the policy said when it was asked for.
    pub delay_seconds: u64,
}

impl PendingRecovery {
    /// A change that nobody comes back for is forgotten this long after it was due: a request
    /// that the owner once overlooked must not stay good for ever.
    const APPLICABLE: Duration = Duration::from_secs(7 * 86_400);

    #[must_use]
    pub fn due_at(&self) -> Timestamp {
        recover::due_at(self.requested, Duration::from_secs(self.delay_seconds))
    }

    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.due_at().plus(Self::APPLICABLE)
    }
}
