//! From a policy file to an [`AppPolicy`], or to all the mistakes in it at once.
//!
//! Called by the daemon at start-up and at a reload, which reads the file and hands the text in. The text may be
//! anything: it never panics, and nothing in it is guessed, skipped or repaired, because a misspelt limit that is
//! silently ignored is a limit that does not exist. Must never return a policy from a file with a mistake.

mod budget;
mod fields;
mod identity;
mod one_time;
mod people;
mod protection;
mod releases;
mod section;
mod shown;

use toml::de::DeTable;

use crate::app::AppPolicy;
use crate::bounds;
use crate::factor::Factor;
use section::{Flaws, Section};

/// One mistake in a policy file. Displays as `demo.toml:12:8: sessions.idle: expected ...`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct PolicyError {
    /// The file as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The setting, what was expected and what was found. One line, without control characters.
    pub message: String,
}

/// Reads one policy file. `file` only names it in the errors. Everything has a default but `app`, `origins` and
/// `relying_party.id`; the shipped files tell them.
///
/// # Errors
/// Every mistake found, in the order of the file, at least one. A file that is not TOML gives its syntax errors
/// only, one that is larger than [`FILE_BYTES`](bounds::FILE_BYTES) only that.
pub fn parse(file: &str, text: &str) -> Result<AppPolicy, Vec<PolicyError>> {
    let mut flaws = Flaws::default();
    let policy = read(text, &mut flaws);
    match policy {
        Some(policy) if flaws.is_empty() => Ok(policy),
        _ => Err(locate(file, text, flaws)),
    }
}

fn read(text: &str, flaws: &mut Flaws) -> Option<AppPolicy> {
    if text.len() > bounds::FILE_BYTES {
        let most = bounds::FILE_BYTES;
        flaws.add(0, format!("expected a file of at most {most} bytes"));
        return None;
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        flaws.add(at, format!("not TOML: {}", error.message()));
    }
    if !errors.is_empty() {
        return None;
    }
    let mut root = Section::root(document.get_ref(), flaws);
    let policy = policy(&mut root);
    root.finish();
    policy
}

fn policy(root: &mut Section<'_, '_>) -> Option<AppPolicy> {
    let identity = identity::read(root);
    let sessions = fields::sessions(root);
    let pin = protection::pin(root);
    let passkeys = fields::passkeys(root);
    let totp = one_time::totp(root);
    let origins = identity.as_ref().map(|found| found.origins.as_slice());
    let delivered_codes = one_time::delivered_codes(root, origins);
    let recovery_codes = one_time::recovery_codes(root);
    let logins = logins(|factor| match factor {
        Factor::Pin => pin.allowed,
        Factor::Passkey => passkeys.allowed,
        Factor::Totp => totp.allowed,
        Factor::DeliveredCode => delivered_codes.allowed,
        Factor::RecoveryCode => recovery_codes.allowed,
        Factor::Creation | Factor::Device => false,
    });
    let contacts = people::contacts(root, delivered_codes.allowed);
    let aliases = people::aliases(root);
    let devices = fields::devices(root, pin.allowed, delivered_codes.allowed);
    let secrets = fields::secrets(root);
    let release = releases::release(root, &logins, secrets.server_slot);
    let recover = releases::recover(root, &logins);
    let enrolment = people::enrolment(root);
    let backend = people::backend(root);
    let retention = people::retention(root);
    let identity = identity?;
    Some(AppPolicy {
        app: identity.app,
        display_name: identity.display_name,
        origins: identity.origins,
        relying_party: identity.relying_party,
        sessions,
        pin,
        passkeys,
        totp,
        delivered_codes,
        recovery_codes,
        contacts,
        aliases,
        devices,
        release,
        recover,
        secrets,
        enrolment,
        backend,
        retention,
    })
}

/// The login factors that the app allows.
fn logins(allowed: impl Fn(Factor) -> bool) -> Vec<Factor> {
    Factor::LOGINS.into_iter().filter(|f| allowed(*f)).collect()
}

/// Turns byte offsets into lines and columns. Never empty, whatever went wrong.
fn locate(file: &str, text: &str, flaws: Flaws) -> Vec<PolicyError> {
    let error = |(at, message): (usize, String)| {
        let (line, column) = position(text, at);
        PolicyError {
            file: file.to_owned(),
            line,
            column,
            message: shown::one_line(&message),
        }
    };
    let mut errors: Vec<_> = flaws.into_sorted().into_iter().map(error).collect();
    if errors.is_empty() {
        errors.push(error((0, "the file gives no policy".to_owned())));
    }
    errors
}

fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod refusals_factors;
#[cfg(test)]
mod tests;
