//! `[token]`: the token that holds the realm's keys, of one of two kinds.
//!
//! Called by `check` only. What is common to both kinds is read once; a key of the other kind is an
//! unknown key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use custodyd_hsm::backend::tpm::{self, Pcrs};
use toml::de::DeValue;

use super::check::{duration, expected, number, path, string};
use super::reader::{Document, Placed, Table};
use super::replicas::replicas;
use super::{Anchor, Ledger, Token, TokenKind, Tpm};

/// Debian's SoftHSM2.
const DEFAULT_MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// Where the records of a TPM's anchors are unless something else is configured.
pub const DEFAULT_STATE: &str = "/var/lib/custodyd/tpm";
/// A TPM's anchors at an interval may take half of what it may be written.
const OFTENER: u64 = 2;
const DAY: u64 = 86_400;

#[derive(Clone, Copy)]
enum Kind {
    Pkcs11,
    Tpm,
}

pub(super) fn token<'i>(
    doc: &mut Document<'i>,
    top: &mut Table<'i>,
    base: &Path,
) -> Option<Placed<Token>> {
    let mut table = doc.table(top, "token");
    let at = table.at();
    let kind = kind_of(doc, &mut table, base);
    let (pin_file, pin_credential) = pin_of(doc, &mut table, base);
    let escrow = doc.optional(&mut table, "escrow", |value| path(value, base));
    let threads = doc.or(&mut table, "threads", 2, |value| number(value, 1..=64));
    let queue = doc.or(&mut table, "queue", 1024, |value| number(value, 1..=65_536));
    let deadline = doc.or(&mut table, "deadline", Duration::from_secs(5), |value| {
        duration(value, Duration::from_millis(100)..=Duration::from_secs(60))
    });
    let replicas = replicas(doc, &mut table, (base, kind.as_ref()), deadline);
    doc.finish(table);
    let value = Token {
        kind: kind?,
        pin_file,
        pin_credential,
        escrow: escrow.map(|placed| placed.value),
        threads,
        queue,
        deadline,
        replicas,
    };
    Some(Placed { value, at })
}

/// Which token it is, of one kind or the other.
pub(super) fn kind_of<'i>(
    doc: &mut Document<'i>,
    table: &mut Table<'i>,
    base: &Path,
) -> Option<TokenKind> {
    let kind = doc.or(table, "kind", Kind::Pkcs11, |value| match string(value)? {
        "pkcs11" => Ok(Kind::Pkcs11),
        "tpm" => Ok(Kind::Tpm),
        _ => Err(expected("\"pkcs11\" or \"tpm\"", value)),
    });
    match kind {
        Kind::Pkcs11 => pkcs11(doc, table, base),
        Kind::Tpm => tpm(doc, table, base).map(TokenKind::Tpm),
    }
}

/// Where its PIN is: exactly one of the two.
pub(super) fn pin_of<'i>(
    doc: &mut Document<'i>,
    table: &mut Table<'i>,
    base: &Path,
) -> (Option<PathBuf>, Option<String>) {
    let named = table.has("pin_file") || table.has("pin_credential") || table.has("pin");
    let file = doc.optional(table, "pin_file", |value| path(value, base));
    let credential = doc.optional(table, "pin_credential", credential_name);
    let [name, file_name, credential_name] =
        ["pin", "pin_file", "pin_credential"].map(|key| table.name_of(key));
    // Somebody who writes the PIN itself here deserves a better sentence than "unknown key".
    if let Some(pin) = doc.optional(table, "pin", |_| Ok(())) {
        let message = format!(
            "{name}: the PIN is never written in the configuration; put it in a file of \
             its own with mode 0600 and name that as {file_name}"
        );
        doc.error(pin.at, message);
    }
    match (&file, &credential) {
        (Some(_), Some(second)) => doc.error(
            second.at,
            format!("{credential_name}: give either this or {file_name}, not both"),
        ),
        // A PIN key that was there but wrong has been reported already.
        (None, None) if !named => doc.error(
            table.at(),
            format!(
                "{file_name} is missing: the file with the token's user PIN, or the TPM's secret (mode 0600), \
                 or {credential_name} with the name of a systemd credential"
            ),
        ),
        _ => {}
    }
    (
        file.map(|placed| placed.value),
        credential.map(|placed| placed.value),
    )
}

