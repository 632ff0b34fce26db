//! DPoP nonces without a table: boot id, time and a MAC in one text.
//!
//! Called by `dpop` only. A nonce made by another process, or before this one
//! started, is never accepted: the replay cache lives in this process's memory,
//! and is complete only for nonces that this process made.

use aws_lc_rs::hmac;
use custodyd_policies::Timestamp;
use subtle::ConstantTimeEq;

use super::super::{RandomFailed, b64, random, unb64_array};
use super::NONCE_LIFETIME;

const DOMAIN: &[u8] = b"custodyd/dpop-nonce/v1";

/// The key and the boot id of this process.
pub(super) struct Nonces {
    boot: [u8; 8],
    key: hmac::Key,
}

impl Nonces {
    pub(super) fn new() -> Result<Self, RandomFailed> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()?);
        Ok(Nonces {
            boot: random()?,
            key,
        })
    }

    /// `base64url(boot id (8) || BE64 seconds (8) || HMAC-SHA-256 truncated (16))`.
    pub(super) fn make(&self, now: Timestamp) -> String {
        let mut bytes = [0u8; 32];
        let (boot, rest) = bytes.split_at_mut(8);
        let (time, mac) = rest.split_at_mut(8);
        boot.copy_from_slice(&self.boot);
        time.copy_from_slice(&now.0.to_be_bytes());
        mac.copy_from_slice(&self.mac(now.0.to_be_bytes()));
        b64(&bytes)
    }

    /// Ours, of this boot, and no older than [`NONCE_LIFETIME`].
    ///
    /// The text is the caller's: everything but the MAC is theirs to choose.
    pub(super) fn is_current(&self, now: Timestamp, text: &str) -> bool {
        let Some(bytes) = unb64_array::<32>(text) else {
            return false;
        };
        let (boot, rest) = bytes.split_at(8);
        let (time, mac) = rest.split_at(8);
        let Ok(time) = <[u8; 8]>::try_from(time) else {
            return false;
        };
        let ours = boot.ct_eq(&self.boot) & mac.ct_eq(&self.mac(time));
        let made = u64::from_be_bytes(time);
        let fresh = made <= now.0 && now.0.saturating_sub(made) <= NONCE_LIFETIME.as_secs();
        bool::from(ours) && fresh
    }

    fn mac(&self, time: [u8; 8]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(DOMAIN);
        context.update(&self.boot);
        context.update(&time);
        let mut short = [0u8; 16];
        for (to, from) in short.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        short
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on must stop
    use super::*;

    #[test]
    fn lives_for_its_lifetime_and_no_longer() {
        let nonces = Nonces::new().unwrap();
        let nonce = nonces.make(Timestamp(1000));
        assert!(nonces.is_current(Timestamp(1000), &nonce));
        assert!(nonces.is_current(Timestamp(1000 + NONCE_LIFETIME.as_secs()), &nonce));
        assert!(!nonces.is_current(Timestamp(1001 + NONCE_LIFETIME.as_secs()), &nonce));
        assert!(
            !nonces.is_current(Timestamp(999), &nonce),
            "from the future"
        );
    }

    #[test]
    fn another_process_is_another_boot() {
        let nonce = Nonces::new().unwrap().make(Timestamp(1000));
        assert!(!Nonces::new().unwrap().is_current(Timestamp(1000), &nonce));
    }

    #[test]
    fn no_bit_is_free() {
        let nonces = Nonces::new().unwrap();
        let bytes: [u8; 32] = unb64_array(&nonces.make(Timestamp(1000))).unwrap();
        for bit in 0..256 {
            let mut changed = bytes;
            *changed.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
            assert!(
                !nonces.is_current(Timestamp(1000), &b64(&changed)),
                "bit {bit}"
            );
        }
    }
}
