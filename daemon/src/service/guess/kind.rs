//! The kinds of guesses: for each what is guessed at, which budget it costs, what it is called.
//!
//! Used by the parent, and by refusals for their codes. A kind that joins later gets a line in
//! each table here; it must never share a budget with another: whoever may use one up would
//! then use up the other's.

use custodyd_policies::{
    AppPolicy, Budget, CONTACT_WORTH, Factor, Rounds, Timestamp, rounds_after_code,
};
use serde::{Deserialize, Serialize};

use crate::account::{Account, Usage};
use crate::ledger::EventKind;
use crate::service::Refused;

/// Whose guess it is, at what: each has a budget of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guess {
    /// The PIN, by a bound device.
    Pin,
    /// The PIN, by any other, where the policy lets strangers try.
    StrangerPin,
    /// A code of the authenticator app, by a bound device.
    Totp,
    /// The first code of an authenticator app, by the session that enrolled it.
    TotpConfirmation,
    /// A recovery code, by a bound device. Those of strangers are not charged: see
    /// `recovery_codes`.
    RecoveryCode,
    /// The PIN, by a device that came in with a delivered code.
    PinAfterCode,
    /// A delivered code, by a bound device. Those of strangers are not charged: see
    /// `code_sign_in`.
    Code,
    /// The code that confirms a contact, by whoever claims it.
    ContactCode,
    /// The code that confirms an alias, by whoever claims it.
    AliasCode,
}

impl Guess {
    pub(super) const ALL: [Self; 9] = [
        Self::Pin,
        Self::StrangerPin,
        Self::Totp,
        Self::TotpConfirmation,
        Self::RecoveryCode,
        Self::PinAfterCode,
        Self::Code,
        Self::ContactCode,
        Self::AliasCode,
    ];

    #[must_use]
    pub fn factor(self) -> Factor {
        match self {
            Self::Pin | Self::StrangerPin | Self::PinAfterCode => Factor::Pin,
            Self::Code | Self::ContactCode | Self::AliasCode => Factor::DeliveredCode,
            Self::Totp | Self::TotpConfirmation => Factor::Totp,
            Self::RecoveryCode => Factor::RecoveryCode,
        }
    }

    /// What replacing the credential is worth: for a code the contact that it is sent to.
    pub(super) fn worth(self) -> Factor {
        match self.factor() {
            Factor::DeliveredCode => CONTACT_WORTH,
            factor => factor,
        }
    }

    /// Whether the guess is a stranger's: then every refusal is the decoy's, and nothing of
    /// the count is told.
    pub(super) fn by_stranger(self) -> bool {
        matches!(self, Self::StrangerPin | Self::PinAfterCode)
    }

    /// Whether only a bound device may make it.
    pub(super) fn by_bound_device(self) -> bool {
        match self {
            Self::Pin | Self::Totp | Self::RecoveryCode | Self::Code => true,
            // Anybody; and whoever has the session that enrolled the app.
            Self::StrangerPin | Self::TotpConfirmation => false,
            // Whoever has the limited session; and whoever has one that names an address.
            Self::PinAfterCode | Self::ContactCode | Self::AliasCode => false,
        }
    }

    /// Whether one that was wrong is counted for slow mode though its request has a session: at somebody's PIN. What else a
    /// session may guess at is nobody's credential yet. Without a session every one is, and a decoy's by its answer
    /// (`http::strangers`).
    pub(super) fn is_counted_here(self) -> bool {
        self == Self::PinAfterCode
    }

    /// The rounds that the policy grants it.
    pub(in crate::service) fn rounds(self, policy: &AppPolicy) -> Rounds {
        match self {
            Self::Pin => policy.pin.rounds.clone(),
            Self::StrangerPin | Self::PinAfterCode => rounds_after_code(policy),
            Self::Code | Self::ContactCode | Self::AliasCode => {
                policy.delivered_codes.rounds.clone()
            }
            Self::Totp | Self::TotpConfirmation => policy.totp.rounds.clone(),
            Self::RecoveryCode => policy.recovery_codes.rounds.clone(),
        }
    }