fn pkcs11<'i>(doc: &mut Document<'i>, table: &mut Table<'i>, base: &Path) -> Option<TokenKind> {
    let module = doc.or(table, "module", PathBuf::from(DEFAULT_MODULE), |value| {
        path(value, base)
    });
    let label = doc.required(
        table,
        "label",
        "the label of the token, as `softhsm2-util --show-slots` or `pkcs11-tool -L` shows it",
        token_label,
    );
    let serial = doc.optional(table, "serial", token_serial);
    Some(TokenKind::Pkcs11 {
        module,
        label: label?.value,
        serial: serial.map(|placed| placed.value),
    })
}

fn tpm<'i>(doc: &mut Document<'i>, table: &mut Table<'i>, base: &Path) -> Option<Tpm> {
    let tcti = doc.required(
        table,
        "tcti",
        "how the TPM is reached, in full: \"device:/dev/tpmrm0\"",
        |value| {
            let text = string(value)?;
            tpm::check_tcti(text)
                .map(|()| text.to_owned())
                .map_err(|error| error.to_string())
        },
    );
    let storage_key = doc.optional(table, "storage_key", name_of_object);
    let state_directory = doc.or(
        table,
        "state_directory",
        PathBuf::from(DEFAULT_STATE),
        |value| path(value, base),
    );
    let handles = doc.or(table, "handles", tpm::DEFAULT_HANDLES, |value| {
        handle(value, tpm::check_handles)
    });
    let nv_index = doc.or(table, "nv_index", tpm::DEFAULT_NV_INDEX, |value| {
        handle(value, tpm::check_nv_index)
    });
    let per_operation = doc.or(table, "per_operation", false, |value| {
        value
            .as_bool()
            .ok_or_else(|| expected("true or false", value))
    });
    let pcrs = doc.optional(table, "pcrs", registers);
    let default = usize::try_from(tpm::DEFAULT_NV_WRITES_PER_DAY).unwrap_or(1);
    let writes = doc.or(table, "nv_writes_per_day", default, |value| {
        number(value, 1..=1_000_000)
    });
    Some(Tpm {
        tcti: tcti?.value,
        storage_key: storage_key.map(|placed| placed.value),
        state_directory,
        handles,
        nv_index,
        per_operation,
        pcrs: pcrs.map(|placed| placed.value),
        nv_writes_per_day: u32::try_from(writes).unwrap_or(u32::MAX),
    })
}

/// A TPM that is told of every batch is worn out within weeks.
pub(super) fn suits_the_ledger(
    doc: &mut Document<'_>,
    token: Option<&Placed<Token>>,
    ledger: &Ledger,
) {
    let Some(Placed { value, at }) = token else {
        return;
    };
    for (_, token) in value.each() {
        if let TokenKind::Tpm(tpm) = &token.kind {
            tpm_suits(doc, tpm, *at, ledger);
        }
    }
}

fn tpm_suits(doc: &mut Document<'_>, tpm: &Tpm, at: usize, ledger: &Ledger) {
    if ledger.public_log {
        doc.error(at, "ledger.public_log: a TPM has no Ed25519 keys; its log carries the ECDSA P-256 line alone".to_owned());
    }
    let least = (OFTENER * DAY).div_ceil(u64::from(tpm.nv_writes_per_day));
    let message = match ledger.anchor {
        Anchor::Strict => {
            "ledger.anchor: a TPM's memory wears out, so token.kind = \"tpm\" needs anchor = \"bounded\"".to_owned()
        }
        Anchor::Bounded if ledger.anchor_interval.as_secs() < least => format!(
            "ledger.anchor_interval: with {} writes a day (token.nv_writes_per_day) the TPM can be told every \
             {least} s, so that half of them are left for what must be told at once; give a longer interval",
            tpm.nv_writes_per_day
        ),
        Anchor::Bounded => return,
    };
    doc.error(at, message);
}

