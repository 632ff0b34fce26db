//! HTTP: from bytes on a socket to a call of the service, and back to a document.
//!
//! `server`, `connection` and `tls` carry connections; `router` is the route table and what
//! every request passes through; `request` proves who asks; `routes` has a file for each kind
//! of resource; `problem` gives refusals their form; `strangers` is what callers without a session
//! pass through, `door` where each request gets its place among those under way; `operator` is the listener for
//! operators' monitoring, `operator_socket` the one for their actions; `unix_socket` carries that one
//! and the courier's.

pub mod certificate;
pub mod connection;
mod describe;
mod door;
pub(crate) mod extract;
mod objects;
pub mod operator;
mod operator_evidence;
mod operator_keys;
pub mod operator_socket;
mod operator_tokens;
pub mod problem;
pub mod proxy;
pub mod request;
pub mod router;
mod routes;
pub mod server;
pub mod state;
mod strangers;
mod tile_path;
pub mod tls;
pub(crate) mod unix_socket;
