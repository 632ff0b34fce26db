//! Provisioning a PKCS#11 token: find the one that is meant, then make its keys and prove them.
//!
//! Called by `provision`. The token is looked at without a login first, so that no PIN is presented to
//! one that is not meant, and everything that can be refused without one is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use custodyd_hsm::Backend;
use custodyd_hsm::backend::pkcs11::{self, SlotSeen, Survey, TokenSeen};

use super::super::output::Line;
use super::list::{is_softhsm, unfit};
use super::proof::Proposal;
use super::provision::{ProvisionError, Target, proven, report_lines};
use super::{WITH_PROOFS, failed, secret, within};
use crate::backend;
use crate::config::TokenKind;

/// Lines, and what to propose once everything is proven.
pub(super) type Done = (Vec<Line>, Option<Proposal>);

/// Which token is meant.
struct Wanted {
    module: PathBuf,
    label: String,
    serial: Option<String>,
    slot: Option<u64>,
}

pub(super) fn provision(target: &mut Target) -> Result<Done, ProvisionError> {
    let TokenKind::Pkcs11 {
        module,
        label,
        serial,
    } = &mut target.token.kind
    else {
        return Ok((Vec::new(), None));
    };
    let wanted = Wanted {
        module: module.clone(),
        label: label.clone(),
        serial: target.serial.clone().or_else(|| serial.clone()),
        slot: target.slot,
    };
    let (sender, receiver) = mpsc::channel();
    let mut lines = within(WITH_PROOFS, move || match found(&wanted) {
        Ok((serial, lines)) => {
            let _ = sender.send(serial);
            lines
        }
        Err(line) => vec![line],
    });
    // None was sent where it was refused.
    let Ok(found) = receiver.try_recv() else {
        return Ok((lines, None));
    };
    // What is printed at the end names the very token that was provisioned.
    *serial = Some(found).filter(|serial| !serial.is_empty());
    let label = label.clone();
    let secret = secret::of(&target.token, &label)?;
    let kind = target.token.kind.clone();
    // One backend for everything: it never presents a PIN again that was refused.
    let backend = backend::with_secret(&kind, secret, backend::origin(&target.token));
    let made = make(Arc::clone(&backend), target.dry_run, target.public_log);
    let refused = made.iter().any(Line::is_red);
    lines.extend(made);
    if refused || target.dry_run {
        return Ok((lines, None));
    }
    let (proofs, proposal) = proven(kind, backend);
    lines.extend(proofs);
    Ok((lines, proposal))
}

fn make(backend: Arc<dyn Backend>, dry_run: bool, public_log: bool) -> Vec<Line> {
    within(WITH_PROOFS, move || {
        let mut lines = match backend.provision(dry_run) {
            Ok(report) => report_lines(&report),
            Err(error) => return vec![failed("keys", &error)],
        };
        if public_log {
            lines.extend(match backend.provision_public_log(dry_run) {
                Ok(report) => report_lines(&report),
                Err(error) => vec![failed("keys", &error)],
            });
        }
        lines
    })
}

/// The serial number of the one token that is meant, and a line about it.
fn found(wanted: &Wanted) -> Result<(String, Vec<Line>), Line> {
    let survey = pkcs11::survey(&wanted.module)
        .map_err(|error| Line::red_told("module", error.to_string()))?;
    let (slot, token) = choose(&survey, wanted)?;
    if let Some((why, action)) = unfit(token) {
        let detail = format!(
            "nothing was changed: the token {:?} is not fit: {why}",
            token.label
        );
        return Err(Line::red("token", detail, action));
    }
    let detail = format!(
        "slot {}: {} {}, label {}, serial {}; {}",
        slot.id,
        token.manufacturer,
        token.model,
        token.label,
        token.serial,
        token.pin.name()
    );
    let mut lines = vec![Line::ok("found", detail)];
    if !token.login_required {
        lines.push(Line::warn(
            "login",
            "the token says that it wants no login: whoever reaches the module can use its keys",
            "on an nShield take the slot of a softcard or card set (docs/TOKENS.md)",
        ));
    }
    Ok((token.serial.clone(), lines))
}

fn choose<'s>(survey: &'s Survey, wanted: &Wanted) -> Result<(&'s SlotSeen, &'s TokenSeen), Line> {
    let tokens: Vec<(&SlotSeen, &TokenSeen)> = survey
        .slots
        .iter()
        .filter_map(|slot| Some((slot, slot.token.as_ref().ok()?.as_ref()?)))
        .collect();
    let labelled: Vec<_> = tokens
        .iter()
        .copied()
        .filter(|(_, token)| token.initialized && token.label == wanted.label)
        .collect();
    let fits = |token: &TokenSeen| match &wanted.serial {
        Some(serial) => token.serial == *serial,
        None => true,
    };
    let mut matching = labelled.iter().copied().filter(|(_, token)| fits(token));
    let found = match (matching.next(), matching.next()) {
        (Some(found), None) => found,
        (Some(_), Some(_)) => return Err(several(&labelled, wanted)),
        (None, _) => return Err(absent(&tokens, wanted)),
    };
    match wanted.slot {
        Some(slot) if slot != found.0.id => Err(Line::red(
            "slot",
            format!(
                "nothing was changed: the token {:?} is in slot {}, not in slot {slot}",
                wanted.label, found.0.id
            ),
            "look with `custodyd token list` which one is meant; custodyd finds tokens by label and serial number, \
             since slot numbers can change",
        )),
        _ => Ok(found),
    }
}

