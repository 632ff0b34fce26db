//! What a ceremony leaves on the host: the folder for the custodians, and the manifest that the configuration names.
//!
//! Called by the two ceremonies that make keys, before a token is changed. Each is there whole or not at all.
//! Shares and what is unfinished are for their owner alone; manifests are for everybody, and the daemon reads one that
//! root has written.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use custodyd_hsm::escrow::{Escrow, Manifests};

use super::{CeremonyError, write};

const MANIFEST: &str = "manifest.json";
const UNFINISHED: &str = "unfinished";
const WIPED: &str = "unfinished.wiped";

pub(super) fn manifest_of(directory: &Path) -> PathBuf {
    directory.join(MANIFEST)
}

/// Where the new keys of a ceremony are until every token has them.
pub(super) fn unfinished_of(directory: &Path) -> PathBuf {
    directory.join(UNFINISHED)
}

/// The same while they are wiped. Whatever it holds, the ceremony is over.
pub(super) fn wiped_of(directory: &Path) -> PathBuf {
    directory.join(WIPED)
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CeremonyError {
    let path = path.to_owned();
    move |source| CeremonyError::Io { path, source }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// Makes the folder: a share for each custodian and the manifests, and what is to be kept until the ceremony is over.
pub(super) fn shares(
    directory: &Path,
    manifests: &Manifests,
    made: &Escrow,
    unfinished: Option<&[u8]>,
) -> Result<(), CeremonyError> {
    let draft = with_ending(directory, ".new");
    if draft.exists() {
        return Err(CeremonyError::Refused(format!(
            "{} is there, of a ceremony that was stopped before a token was changed: remove it",
            draft.display()
        )));
    }
    std::fs::create_dir(&draft).map_err(io(&draft))?;
    public(&draft.join(MANIFEST), manifests.encode()?.as_bytes())?;
    for (custodian, file) in made.manifest.custodians.iter().zip(&made.files) {
        let path = draft.join(format!("{}.age", custodian.name));
        write(&path, file.as_bytes())?;
    }
    if let Some(kept) = unfinished {
        write(&draft.join(UNFINISHED), kept)?;
    }
    sync(&draft)?;
    std::fs::rename(&draft, directory).map_err(io(directory))?;
    sync_parent(directory)
}

/// Puts the manifests where the configuration says; those of before are there until these are.
pub(super) fn publish(place: &Path, manifests: &Manifests) -> Result<(), CeremonyError> {
    put(place, manifests.encode()?.as_bytes())
}

/// What a crash has left beside it goes, and so does what could not be put in place: whoever looks for the manifest finds one that
/// counts, or none.
fn put(place: &Path, content: &[u8]) -> Result<(), CeremonyError> {
    let draft = with_ending(place, ".new");
    let remove = || match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(&draft)(error)),
        _ => Ok(()),
    };
    remove()?;
    let written =
        public(&draft, content).and_then(|()| std::fs::rename(&draft, place).map_err(io(place)));
    if let Err(error) = written {
        let _ = remove();
        return Err(error);
    }
    sync_parent(place)
}

/// What becomes of the files of a ceremony that a token has refused, and what to say. Where none holds any of the keys, nobody will ever need
/// them, and they would stand in the way of the next attempt; else they are all that brings those keys back.
pub(super) fn taken_back(
    untouched: bool,
    error: CeremonyError,
    [place, directory]: [&Path; 2],
) -> CeremonyError {
    let told = super::super::chain(&error);
    let (place_shown, directory_shown) = (place.display(), directory.display());
    if !untouched {
        return CeremonyError::Refused(format!(
            "{told}. A token may hold some of the keys by now, so {place_shown} and {directory_shown} stay: initialise that \
             token anew, remove both, then run the same command again"
        ));
    }
    let gone = match std::fs::remove_file(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(place)(error)),
        _ => std::fs::remove_dir_all(directory).map_err(io(directory)),
    };
    CeremonyError::Refused(match gone {
        Ok(()) => format!(
            "{told}. No token holds any of the keys, and nothing was left in {place_shown} and {directory_shown}: once that is mended, \
             run the same command again"
        ),
        Err(error) => format!(
            "{told}. No token holds any of the keys: remove {place_shown} and {directory_shown} ({error}), then run the same \
             command again"
        ),
    })
}

/// The ceremony is over: the keys are in every token, and in the shares. They are given another name first, so that a
/// crash leaves them whole, or under the name that says how far this came; and it is done by doing it again.
pub(super) fn finish(directory: &Path) -> Result<(), CeremonyError> {
    let (kept, path) = (unfinished_of(directory), wiped_of(directory));
    if kept.exists() {
        std::fs::rename(&kept, &path).map_err(io(&kept))?;
        sync(directory)?;
    }
    // It was sealed all the same.
    wipe(&path).map_err(io(&path))?;
    sync(directory)
}

/// Overwrites a file and removes it: as far as the disk writes over what was there.
pub(super) fn wipe(path: &Path) -> std::io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    let length = file.metadata()?.len();
    file.write_all(&vec![0; usize::try_from(length).unwrap_or(0)])?;
    file.sync_all()?;
    std::fs::remove_file(path)
}

/// A new file that everybody may read, whatever the process lets others do by default.
fn public(path: &Path, content: &[u8]) -> Result<(), CeremonyError> {
    let made = File::create_new(path).and_then(|mut file| {
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(content)?;
        file.sync_all()
    });
    made.map_err(io(path))
}

fn sync_parent(path: &Path) -> Result<(), CeremonyError> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync(folder),
        _ => sync(Path::new(".")),
    }
}

fn sync(folder: &Path) -> Result<(), CeremonyError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(io(folder))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_can_not_be_put_in_place_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("escrow.json");
        let draft = with_ending(&place, ".new");
        // As a crash leaves it.
        std::fs::write(&draft, "half").unwrap();
        put(&place, b"first").unwrap();
        assert!(!draft.exists());
        put(&place, b"second").unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), b"second");
        let taken = dir.path().join("taken");
        std::fs::create_dir_all(taken.join("by a folder")).unwrap();
        assert!(put(&taken, b"third").is_err());
        assert!(!with_ending(&taken, ".new").exists());
    }

    #[test]
    fn what_is_wiped_is_overwritten_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (path, place) = (dir.path().join("identity"), dir.path().join("place"));
        std::fs::write(&path, [7; 600]).unwrap();
        // Another name for the same place on the disk.
        std::fs::hard_link(&path, &place).unwrap();
        wipe(&path).unwrap();
        assert!(!path.exists());
        assert_eq!(std::fs::read(&place).unwrap(), [0; 600]);
        assert!(wipe(&path).is_err());
    }

    #[test]
    fn what_is_half_wiped_has_another_name_and_is_wiped_by_doing_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, wiped) = (unfinished_of(dir.path()), wiped_of(dir.path()));
        std::fs::write(&kept, [7; 600]).unwrap();
        finish(dir.path()).unwrap();
        assert!(!kept.exists() && !wiped.exists());
        // As a crash leaves it.
        std::fs::write(&wiped, [[0; 300], [7; 300]].concat()).unwrap();
        finish(dir.path()).unwrap();
        assert!(!kept.exists() && !wiped.exists());
        assert!(finish(dir.path()).is_err(), "there is nothing to finish");
    }
}
