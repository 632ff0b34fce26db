//! The bytes of anchors and warm anchors, after FORMAT.md, section 8.
//!
//! Called by the parent and its siblings. What is read here is not verified: a
//! caller checks the tag over the body before it looks at anything but the realm.
//! Each anchor has one encoding; everything else is refused. Version 1 is of those that MAC key 1 alone has
//! tagged, as before there was another; version 2 names the keys.

use super::Anchor;
use crate::{
    error::{Error, Result},
    id::RealmName,
    mac,
    versions::MAX_ACCEPTED,
};

const ANCHOR: [u8; 3] = *b"CDA";
const WARM: [u8; 3] = *b"CDW";
const VERSION: u8 = 1;
const NAMES_KEYS: u8 = 2;
/// What version 1 is tagged by.
const FIRST: &[u16] = &[mac::ROOT_MAC.version];
const CLEAN: u8 = 1;
const DIRTY: u8 = 2;
const TAG: usize = 32;
/// The longest kernel boot id, in bytes; Linux has a UUID of 36.
const MAX_BOOT_ID: usize = 64;

/// A well-formed anchor, not verified yet.
#[derive(Debug)]
pub(super) struct Parsed<'b> {
    pub(super) realm: RealmName,
    pub(super) anchor: Anchor,
    /// Empty in an anchor of the token.
    pub(super) boot_id: &'b str,
    /// The MAC keys that the tag is of.
    pub(super) keys: Vec<u16>,
    /// All bytes before the tag.
    pub(super) body: &'b [u8],
    pub(super) tag: &'b [u8; TAG],
}

/// The body of an anchor for the token that these keys tag.
pub(super) fn anchor(realm: &RealmName, anchor: &Anchor, keys: &[u16]) -> Result<Vec<u8>> {
    body(ANCHOR, realm, anchor, keys)
}

/// The body of a warm anchor.
pub(super) fn warm(
    realm: &RealmName,
    anchor: &Anchor,
    boot_id: &str,
    keys: &[u16],
) -> Result<Vec<u8>> {
    if !is_boot_id(boot_id) {
        return Err(Error::invalid(
            "kernel boot id",
            format!("expected 1 to {MAX_BOOT_ID} of visible ASCII"),
        ));
    }
    let mut bytes = body(WARM, realm, anchor, keys)?;
    put(&mut bytes, boot_id);
    Ok(bytes)
}

fn is_boot_id(text: &str) -> bool {
    (1..=MAX_BOOT_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Both texts are bounded far below 2^32.
fn put(bytes: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// Rising, and not what version 1 says.
fn are_keys(keys: &[u16]) -> bool {
    let rising = keys.is_sorted_by(|one, next| one < next);
    rising && keys != FIRST && (1..=MAX_ACCEPTED).contains(&keys.len()) && !keys.contains(&0)
}

fn body(magic: [u8; 3], realm: &RealmName, anchor: &Anchor, keys: &[u16]) -> Result<Vec<u8>> {
    let flags = match (anchor.clean, anchor.dirty) {
        (false, false) => 0,
        (true, false) => CLEAN,
        (false, true) => DIRTY,
        (true, true) => {
            return Err(Error::invalid("anchor", "it cannot be clean and dirty"));
        }
    };
    if anchor.serial == 0 {
        return Err(Error::invalid("anchor", "serials begin with 1"));
    }
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(&magic);
    match keys {
        FIRST => bytes.push(VERSION),
        keys => {
            bytes.push(NAMES_KEYS);
            let count = u8::try_from(keys.len()).ok().filter(|_| are_keys(keys));
            bytes.push(count.ok_or_else(|| Error::invalid("anchor", "no keys tag it so"))?);
            keys.iter()
                .for_each(|key| bytes.extend_from_slice(&key.to_be_bytes()));
        }
    }
    put(&mut bytes, realm.as_str());
    for number in [anchor.serial, anchor.log_epoch, anchor.seq] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(&anchor.head);
    bytes.extend_from_slice(&anchor.boot_epoch.to_be_bytes());
    bytes.push(flags);
    Ok(bytes)
}

impl<'b> Parsed<'b> {
    pub(super) fn anchor(bytes: &'b [u8]) -> Result<Self> {
        Self::read(bytes, ANCHOR, "anchor")
    }

    pub(super) fn warm(bytes: &'b [u8]) -> Result<Self> {
        Self::read(bytes, WARM, "warm anchor")
    }

    fn read(bytes: &'b [u8], magic: [u8; 3], what: &'static str) -> Result<Self> {
        let refused = || Error::Tampered { what };
        let (head, _) = bytes.split_first_chunk::<4>().ok_or_else(refused)?;
        let [a, b, c, version] = *head;
        if [a, b, c] != magic {
            return Err(refused());
        }
        if version != VERSION && version != NAMES_KEYS {
            return Err(Error::UnsupportedVersion {
                what,
                found: version,
            });
        }
        Self::after_version(bytes, version == NAMES_KEYS, magic == WARM).ok_or_else(refused)
    }

    fn after_version(bytes: &'b [u8], names_keys: bool, has_boot_id: bool) -> Option<Self> {
        let (body, tag) = bytes.split_last_chunk::<TAG>()?;
        let mut rest = Reader(body.get(4..)?);
        let keys = match names_keys {
            true => rest.keys().filter(|keys| are_keys(keys))?,
            false => FIRST.to_vec(),
        };
        let realm = RealmName::parse(rest.text()?).ok()?;
        let serial = rest.number().filter(|serial| *serial > 0)?;
        let (log_epoch, seq) = (rest.number()?, rest.number()?);
        let head = *rest.take::<32>()?;
        let boot_epoch = rest.number()?;
        let [flags] = *rest.take::<1>()?;
        let boot_id = match has_boot_id {
            true => rest.text().filter(|text| is_boot_id(text))?,
            false => "",
        };
        let (clean, dirty) = (flags == CLEAN, flags == DIRTY);
        if !rest.0.is_empty() || !(clean || dirty || flags == 0) {
            return None;
        }
        let anchor = Anchor {
            serial,
            log_epoch,
            seq,
            head,
            boot_epoch,
            clean,
            dirty,
        };
        Some(Self {
            realm,
            anchor,
            boot_id,
            keys,
            body,
            tag,
        })
    }
}

/// What is still to be read.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take<const N: usize>(&mut self) -> Option<&'b [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(|bytes| u64::from_be_bytes(*bytes))
    }

    fn keys(&mut self) -> Option<Vec<u16>> {
        let [count] = *self.take::<1>()?;
        let key = |_| self.take().map(|bytes| u16::from_be_bytes(*bytes));
        (0..count).map(key).collect()
    }

    fn text(&mut self) -> Option<&'b str> {
        let length = u32::from_be_bytes(*self.take()?);
        let (text, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}
