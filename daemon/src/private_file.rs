//! Reading a file that holds a secret (the token PIN, the TLS private key), and making one.
//!
//! Called by `config::read_token_pin`, `http::tls`, `doctor` and `account export`. It refuses a file that
//! anybody but the daemon and root could have read or written: an adversary with another
//! account on this host controls what such a file holds, or knows it already. It never
//! logs and never puts content into an error.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// Why a secret file was refused, with what to do. Never its content.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    #[error("{}: cannot be read ({source})", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: cannot be made ({source})", path.display())]
    NotMade { path: PathBuf, source: io::Error },
    #[error("{}: expected a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error(
        "{}: belongs to user {owner}, who could change it; run: chown {expected} '{}'",
        path.display(), path.display()
    )]
    Owner {
        path: PathBuf,
        owner: u32,
        expected: u32,
    },
    #[error(
        "{}: mode {mode:04o} lets other users at it; run: chmod {wanted:04o} '{}'",
        path.display(), path.display()
    )]
    Mode {
        path: PathBuf,
        mode: u32,
        wanted: u32,
    },
    #[error("{}: larger than {limit} bytes, so it is not the file that was meant", path.display())]
    TooLarge { path: PathBuf, limit: usize },
    #[error(
        "systemd credential {name:?}: CREDENTIALS_DIRECTORY is not set; add LoadCredential={name}:FILE or \
         LoadCredentialEncrypted={name}:FILE to the unit, or name a file in the configuration"
    )]
    NoCredentials { name: String },
}

/// Where the configuration says that a secret is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// A file of this user or root, closed to everybody else.
    File(PathBuf),
    /// A systemd credential, by its name: a file in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

impl Place {
    /// The file behind it, and who may be named in its mode.
    ///
    /// # Errors
    /// For a credential of a process that was given none.
    pub fn locate(&self) -> Result<(PathBuf, Access), PrivateFileError> {
        match self {
            Self::File(path) => Ok((path.clone(), Access::Owner)),
            Self::Credential(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
                Some(directory) => Ok((
                    PathBuf::from(directory).join(name),
                    Access::SystemdCredential,
                )),
                None => Err(PrivateFileError::NoCredentials { name: name.clone() }),
            },
        }
    }
}

/// A name that systemd accepts for a credential, and that stays in its directory.
#[must_use]
pub fn is_credential_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Who besides the owner may be named in the mode bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Nobody.
    Owner,
    /// A credential made by systemd for a service with `User=`: root owns it, an ACL lets
    /// the service read it, and the group bits of the mode then show the mask of that
    /// ACL (`stat` says 0440). Its folder is closed to everybody else.
    SystemdCredential,
}

/// Makes a file that only its owner reads. One that is there already is left alone.
pub fn create(path: &Path) -> Result<File, PrivateFileError> {
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.map_err(|source| PrivateFileError::NotMade {
        path: path.to_owned(),
        source,
    })
}

/// Reads a whole file of at most `limit` bytes, after its owner and mode are found safe.
pub fn read(
    path: &Path,
    access: Access,
    limit: usize,
) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    let file = open(path)?;
    check(path, &file, access)?;
    let unreadable = |source| PrivateFileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    // The buffer never grows: growing would leave a copy of the secret in freed memory.
    let mut content = Zeroizing::new(vec![0; limit.saturating_add(1)]);
    let mut length = 0;
    while let Some(rest) = content.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match (&file).read(rest) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    if length > limit {
        return Err(PrivateFileError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    content.truncate(length);
    Ok(content)
}

fn open(path: &Path) -> Result<File, PrivateFileError> {
    // Not blocking: opening a FIFO put there would otherwise hang the start.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|source| PrivateFileError::Unreadable {
            path: path.to_owned(),
            source,
        })
}

/// Judges the file that was opened, not its name, which could point elsewhere a moment later.
fn check(path: &Path, file: &File, access: Access) -> Result<(), PrivateFileError> {
    let metadata = file
        .metadata()
        .map_err(|source| PrivateFileError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
    if !metadata.is_file() {
        return Err(PrivateFileError::NotAFile {
            path: path.to_owned(),
        });
    }
    let ours = rustix::process::geteuid().as_raw();
    if metadata.uid() != ours && metadata.uid() != 0 {
        return Err(PrivateFileError::Owner {
            path: path.to_owned(),
            owner: metadata.uid(),
            expected: ours,
        });
    }
    let mode = metadata.mode() & 0o7777;
    let (forbidden, wanted) = match access {
        Access::Owner => (0o077, 0o600),
        Access::SystemdCredential => (0o037, 0o400),
    };
    if mode & forbidden != 0 {
        return Err(PrivateFileError::Mode {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, b"1234\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_file_of_our_own_is_read() {
        let (_dir, path) = file(0o600);
        assert_eq!(*read(&path, Access::Owner, 5).unwrap(), b"1234\n");
    }

    #[test]
    fn a_file_open_to_others_is_refused_with_the_command() {
        for mode in [0o640, 0o604, 0o620, 0o601] {
            let (_dir, path) = file(mode);
            let message = read(&path, Access::Owner, 64).unwrap_err().to_string();
            assert!(message.contains("run: chmod 0600 '"), "{message}");
            assert!(!message.contains("1234"), "{message}");
        }
    }

    #[test]
    fn a_systemd_credential_may_show_an_acl_mask() {
        let (_dir, path) = file(0o440);
        assert!(read(&path, Access::SystemdCredential, 64).is_ok());
        let (_dir, path) = file(0o444);
        assert!(read(&path, Access::SystemdCredential, 64).is_err());
    }

    #[test]
    fn a_credential_is_a_plain_name_of_a_unit_that_was_given_one() {
        for name in ["token-pin", "tls_key.pem", "A1"] {
            assert!(is_credential_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "../x", "a b", "ä", &"a".repeat(256)] {
            assert!(!is_credential_name(name), "{name}");
        }
        let file = Place::File(PathBuf::from("/k"));
        assert_eq!(file.locate().unwrap(), (PathBuf::from("/k"), Access::Owner));
        // Tests run outside of a unit.
        let told = Place::Credential("k".to_owned()).locate().unwrap_err();
        assert!(told.to_string().contains("LoadCredential=k:FILE"));
    }

    #[test]
    fn what_is_not_a_small_file_is_refused() {
        let (dir, path) = file(0o600);
        assert!(matches!(
            read(dir.path(), Access::Owner, 64),
            Err(PrivateFileError::NotAFile { .. })
        ));
        assert!(matches!(
            read(&path, Access::Owner, 4),
            Err(PrivateFileError::TooLarge { .. })
        ));
    }
}
