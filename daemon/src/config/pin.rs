//! The token's user PIN, from a file or a systemd credential.
//!
//! Called once by start-up and by the commands that open the token. The PIN never comes
//! from the command line or the environment (other users of the host can see those), and
//! it is never logged: errors name the file and not what it holds.

use std::path::PathBuf;

use custodyd_hsm::SecretBytes;

use super::Token;
use crate::private_file::{self, Access, PrivateFileError};

/// PKCS#11 tokens take PINs of up to 255 bytes; this leaves room for a line ending.
const MAX_FILE: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("token PIN: {0}{next}", next = next(.0))]
    File(#[from] PrivateFileError),
    #[error(
        "token PIN: the configuration names the systemd credential {name:?}, but CREDENTIALS_DIRECTORY is \
         not set; add LoadCredential={name}:FILE to the unit, or use token.pin_file"
    )]
    NoCredentials { name: String },
    #[error("token PIN: neither token.pin_file nor token.pin_credential is set")]
    NotNamed,
    #[error("token PIN: {}: expected the PIN on one line, {found}", path.display())]
    Content { path: PathBuf, found: &'static str },
}

/// The other errors of a file say themselves what to do.
fn next(error: &PrivateFileError) -> &'static str {
    match error {
        PrivateFileError::Unreadable { .. } => {
            "; write the PIN of the token's user into it (mode 0600), or name the file that has it, by token.pin_file or \
             --pin-file"
        }
        _ => "",
    }
}

/// Reads the PIN. The file must be regular, owned by this user or root, and closed to everybody else.
pub fn read_token_pin(token: &Token) -> Result<SecretBytes, PinError> {
    let (path, access) = locate(token)?;
    let mut content = private_file::read(&path, access, MAX_FILE)?;
    if content.last() == Some(&b'\n') {
        content.pop();
        if content.last() == Some(&b'\r') {
            content.pop();
        }
    }
    let found = match content.as_slice() {
        [] => Some("found nothing"),
        bytes if bytes.contains(&b'\n') => Some("found several lines"),
        _ => None,
    };
    match found {
        Some(found) => Err(PinError::Content { path, found }),
        // The bytes move into the new owner; `take` leaves an empty vector behind.
        None => Ok(SecretBytes::from(std::mem::take(&mut *content))),
    }
}

fn locate(token: &Token) -> Result<(PathBuf, Access), PinError> {
    if let Some(path) = &token.pin_file {
        return Ok((path.clone(), Access::Owner));
    }
    let name = token.pin_credential.as_ref().ok_or(PinError::NotNamed)?;
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) => Ok((
            PathBuf::from(directory).join(name),
            Access::SystemdCredential,
        )),
        None => Err(PinError::NoCredentials { name: name.clone() }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn pin_from(content: &[u8]) -> Result<SecretBytes, PinError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        read_token_pin(&Token {
            kind: crate::config::TokenKind::Pkcs11 {
                module: PathBuf::new(),
                label: String::new(),
                serial: None,
            },
            pin_file: Some(path),
            pin_credential: None,
            escrow: None,
            threads: 1,
            queue: 1,
            deadline: std::time::Duration::from_secs(1),
            replicas: crate::config::Replicas::default(),
        })
    }

    #[test]
    fn one_line_ending_is_stripped_and_nothing_else() {
        for text in ["1234", "1234\n", "1234\r\n"] {
            assert_eq!(pin_from(text.as_bytes()).unwrap().expose(), b"1234");
        }
        assert_eq!(pin_from(b" 1234 ").unwrap().expose(), b" 1234 ");
    }

    #[test]
    fn an_empty_or_longer_text_is_refused_without_repeating_it() {
        for text in ["", "\n", "1234\n5678\n", "1234\n\n"] {
            let message = pin_from(text.as_bytes()).unwrap_err().to_string();
            assert!(!message.contains("1234"), "{message}");
        }
    }
}