fn handle(value: &DeValue<'_>, check: fn(u32) -> custodyd_hsm::Result<()>) -> Result<u32, String> {
    let number = number(value, 0..=0xffff_ffff)?;
    let handle = u32::try_from(number).map_err(|_| expected("a handle", value))?;
    check(handle)
        .map(|()| handle)
        .map_err(|error| error.to_string())
}

fn registers(value: &DeValue<'_>) -> Result<Pcrs, String> {
    let DeValue::Array(list) = value else {
        return Err(expected("a list of PCRs, such as [7]", value));
    };
    let numbers = list
        .iter()
        .map(|item| number(item.get_ref(), 0..=usize::from(u8::MAX)));
    let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
    let numbers = numbers
        .into_iter()
        .map(|number| u64::try_from(number).unwrap_or(u64::MAX));
    Pcrs::new(numbers).map_err(|error| error.to_string())
}

/// Two bytes of algorithm and a SHA-256.
fn name_of_object(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    let whole = text.len() == 68 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match whole {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(
            "expected 68 hexadecimal digits, as `custodyd token provision` prints them".to_owned(),
        ),
    }
}

/// PKCS#11 labels are 32 bytes padded with spaces, so neither is wanted at the end.
fn token_label(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    let fits = (1..=32).contains(&text.len());
    if !fits || text.trim() != text || text.chars().any(char::is_control) {
        return Err(expected("1 to 32 bytes without spaces at the ends", value));
    }
    Ok(text.to_owned())
}

/// PKCS#11 serial numbers are 16 bytes, padded as labels are.
fn token_serial(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    let fits = (1..=16).contains(&text.len());
    if !fits || text.trim() != text || text.chars().any(char::is_control) {
        return Err(expected(
            "1 to 16 bytes without spaces at the ends, as `custodyd token list` shows them",
            value,
        ));
    }
    Ok(text.to_owned())
}

