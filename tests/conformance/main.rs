//! One suite for every kind of token. A further backend adds a folder with its
//! [`rig::Rig`] (and [`rig::Store`]) and two lines below; the suite itself never
//! changes for it.
//!
//! Each case runs in a process of its own, started by the test of the same
//! name: PKCS#11 is initialized once per process, and SoftHSM2 takes its
//! configuration from the environment. So the cases are safe under threads
//! (`cargo test`) as well as under one process per test (nextest).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at once"
)]

mod hanging;
mod own_process;
mod rig;
mod softhsm;
mod software;
mod suite;
mod tpm;

suite::run_over!(on_softhsm, crate::softhsm::SoftHsm);
suite::run_labels_over!(labels_on_softhsm, crate::softhsm::SoftHsm);
suite::run_anchors_over!(anchors_on_softhsm, crate::softhsm::SoftHsm);
suite::run_anchors_over!(anchors_in_memory, crate::software::Software);
suite::run_over!(on_tpm, crate::tpm::PerStart);
suite::run_anchors_over!(anchors_on_tpm, crate::tpm::PerStart);
suite::run_over!(on_tpm_per_operation, crate::tpm::PerOperation);
