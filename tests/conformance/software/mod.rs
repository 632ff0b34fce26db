//! The token in memory of the unit tests, held to what the real ones must do
//! with anchors: a test above it proves nothing if it behaves otherwise.

use std::sync::Arc;

use custodyd_hsm::{
    Backend, Custody, KeyReport, ProvisionReport, Result, TokenDescription,
    software::{SoftAnchors, SoftCustody},
};

use crate::rig::{Prepared, Store};

/// Shares its objects with every backend that it gives out, as a token does.
#[derive(Clone, Default)]
pub(crate) struct Software(SoftAnchors);

impl Store for Software {
    fn prepare() -> Prepared {
        Prepared {
            keep: Box::new(()),
            environment: Vec::new(),
        }
    }

    fn attach() -> Self {
        Self::default()
    }

    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }

    fn plant(&self, content: &[u8]) {
        self.0.add(content);
    }

    fn clear(&self) {
        self.0.put_back(&[]);
    }

    /// There is no other place in it.
    fn plant_beside(&self, _content: &[u8]) {}
}

impl Backend for Software {
    fn open(&self) -> Result<Box<dyn Custody>> {
        Ok(Box::new(SoftCustody::with_anchors(self.0.clone())))
    }

    fn describe(&self) -> TokenDescription {
        TokenDescription::default()
    }

    fn inspect(&self) -> Result<Vec<KeyReport>> {
        Ok(Vec::new())
    }

    fn provision(&self, _dry_run: bool) -> Result<ProvisionReport> {
        Ok(ProvisionReport::default())
    }
}
