//! The TLS configuration of the public listener (RFC 8446, and the hybrid key exchange of
//! draft-ietf-tls-ecdhe-mlkem).
//!
//! Called by start-up, by a reload and by `doctor`. TLS 1.3 only: every client that can make a DPoP
//! proof with WebCrypto has it, and nothing older needs to be defended. Early data stays
//! off, because it could be replayed. The private key is read under the same rules as the
//! token PIN and never appears in an error.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig};

use crate::private_file::{self, Place, PrivateFileError};

/// A chain of a few certificates is some kilobytes, also with post-quantum signatures.
const MAX_FILE: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("certificate {}: cannot be read ({source})", path.display())]
    Certificate {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("certificate {}: {message}", path.display())]
    CertificateContent { path: PathBuf, message: String },
    #[error("private key {0}")]
    Key(#[from] PrivateFileError),
    #[error("private key {}: {message}", path.display())]
    KeyContent { path: PathBuf, message: String },
    #[error(
        "private key {} does not belong to the certificate {}: the first certificate in the file must be the \
         server's own, the intermediates after it", key.display(), certificate.display()
    )]
    Mismatch { key: PathBuf, certificate: PathBuf },
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The configuration that the next connection gets. A connection that stands keeps its own.
#[derive(Debug)]
pub struct Tls(RwLock<Arc<ServerConfig>>);

impl Tls {
    #[must_use]
    pub fn new(config: Arc<ServerConfig>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(config)))
    }

    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// No ticket of the replaced certificate is resumed: a new configuration has keys of its own.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

/// Everything the listener needs, checked: the files are readable and belong together.
pub fn server_config(
    certificate: &Path,
    private_key: &Place,
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = read_chain(certificate)?;
    let (private_key, access) = private_key.locate()?;
    let key = read_key(&private_key, access)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| explain(error, certificate, &private_key))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// aws-lc-rs with the hybrid key exchange first: what is recorded today stays closed to a
/// quantum computer as long as either half holds.
fn provider() -> CryptoProvider {
    let provider = aws_lc_rs::default_provider();
    CryptoProvider {
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
        ],
        ..provider
    }
}

/// The certificates of a PEM file in their order; never empty.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = std::fs::read(path).map_err(|source| TlsError::Certificate {
        path: path.to_owned(),
        source,
    })?;
    let wrong = |message: String| TlsError::CertificateContent {
        path: path.to_owned(),
        message,
    };
    if content.len() > MAX_FILE {
        return Err(wrong(format!("expected at most {MAX_FILE} bytes")));
    }
    let chain = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(format!("expected PEM, found damaged text ({error})")))?;
    if chain.is_empty() {
        return Err(wrong(
            "expected PEM with at least one \"-----BEGIN CERTIFICATE-----\", found none".to_owned(),
        ));
    }
    Ok(chain)
}

fn read_key(path: &Path, access: private_file::Access) -> Result<PrivateKeyDer<'static>, TlsError> {
    let content = private_file::read(path, access, MAX_FILE)?;
    // The parser's own error may quote a line of the file, which may be key material.
    PrivateKeyDer::from_pem_slice(&content).map_err(|_| TlsError::KeyContent {
        path: path.to_owned(),
        message: "expected PEM with an unencrypted \"-----BEGIN PRIVATE KEY-----\" (or EC or RSA PRIVATE KEY)"
            .to_owned(),
    })
}

fn explain(error: rustls::Error, certificate: &Path, key: &Path) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Mismatch {
            key: key.to_owned(),
            certificate: certificate.to_owned(),
        },
        rustls::Error::InvalidCertificate(reason) => TlsError::CertificateContent {
            path: certificate.to_owned(),
            message: format!("is not a certificate that TLS can use ({reason:?})"),
        },
        rustls::Error::General(reason) => TlsError::KeyContent {
            path: key.to_owned(),
            message: format!(
                "is not a key that TLS 1.3 can use ({reason}); use ECDSA P-256, Ed25519 or RSA"
            ),
        },
        other => TlsError::Rustls(other),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Files {
        _dir: tempfile::TempDir,
        certificate: PathBuf,
        key: PathBuf,
    }

    fn files() -> Files {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        Files {
            _dir: dir,
            certificate,
            key,
        }
    }

    fn refusal(certificate: &Path, key: &Path) -> String {
        server_config(certificate, &Place::File(key.to_owned()))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_post_quantum_hybrid_comes_first_and_only_tls_1_3_is_spoken() {
        let files = files();
        let config = server_config(&files.certificate, &Place::File(files.key.clone())).unwrap();
        let first = config.crypto_provider().kx_groups.first().unwrap().name();
        assert_eq!(first, rustls::NamedGroup::X25519MLKEM768);
        assert_eq!(
            config.alpn_protocols,
            [b"h2".to_vec(), b"http/1.1".to_vec()]
        );
        assert_eq!(config.max_early_data_size, 0);
    }

    #[test]
    fn a_key_of_another_certificate_is_named() {
        let (one, two) = (files(), files());
        let message = refusal(&one.certificate, &two.key);
        assert!(
            message.contains("does not belong to the certificate"),
            "{message}"
        );
    }

    #[test]
    fn wrong_files_are_named_with_what_was_expected() {
        let files = files();
        let message = refusal(&files.key, &files.key);
        assert!(message.contains("BEGIN CERTIFICATE"), "{message}");
        fs::write(&files.key, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n").unwrap();
        let message = refusal(&files.certificate, &files.key);
        assert!(
            message.contains("expected PEM with an unencrypted"),
            "{message}"
        );
        assert!(!message.contains("c2VjcmV0"), "{message}");
        let message = refusal(Path::new("/nonexistent"), &files.key);
        assert!(message.contains("/nonexistent"), "{message}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let files = files();
        fs::set_permissions(&files.key, Permissions::from_mode(0o644)).unwrap();
        assert!(refusal(&files.certificate, &files.key).contains("chmod 0600"));
    }
}