    pub(super) fn events(self) -> (EventKind, EventKind) {
        match self {
            Self::Pin | Self::StrangerPin | Self::PinAfterCode => {
                (EventKind::PinCharged, EventKind::PinRefused)
            }
            Self::Code | Self::ContactCode | Self::AliasCode => {
                (EventKind::CodeCharged, EventKind::CodeRefused)
            }
            Self::Totp | Self::TotpConfirmation => (EventKind::TotpCharged, EventKind::TotpRefused),
            Self::RecoveryCode => (
                EventKind::RecoveryCodeCharged,
                EventKind::RecoveryCodeRefused,
            ),
        }
    }

    /// The credential that is guessed at, by its device identifier, and the budget it costs.
    pub(super) fn target(self, account: &mut Account) -> Option<(&str, &mut Budget)> {
        match self {
            Self::Pin => account
                .pin
                .as_mut()
                .map(|pin| (pin.device_id.as_str(), &mut pin.budget)),
            Self::StrangerPin => account
                .pin
                .as_mut()
                .map(|pin| (pin.device_id.as_str(), &mut pin.strangers)),
            Self::PinAfterCode => account
                .pin
                .as_mut()
                .map(|pin| (pin.device_id.as_str(), &mut pin.after_code)),
            // Which contact's code it is shows when it is evaluated; one budget is of them all.
            Self::Code => Some(("", &mut account.contacts.guesses)),
            Self::ContactCode => account.contacts.claim_guesses(Usage::Contact),
            Self::AliasCode => account.contacts.claim_guesses(Usage::Alias),
            Self::Totp => account
                .totp
                .as_mut()
                .map(|totp| (totp.device_id.as_str(), &mut totp.budget)),
            Self::TotpConfirmation => account
                .pending_totp
                .as_mut()
                .map(|pending| (pending.device_id.as_str(), &mut pending.budget)),
            Self::RecoveryCode => account
                .recovery_codes
                .as_mut()
                .map(|set| (set.device_id.as_str(), &mut set.budget)),
        }
    }

    /// Clears what is resolved in its budget: the owner has shown who they are.
    pub(in crate::service) fn reset(self, account: &mut Account, now: Timestamp) {
        if let Some((_, budget)) = self.target(account) {
            budget.reset(now);
        }
    }

    /// What the factor is called in a sentence.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::Pin | Self::StrangerPin | Self::PinAfterCode => "PIN",
            Self::Code | Self::ContactCode | Self::AliasCode => "code",
            Self::Totp | Self::TotpConfirmation => "TOTP code",
            Self::RecoveryCode => "recovery code",
        }
    }

    /// The stable codes of a guess that was wrong, has to wait, or is out of attempts, and of a
    /// factor that the account does not have.
    #[must_use]
    pub fn codes(self) -> Codes {
        let codes = |wrong, wait, exhausted, not_set| Codes {
            wrong,
            wait,
            exhausted,
            not_set,
        };
        match self {
            Self::Code | Self::ContactCode | Self::AliasCode => {
                codes("code-wrong", "code-wait", "code-exhausted", "not-found")
            }
            Self::Pin | Self::StrangerPin | Self::PinAfterCode => {
                codes("pin-wrong", "pin-wait", "pin-exhausted", "pin-not-set")
            }
            Self::Totp => codes("totp-wrong", "totp-wait", "totp-exhausted", "totp-not-set"),
            Self::TotpConfirmation => codes(
                "totp-wrong",
                "totp-wait",
                "totp-exhausted",
                "totp-not-pending",
            ),
            Self::RecoveryCode => codes(
                "recovery-code-wrong",
                "recovery-code-wait",
                "recovery-code-exhausted",
                "recovery-code-not-set",
            ),
        }
    }

    /// A refusal as the one who guessed may see it.
    pub(in crate::service) fn told(self, refused: Refused) -> Refused {
        match refused {
            Refused::Wrong { .. }
            | Refused::Wait { .. }
            | Refused::Exhausted(_)
            | Refused::NotSet(_)
            | Refused::CeremonyConsumed
            | Refused::ConfirmFirst
                if self.by_stranger() =>
            {
                Refused::AuthenticationFailed
            }
            // Who came in with a code may be told how the PIN is checked, or could not go on with it.
            Refused::PinOtherWay(_) if self == Self::StrangerPin => Refused::AuthenticationFailed,
            refused => refused,
        }
    }
}

/// See [`Guess::codes`].
#[derive(Clone, Copy, Debug)]
pub struct Codes {
    pub wrong: &'static str,
    pub wait: &'static str,
    pub exhausted: &'static str,
    pub not_set: &'static str,
}
