//! `[courier]`: the second process, through which everything leaves that the daemon sends.
//!
//! Called by `check` only. Both processes read the same file: the one that serves takes the socket
//! from here, the courier its destinations and passwords from `[delivery]` and `[witnesses]`, which are
//! then the list of what it may reach. The file must not be writable for either of them.

use std::path::{Path, PathBuf};

use super::check::{expected, number, socket_path, string};
use super::reader::{Document, Table};

/// `[courier]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Courier {
    /// Where it listens, unless systemd hands it its socket.
    pub socket: PathBuf,
    /// The user whose processes it answers, beside root and its own.
    pub peer: Option<String>,
    /// Mails and text messages together.
    pub messages_per_minute: usize,
}

pub(super) fn courier<'i>(
    doc: &mut Document<'i>,
    top: &mut Table<'i>,
    base: &Path,
) -> Option<Courier> {
    let mut table = doc.optional_table(top, "courier")?;
    let socket = doc.required(
        &mut table,
        "socket",
        "the Unix socket of the courier, such as \"/run/custodyd-sockets/courier.sock\"",
        |value| socket_path(value, base),
    );
    let peer = doc.optional(&mut table, "peer", |value| {
        let text = string(value)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=32).contains(&text.len()) || !text.bytes().all(plain) {
            return Err(expected(
                "a user such as \"custodyd\", or its number",
                value,
            ));
        }
        Ok(text.to_owned())
    });
    let messages_per_minute = doc.or(&mut table, "messages_per_minute", 600, |value| {
        number(value, 1..=1_000_000)
    });
    doc.finish(table);
    Some(Courier {
        socket: socket?.value,
        peer: peer.map(|placed| placed.value),
        messages_per_minute,
    })
}