/// The name becomes the last part of a path, so it must not leave its folder.
fn credential_name(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > 255 || text.starts_with('.') || !text.bytes().all(allowed) {
        return Err(expected(
            "the name of a systemd credential, such as \"token-pin\"",
            value,
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::super::{Config, parse};
    use super::*;

    const REST: &str = "[realm]\nname = \"r\"\n[listen]\npublic = \"127.0.0.1:1\"\nurl = \"https://r.example\"\n\
                        certificate = \"c\"\nprivate_key = \"k\"\n";
    const TOKEN: &str =
        "[token]\nkind = \"tpm\"\ntcti = \"device:/dev/tpmrm0\"\npin_file = \"secret\"\n";
    const LEDGER: &str = "[ledger]\nanchor = \"bounded\"\nanchor_interval = \"10m\"\n";

    fn read(token: &str, ledger: &str) -> Result<Config, String> {
        let text = format!("{REST}{ledger}{token}");
        parse("c.toml", &text, Path::new("/base")).map_err(|errors| errors.to_string())
    }

    fn tpm_of(token: &str) -> Tpm {
        match read(token, LEDGER).unwrap().token.kind {
            TokenKind::Tpm(tpm) => Some(tpm),
            TokenKind::Pkcs11 { .. } => None,
        }
        .unwrap()
    }

    #[test]
    fn a_tpm_is_read_with_its_defaults() {
        let tpm = tpm_of(TOKEN);
        assert_eq!(tpm.tcti, "device:/dev/tpmrm0");
        assert_eq!(tpm.storage_key, None);
        assert_eq!(tpm.state_directory, Path::new(DEFAULT_STATE));
        assert_eq!(tpm.handles, 0x8101_8100);
        assert!(!tpm.per_operation);
        assert_eq!(tpm.pcrs, None);
        let bound = tpm_of(&format!("{TOKEN}pcrs = [7, 0, 7]\n")).pcrs.unwrap();
        assert_eq!(bound.to_string(), "0,7");
        let name = format!("000b{}", "aF".repeat(32));
        let more = format!(
            "{TOKEN}storage_key = \"{name}\"\nhandles = 0x81020000\nnv_index = 0x1800001\nper_operation = true\n"
        );
        let tpm = tpm_of(&more);
        assert_eq!(tpm.storage_key, Some(name.to_lowercase()));
        assert_eq!((tpm.handles, tpm.nv_index), (0x8102_0000, 0x0180_0001));
        assert!(tpm.per_operation);
    }

    #[test]
    fn what_a_tpm_cannot_be_is_named() {
        for (line, said) in [
            ("storage_key = \"000b\"", "68 hexadecimal digits"),
            ("handles = 0x81018101", "multiple of 0x100"),
            ("nv_index = 0x1400000", "owner's NV indices"),
            ("module = \"/m.so\"", "token.module: unknown key"),
            ("label = \"l\"", "token.label: unknown key"),
            ("nv_writes_per_day = 0", "from 1 to 1000000"),
            ("per_operation = 1", "true or false"),
            ("pcrs = 7", "a list of PCRs"),
            ("pcrs = []", "at least one"),
            ("pcrs = [11, 12]", "at least one PCR of 0 to 7"),
            ("pcrs = [24]", "no PCR 24"),
            ("pcrs = [7, 16]", "any program resets PCR 16"),
            ("pcrs = [\"7\"]", "number"),
        ] {
            let error = read(&format!("{TOKEN}{line}\n"), LEDGER).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
        let bare = read(&TOKEN.replace("device:/dev/tpmrm0", "device"), LEDGER).unwrap_err();
        assert!(bare.contains("in full"), "{bare}");
        let other = read(&TOKEN.replace("\"tpm\"", "\"tpm2\""), LEDGER).unwrap_err();
        assert!(other.contains("\"pkcs11\" or \"tpm\""), "{other}");
    }

    #[test]
    fn a_serial_number_is_for_pkcs11_and_of_its_length() {
        let token = "[token]\nlabel = \"l\"\npin_file = \"p\"\nserial = ";
        let kind = read(&format!("{token}\"0123456789abcdef\"\n"), "")
            .unwrap()
            .token
            .kind;
        let TokenKind::Pkcs11 { serial, .. } = kind else {
            unreachable!("no kind is PKCS#11");
        };
        assert_eq!(serial.as_deref(), Some("0123456789abcdef"));
        for bad in ["\"\"", "\" 1\"", "\"0123456789abcdefg\"", "7"] {
            read(&format!("{token}{bad}\n"), "").unwrap_err();
        }
        assert!(
            read(&format!("{TOKEN}serial = \"1\"\n"), LEDGER)
                .unwrap_err()
                .contains("unknown key")
        );
    }

    #[test]
    fn a_realm_of_a_proof_is_no_realm() {
        let rest = REST.replace("name = \"r\"", "name = \"custodyd-scratch-1\"");
        let text = format!("{rest}{TOKEN}{LEDGER}");
        let error = parse("c.toml", &text, Path::new("/"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("proofs of tokens"), "{error}");
    }

    #[test]
    fn a_ledger_that_would_wear_it_out_is_refused() {
        let strict = read(TOKEN, "").unwrap_err();
        assert!(strict.starts_with("c.toml:8:2: ledger.anchor"), "{strict}");
        let often = read(TOKEN, &LEDGER.replace("10m", "172s")).unwrap_err();
        assert!(often.contains("every 173 s"), "{often}");
        read(TOKEN, &LEDGER.replace("10m", "173s")).unwrap();
        let more = format!("{TOKEN}nv_writes_per_day = 100000\n");
        read(&more, &LEDGER.replace("10m", "2s")).unwrap();
    }
}
