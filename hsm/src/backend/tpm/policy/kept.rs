//! The file that says in words which states are approved: `pcrs`, beside the records of anchors.
//!
//! Called by the parent. Nothing in it counts before its digest is the one in the NV index. While that
//! is written there are two files, and both are looked at: after a crash one of them fits.

use std::{io, path::Path};

use crate::{
    backend::{
        attempt::Trouble,
        tpm::{files, pcr::Approved},
    },
    error::Error,
};

const KEPT: &str = "pcrs";
const NEW: &str = "pcrs.new";
const LONGEST: u64 = 65_536;

/// What was approved by this digest, if a file says it.
pub(super) fn find(directory: &Path, digest: &[u8; 32]) -> Option<Approved> {
    let read = [KEPT, NEW]
        .into_iter()
        .filter_map(|name| load(&directory.join(name)));
    read.into_iter()
        .find(|approved| approved.digest() == *digest)
}

/// Before the index is written.
pub(super) fn prepare(directory: &Path, approved: &Approved) -> Result<(), Trouble> {
    files::write(directory, Path::new(NEW), approved.encode().as_bytes())
        .map_err(|error| failed(directory, &error))
}

/// After it.
pub(super) fn settle(directory: &Path) -> Result<(), Trouble> {
    files::rename(directory, NEW, KEPT).map_err(|error| failed(directory, &error))
}

fn failed(directory: &Path, error: &io::Error) -> Trouble {
    let reason = format!("{}: {error}", directory.join(NEW).display());
    Trouble::Final(Error::unavailable("keep the approved PCRs", reason))
}

fn load(path: &Path) -> Option<Approved> {
    let bytes = match files::read(path, LONGEST) {
        Ok(bytes) => bytes?,
        // Such as one that root has written, and the daemon may not read.
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "a file of approved PCRs cannot be read");
            return None;
        }
    };
    let approved = Approved::decode(&bytes);
    if approved.is_none() {
        tracing::warn!(file = %path.display(), "a file of approved PCRs says nothing");
    }
    approved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_files_fits_after_a_crash() {
        let directory = tempfile::tempdir().unwrap();
        let state = |byte: &str| {
            let state = crate::backend::tpm::PcrState::parse(&format!("7={}", byte.repeat(32)));
            Approved::states(vec![state.unwrap()]).unwrap()
        };
        let (one, other) = (state("01"), state("02"));
        prepare(directory.path(), &one).unwrap();
        assert_eq!(find(directory.path(), &one.digest()), Some(one.clone()));
        settle(directory.path()).unwrap();
        prepare(directory.path(), &other).unwrap();
        for approved in [&one, &other] {
            assert_eq!(
                find(directory.path(), &approved.digest()).as_ref(),
                Some(approved)
            );
        }
        settle(directory.path()).unwrap();
        assert_eq!(find(directory.path(), &one.digest()), None);
    }
}
