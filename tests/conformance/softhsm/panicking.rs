//! A defect in a recovery, as far as a test can bring one about: it panics over what it says.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// Panics where the recovery thread says something, once.
pub(super) struct Panics;

/// Until it has.
pub(super) static PANICS: AtomicBool = AtomicBool::new(true);

impl tracing::Subscriber for Panics {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        if thread::current().name() == Some("token-recovery") {
            assert!(!PANICS.swap(false, Ordering::SeqCst), "on purpose");
        }
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
