//! The log: every change of the realm, in order, as an RFC 6962 Merkle tree.
//!
//! `leaf` says what stands in an entry, `end` holds the growing edge in memory, `proof` shows that
//! an entry is there, `tiles` gives the log out, `pruning` says which tiles are kept. Tiles (C2SP tlog-tiles) are kept in the database as a cache: whatever is
//! read from one is verified against a root that the token authenticated.

mod end;
mod leaf;
mod proof;
mod pruning;
mod tiles;

pub use self::end::TileRow;
pub(crate) use self::end::{LogEnd, TILE};
pub(crate) use self::leaf::{
    BootLeaf, KeyChange, LEAF_BOOT, LEAF_ERASURE, LEAF_EVENT, LEAF_RESTORE, LEAF_RETENTION,
    LEAF_STATE, RestoreLeaf, StateLeaf, TokenChange,
};
pub(crate) use self::proof::Prover;
pub(crate) use self::pruning::{due, may_be_gone};
pub(crate) use self::tiles::TileReader;
