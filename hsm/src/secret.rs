//! Secret bytes: boxed, zeroized on drop, redacted in Debug, never cloned,
//! compared in constant time.
//!
//! Used for derived keys, peppers, PINs and opened plaintexts. Nothing here may
//! print, serialise or copy a secret; `expose` is the only way in, so that each
//! use can be found by searching for that word.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// `N` secret bytes on the heap, so that a move copies a pointer and not the bytes.
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Makes a secret by filling its final place.
    #[must_use]
    pub fn init(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0);
        secret
    }

    /// Like [`Secret::init`], for a source that can fail.
    ///
    /// # Errors
    /// The source's own; what it wrote until then is zeroized.
    pub fn try_init<E>(
        fill: impl FnOnce(&mut [u8; N]) -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// The bytes. Do not keep a copy.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Compares in constant time.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>(redacted)")
    }
}

/// Secret bytes of a length known only at run time.
///
/// The vector is never grown after it was filled, so no reallocation leaves a
/// copy behind; the whole capacity is zeroized on drop.
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Makes a secret of `len` bytes by filling its final place.
    #[must_use]
    pub fn init(len: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut secret = Self(vec![0; len]);
        fill(&mut secret.0);
        secret
    }

    /// The bytes. Do not keep a copy.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in constant time for equal lengths; the length is not secret.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Forgets what lies behind `length`; the bytes there are zeroized.
    pub(crate) fn truncate(&mut self, length: usize) {
        if let Some(rest) = self.0.get_mut(length..) {
            rest.zeroize();
            self.0.truncate(length);
        }
    }
}

/// Takes the vector over as it is: its buffer is not moved, so nothing is left behind.
impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        // As two slices, which are filled: a vector is wiped byte by byte, and that took longer than to encrypt it.
        self.0.as_mut_slice().zeroize();
        self.0.spare_capacity_mut().zeroize();
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes, redacted)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_byte() {
        let secret = Secret::<4>::init(|bytes| bytes.copy_from_slice(&[0xAB; 4]));
        assert_eq!(format!("{secret:?}"), "Secret<4>(redacted)");
        let bytes = SecretBytes::from(b"hunter2".to_vec());
        assert_eq!(format!("{bytes:?}"), "SecretBytes(7 bytes, redacted)");
    }

    #[test]
    fn taking_a_vector_over_does_not_move_its_bytes() {
        let mut vector = Vec::with_capacity(64);
        vector.extend_from_slice(b"secret");
        let place = vector.as_ptr();
        assert_eq!(SecretBytes::from(vector).expose().as_ptr(), place);
    }

    #[test]
    fn comparison_is_by_value() {
        let one = Secret::<2>::init(|bytes| *bytes = [1, 2]);
        let same = Secret::<2>::init(|bytes| *bytes = [1, 2]);
        let other = Secret::<2>::init(|bytes| *bytes = [1, 3]);
        assert!(one.ct_eq(&same));
        assert!(!one.ct_eq(&other));
        assert!(!SecretBytes::from(vec![1]).ct_eq(&SecretBytes::from(vec![1, 2])));
    }

    #[test]
    fn a_failing_source_gives_its_error() {
        assert_eq!(Secret::<2>::try_init(|_| Err("no")).map(|_| ()), Err("no"));
    }

    /// What is in memory at a place where nothing lives any more: the kernel reads it, so that nobody refers to it. It takes no place of
    /// the allocator's, which could be that one.
    fn found_at(place: *const u8) -> [u8; LARGE] {
        let mut found = [0; LARGE];
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut found, place.addr() as u64)
            .unwrap();
        found
    }

    /// Large enough to stand out, small enough for the allocator to keep its pages. What it writes into a free place for itself are
    /// a few words at its beginning.
    const LARGE: usize = 1000;
    const ITS_OWN: usize = 32;
    const MARK: u8 = 0xA7;

    /// How many of the secret's bytes are left behind where `made` was.
    fn left_of<T>(made: T, place: impl FnOnce(&T) -> *const u8) -> usize {
        let place = place(&made);
        assert_eq!(found_at(place)[ITS_OWN..], MARKS[ITS_OWN..]);
        drop(made);
        let found = found_at(place);
        found[ITS_OWN..]
            .iter()
            .filter(|byte| **byte == MARK)
            .count()
    }

    static MARKS: [u8; LARGE] = [MARK; LARGE];

    #[test]
    fn nothing_of_a_secret_is_left_where_it_was() {
        let secret = Secret::<LARGE>::init(|bytes| bytes.copy_from_slice(&MARKS));
        assert_eq!(left_of(secret, |secret| secret.expose().as_ptr()), 0);
        let secret = SecretBytes::from(MARKS.to_vec());
        assert_eq!(left_of(secret, |secret| secret.expose().as_ptr()), 0);
        // What a vector held before it was shortened lies behind its end.
        let mut longer = MARKS.to_vec();
        longer.truncate(1);
        let secret = SecretBytes::from(longer);
        assert_eq!(left_of(secret, |secret| secret.expose().as_ptr()), 0);
        // The control: what is no secret is found.
        let plain = Box::new(MARKS);
        assert!(left_of(plain, |plain| plain.as_ptr()) > LARGE / 2);
    }

    #[test]
    fn what_is_cut_off_or_came_before_an_error_is_wiped() {
        let mut secret = SecretBytes::from(MARKS.to_vec());
        secret.truncate(10);
        assert_eq!(found_at(secret.expose().as_ptr())[10..], [0; LARGE - 10]);
        let mut place = std::ptr::null();
        let failed = Secret::<LARGE>::try_init(|bytes| {
            bytes.copy_from_slice(&MARKS);
            place = bytes.as_ptr();
            Err(())
        });
        assert!(failed.is_err());
        assert!(!found_at(place)[ITS_OWN..].contains(&MARK));
    }
}
