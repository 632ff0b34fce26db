//! Shamir's sharing of one ceremony's secret, over GF(2^8), by `vsss-rs`.
//!
//! Called by the parent only. The library was chosen over `sharks`, `blahaj`, `sssmc39` and
//! `shamirsecretsharing`: it is kept, was audited for two of its users, draws coefficients from the
//! whole field, and multiplies in constant time, where `blahaj` and `sharks` look tables up by secret
//! bytes; `sssmc39` brings ring, `shamirsecretsharing` a C library.

use std::convert::Infallible;

use aws_lc_rs::rand;
use rand_core::{TryCryptoRng, TryRng};
use vsss_rs::Gf256;

use super::EscrowError;
use crate::secret::{Secret, SecretBytes};

/// The number of a share, and a byte of it for each byte of the secret.
pub(super) const VALUE: usize = 33;

/// The host's random numbers, as the library asks for them. It knows no failing source; a failure is
/// kept, and the shares are thrown away.
#[derive(Default)]
struct Host {
    failed: bool,
}

impl TryRng for Host {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.failed |= rand::fill(out).is_err();
        Ok(())
    }
}

impl TryCryptoRng for Host {}

/// One value for each custodian; `needed` of them give the secret back.
pub(super) fn split(
    secret: &[u8; 32],
    needed: usize,
    count: usize,
) -> Result<Vec<SecretBytes>, EscrowError> {
    let mut host = Host::default();
    let values = Gf256::split_bytes(needed, count, secret, &mut host);
    let values = values.map_err(|_| EscrowError::Unsound)?;
    let values: Vec<SecretBytes> = values.into_iter().map(SecretBytes::from).collect();
    match (host.failed, values.iter().all(|value| value.len() == VALUE)) {
        (false, true) if values.len() == count => Ok(values),
        (true, _) => Err(EscrowError::Random),
        _ => Err(EscrowError::Unsound),
    }
}

/// What the values are shares of. Whether they belong together is for the caller to know.
pub(super) fn combine<'v>(
    values: impl Iterator<Item = &'v SecretBytes>,
) -> Result<Secret<32>, EscrowError> {
    let mut copies: Vec<Vec<u8>> = values.map(|value| value.expose().to_vec()).collect();
    let combined = Gf256::combine_bytes(&copies);
    copies.iter_mut().for_each(zeroize::Zeroize::zeroize);
    let combined = SecretBytes::from(combined.map_err(|_| EscrowError::Edited)?);
    let bytes: &[u8; 32] = combined
        .expose()
        .try_into()
        .map_err(|_| EscrowError::Edited)?;
    Ok(Secret::init(|place| place.copy_from_slice(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_few_give_it_back_and_fewer_do_not() {
        let secret = [0xA5; 32];
        let values = split(&secret, 3, 5).unwrap();
        for skipped in 0..5 {
            let two_gone = |at: &usize| *at != skipped && *at != (skipped + 2) % 5;
            let chosen = (0..5).filter(two_gone).map(|at| &values[at]);
            assert_eq!(combine(chosen).unwrap().expose(), &secret);
        }
        let few = combine(values.iter().take(2)).unwrap();
        assert_ne!(few.expose(), &secret);
        assert!(combine(values.iter().take(1)).is_err());
        assert!(combine([&values[0], &values[0], &values[1]].into_iter()).is_err());
    }

    #[test]
    fn shares_of_one_secret_differ_each_time() {
        let (one, two) = (
            split(&[0; 32], 2, 2).unwrap(),
            split(&[0; 32], 2, 2).unwrap(),
        );
        assert!(!one[0].ct_eq(&two[0]) && !one[1].ct_eq(&two[1]));
    }
}
