//! Whom outgoing TLS believes: the authorities of the host, and one of the operator's own.
//!
//! Called by `smtp`, which needs the second alone (lettre finds the first by itself), and by
//! `https`. A `ca_file` adds to what the host trusts and replaces nothing.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::SetupError;

/// The certificates of a PEM file; never none.
pub(super) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let wrong = |found: String| SetupError::Authority {
        path: path.to_owned(),
        found,
    };
    let content = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let certificates = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(format!("damaged text ({error})")))?;
    if certificates.is_empty() {
        return Err(wrong("no certificate".to_owned()));
    }
    Ok(certificates)
}

/// The TLS error at the bottom of a failed connection, where there is one: a certificate does
/// not become right by waiting.
pub(crate) fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    if let Some(tls) = error.downcast_ref() {
        return Some(tls);
    }
    // An I/O error hides what it wraps from `source`.
    let wrapped = error.downcast_ref::<std::io::Error>();
    match wrapped.and_then(std::io::Error::get_ref) {
        Some(inner) => tls_error(inner),
        None => error.source().and_then(tls_error),
    }
}

/// TLS 1.2 or 1.3 with the host's authorities and those of `ca_file`.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore::empty();
    // A host may have some that do not parse, or none where the operator names their own.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        for certificate in authorities(path)? {
            let added = roots.add(certificate);
            added.map_err(|error| SetupError::Authority {
                path: path.to_owned(),
                found: format!("a certificate that cannot be used ({error})"),
            })?;
        }
    }
    if roots.is_empty() {
        let what = "this host trusts no authority: install ca-certificates or name a ca_file";
        return Err(SetupError::Tls(what.to_owned()));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_tls_error_is_found_below_others_and_nowhere_else() {
        let tls = || rustls::Error::EncryptError;
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, tls());
        let twice = io::Error::other(wrapped);
        assert_eq!(tls_error(&twice), Some(&tls()));
        assert_eq!(tls_error(&tls()), Some(&tls()));
        assert_eq!(tls_error(&io::Error::other("reset")), None);
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let told = || client_config(Some(&path)).unwrap_err().to_string();
        assert!(told().contains("ca.pem"));
        std::fs::write(&path, "no PEM").unwrap();
        assert!(told().contains("found no certificate"), "{}", told());
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        std::fs::write(&path, made.cert.pem()).unwrap();
        assert!(client_config(Some(&path)).is_ok());
    }
}
