//! The host's random generator, as the OPAQUE library wants it.
//!
//! Used by the parent, afresh for each answer. The library's trait has no way to say that there
//! is no randomness but to panic, so a failure is noted here and asked for afterwards: what was computed
//! with it must never leave the process.

use aws_lc_rs::rand;
use opaque_ke::rand::{CryptoRng, Error, RngCore};

use crate::factors::RandomFailed;

#[derive(Debug, Default)]
pub(super) struct HostRandom {
    failed: bool,
}

impl HostRandom {
    /// Whether all that was drawn was random.
    pub(super) fn worked(&self) -> Result<(), RandomFailed> {
        if self.failed {
            return Err(RandomFailed);
        }
        Ok(())
    }
}

impl CryptoRng for HostRandom {}

impl RngCore for HostRandom {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        if rand::fill(to).is_err() {
            self.failed = true;
            // Not zeros: the library would draw again for ever, looking for a scalar that is none.
            to.fill(1);
        }
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(to);
        Ok(())
    }
}
