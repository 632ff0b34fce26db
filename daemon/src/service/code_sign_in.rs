//! Signing in with a delivered code, and the PIN after it.
//!
//! The adversary asks for codes and types what they like; who reads the mailbox too has the
//! code. A bound device's guesses cost a budget that only bound devices can touch. Of anybody
//! else, only a device that asked for a code of this account is evaluated at all, on a budget of
//! its own; the rest get the decoy and write nothing. What a right code gives a device that is
//! not bound is the policy's to say: by default a session that may try the PIN, and nothing else.

use std::sync::Arc;

use custodyd_hsm::SecretBytes;
use custodyd_hsm::binding::BindingKind;
use custodyd_policies::{Factor, UnknownDevice, unknown_device};

use super::authenticate::{Opened, open_session};
use super::guess::{self, Guess};
use super::named::Named;
use super::sessions::Proven;
use super::{Caller, Device, Refused, Service, devices, secrets};
use crate::account::{Account, Contact};
use crate::api::{CodeSession, PinAfterCode, SessionStarted};
use crate::factors::delivered_code::Code;
use crate::factors::session::Scope;
use crate::ledger::Loaded;
