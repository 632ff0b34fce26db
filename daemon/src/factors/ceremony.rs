//! A ceremony: a challenge that was given to one app, one device, and where it
//! is known one account, for one purpose.
//!
//! Made by `service/` when it answers with passkey options, or to the first message
//! of OPAQUE, sealed by `token`
//! and given to the client, who brings it back with the answer. So a start
//! writes nothing of it, whoever asks. It must never be taken as unused: its id is put
//! into the envelope's consumed set by the commit of the login itself. (A login by
//! OPAQUE has something in the envelope already, its charge, and that is used up instead.)

use custodyd_hsm::{AccountId, AppId};
use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};

use super::{RandomFailed, random};

/// What a ceremony was begun for; it can be finished for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Add a passkey to the account.
    RegisterPasskey,
    /// Sign in.
    Authenticate,
    /// Show that an existing passkey is still in its owner's hands.
    ConfirmPasskey,
    /// Register a PIN by OPAQUE.
    RegisterOpaque,
    /// Sign in with a PIN by OPAQUE.
    SignInByOpaque,
    /// Complete half a sign-in with a PIN by OPAQUE.
    GoOnByOpaque,
}

/// The content of a ceremony token. `S` is the state of the factor's library.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceremony<S> {
    /// Random; what the envelope remembers as consumed until `expires`.
    #[serde(with = "super::text_bytes")]
    pub id: [u8; 16],
    /// The app whose path it was begun under.
    pub app: AppId,
    /// Thumbprint of the device key that began it.
    pub device_thumbprint: String,
    /// The account, where it was known: not at a login with a discoverable passkey.
    pub account: Option<AccountId>,
    /// What it was begun for.
    pub purpose: Purpose,
    /// Over from this second on.
    pub expires: Timestamp,
    /// The challenge and what belongs to it.
    pub state: S,
}

/// Why a ceremony cannot be finished here. Each is final: begin a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CeremonyError {
    /// Past its time.
    #[error("the ceremony has expired: ask for new options")]
    Expired,
    /// Begun under another app.
    #[error("the ceremony was begun for another app")]
    OtherApp,
    /// Begun by another device key.
    #[error(
        "the ceremony was begun by another device key: finish it with the key that asked for the options"
    )]
    OtherDevice,
    /// Begun for another account, or for none where one is needed.
    #[error("the ceremony was begun for another account")]
    OtherAccount,
    /// Begun for another purpose.
    #[error("the ceremony was begun for another purpose: ask for the options of this call")]
    OtherPurpose,
}

impl CeremonyError {
    /// The stable code of the problem document.
    pub fn code(self) -> &'static str {
        match self {
            CeremonyError::Expired => "ceremony-expired",
            CeremonyError::OtherApp => "ceremony-other-app",
            CeremonyError::OtherDevice => "ceremony-other-device",
            CeremonyError::OtherAccount => "ceremony-other-account",
            CeremonyError::OtherPurpose => "ceremony-other-purpose",
        }
    }
}

/// A fresh random identifier for a ceremony.
pub fn new_id() -> Result<[u8; 16], RandomFailed> {
    random()
}

impl<S> Ceremony<S> {
    /// Whether it may be finished here and now.
    ///
    /// `account` is the one that the caller acts for, or that the answer named.
    /// A login that began without an account may end with any: the signature
    /// over the challenge then names it. The other purposes need the account
    /// that they began with.
    pub fn check(
        &self,
        app: &AppId,
        jkt: &str,
        account: impl Into<Option<AccountId>>,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<(), CeremonyError> {
        if self.purpose != purpose {
            return Err(CeremonyError::OtherPurpose);
        }
        if self.app != *app {
            return Err(CeremonyError::OtherApp);
        }
        if self.device_thumbprint != jkt {
            return Err(CeremonyError::OtherDevice);
        }
        let open = self.account.is_none() && purpose == Purpose::Authenticate;
        if !open && (self.account.is_none() || self.account != account.into()) {
            return Err(CeremonyError::OtherAccount);
        }
        if now >= self.expires {
            return Err(CeremonyError::Expired);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on must stop
    use super::*;

    const OWNER: AccountId = AccountId([1; 16]);
    const STRANGER: AccountId = AccountId([2; 16]);

    pub(crate) fn ceremony(purpose: Purpose, account: Option<AccountId>) -> Ceremony<u32> {
        Ceremony {
            id: [9; 16],
            app: AppId::parse("demo").unwrap(),
            device_thumbprint: "device".into(),
            account,
            purpose,
            expires: Timestamp(2000),
            state: 42,
        }
    }

    fn check(
        ceremony: &Ceremony<u32>,
        change: impl FnOnce(&mut (&str, &str, Option<AccountId>, Purpose, u64)),
    ) -> Result<(), CeremonyError> {
        let mut with = ("demo", "device", Some(OWNER), ceremony.purpose, 1999);
        change(&mut with);
        let (app, jkt, account, purpose, now) = with;
        ceremony.check(
            &AppId::parse(app).unwrap(),
            jkt,
            account,
            purpose,
            Timestamp(now),
        )
    }

    #[test]
    fn each_difference_is_told() {
        let ceremony = ceremony(Purpose::RegisterPasskey, Some(OWNER));
        assert_eq!(check(&ceremony, |_| {}), Ok(()));
        assert_eq!(
            check(&ceremony, |w| w.0 = "other"),
            Err(CeremonyError::OtherApp)
        );
        assert_eq!(
            check(&ceremony, |w| w.1 = "other"),
            Err(CeremonyError::OtherDevice)
        );
        assert_eq!(
            check(&ceremony, |w| w.2 = Some(STRANGER)),
            Err(CeremonyError::OtherAccount)
        );
        assert_eq!(
            check(&ceremony, |w| w.2 = None),
            Err(CeremonyError::OtherAccount)
        );
        assert_eq!(
            check(&ceremony, |w| w.3 = Purpose::ConfirmPasskey),
            Err(CeremonyError::OtherPurpose)
        );
        assert_eq!(
            check(&ceremony, |w| w.4 = 2000),
            Err(CeremonyError::Expired)
        );
    }

    #[test]
    fn only_a_login_may_begin_without_an_account() {
        let login = ceremony(Purpose::Authenticate, None);
        assert_eq!(check(&login, |_| {}), Ok(()));
        assert_eq!(check(&login, |w| w.2 = Some(STRANGER)), Ok(()));
        for purpose in [Purpose::RegisterPasskey, Purpose::ConfirmPasskey] {
            let odd = ceremony(purpose, None);
            assert_eq!(check(&odd, |_| {}), Err(CeremonyError::OtherAccount));
            assert_eq!(
                check(&odd, |w| w.2 = None),
                Err(CeremonyError::OtherAccount)
            );
        }
    }

    #[test]
    fn a_login_begun_for_an_account_stays_with_it() {
        let login = ceremony(Purpose::Authenticate, Some(OWNER));
        assert_eq!(check(&login, |_| {}), Ok(()));
        assert_eq!(
            check(&login, |w| w.2 = Some(STRANGER)),
            Err(CeremonyError::OtherAccount)
        );
    }
}