fn several(labelled: &[(&SlotSeen, &TokenSeen)], wanted: &Wanted) -> Line {
    let serials: Vec<&str> = labelled
        .iter()
        .map(|(_, token)| token.serial.as_str())
        .collect();
    Line::red(
        "token",
        format!(
            "nothing was changed: {} tokens have the label {:?}, with the serial numbers {}",
            labelled.len(),
            wanted.label,
            serials.join(", ")
        ),
        "name the one that is meant: --serial SERIAL, or token.serial in the configuration",
    )
}

/// No such token: what there is, and how one comes to be.
fn absent(tokens: &[(&SlotSeen, &TokenSeen)], wanted: &Wanted) -> Line {
    let present: Vec<String> = tokens
        .iter()
        .filter(|(_, token)| token.initialized)
        .map(|(_, token)| format!("{:?} (serial {})", token.label, token.serial))
        .collect();
    let present = match present.as_slice() {
        [] => "none".to_owned(),
        present => present.join(", "),
    };
    let serial = match &wanted.serial {
        Some(serial) => format!(" and the serial number {serial}"),
        None => String::new(),
    };
    let detail = format!(
        "nothing was changed: no token has the label {:?}{serial}; present: {present}",
        wanted.label
    );
    let blank = tokens.iter().find(|(_, token)| !token.initialized);
    let same_label = tokens
        .iter()
        .any(|(_, token)| token.initialized && token.label == wanted.label);
    let action = match blank {
        // There is one of the label, so it is the other word that is wrong, or the device.
        _ if same_label => {
            "give the serial number of the right token, or none where one token alone has the label; or connect the \
             device that has it"
                .to_owned()
        }
        Some((slot, _)) => initialise(&wanted.module, slot.id, &wanted.label),
        None if is_softhsm(&wanted.module) => {
            "give the right --label, or set SOFTHSM2_CONF to the softhsm2.conf of the token"
                .to_owned()
        }
        None => "give the right --label, or see with its maker's tools that the HSM is reached"
            .to_owned(),
    };
    Line::red("token", detail, action)
}

/// custodyd never initialises: that erases what a token holds.
fn initialise(module: &Path, slot: u64, label: &str) -> String {
    let rest = "initialising erases whatever the token holds, so custodyd never does it";
    if is_softhsm(module) {
        return format!(
            "give the right --label; for a new SoftHSM2 token run `softhsm-setup/provision --dir DIR --label {label}`, \
             or `softhsm2-util --init-token --slot {slot} --label {label}` ({rest})"
        );
    }
    format!(
        "give the right --label; the token in slot {slot} is not initialised: use its maker's tool, or \
         `pkcs11-tool --module {} --slot {slot} --init-token --label {label}`, and then the same with `--login \
         --login-type so --init-pin` ({rest})",
        module.display()
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use custodyd_hsm::backend::pkcs11::PinState;

    use super::*;

    fn slot(id: u64, label: &str, serial: &str) -> SlotSeen {
        SlotSeen {
            id,
            description: String::new(),
            token: Ok(Some(TokenSeen {
                label: label.to_owned(),
                manufacturer: String::new(),
                model: String::new(),
                serial: serial.to_owned(),
                initialized: !label.is_empty(),
                software: false,
                write_protected: false,
                login_required: true,
                pin_pad: false,
                pin: PinState::Set,
                missing: Vec::new(),
                public_keys: Vec::new(),
            })),
        }
    }

    fn wanted(serial: Option<&str>, slot: Option<u64>) -> Wanted {
        Wanted {
            module: "/usr/lib/softhsm/libsofthsm2.so".into(),
            label: "prod".to_owned(),
            serial: serial.map(ToOwned::to_owned),
            slot,
        }
    }

    fn chosen(slots: Vec<SlotSeen>, wanted: &Wanted) -> Result<u64, String> {
        let survey = Survey {
            library: String::new(),
            slots,
        };
        let chosen = choose(&survey, wanted).map(|(slot, _)| slot.id);
        chosen.map_err(|line| format!("{} -> {}", line.detail, line.action.unwrap_or_default()))
    }

    #[test]
    fn exactly_one_token_is_chosen_by_label_serial_and_slot() {
        let slots = || vec![slot(7, "other", "a"), slot(8, "prod", "b"), slot(9, "", "")];
        assert_eq!(chosen(slots(), &wanted(None, None)), Ok(8));
        assert_eq!(chosen(slots(), &wanted(Some("b"), Some(8))), Ok(8));
        assert!(
            chosen(slots(), &wanted(None, Some(7)))
                .unwrap_err()
                .contains("is in slot 8")
        );
        let absent = chosen(slots(), &wanted(Some("a"), None)).unwrap_err();
        assert!(absent.contains("\"prod\" (serial b)"), "{absent}");
    }

    #[test]
    fn two_of_one_label_want_a_serial_number() {
        let slots = || vec![slot(7, "prod", "a"), slot(8, "prod", "b")];
        let error = chosen(slots(), &wanted(None, None)).unwrap_err();
        assert!(
            error.contains("a, b") && error.contains("--serial"),
            "{error}"
        );
        assert_eq!(chosen(slots(), &wanted(Some("b"), None)), Ok(8));
    }

    #[test]
    fn a_token_that_is_not_initialised_is_told_with_how_to() {
        let error = chosen(vec![slot(3, "", "")], &wanted(None, None)).unwrap_err();
        assert!(error.contains("present: none"), "{error}");
        assert!(
            error.contains("--init-token --slot 3 --label prod"),
            "{error}"
        );
        assert!(error.contains("custodyd never does it"), "{error}");
        let other = Wanted {
            module: "/opt/m.so".into(),
            ..wanted(None, None)
        };
        let error = chosen(vec![slot(3, "", "")], &other).unwrap_err();
        assert!(error.contains("pkcs11-tool --module /opt/m.so"), "{error}");
    }
}
