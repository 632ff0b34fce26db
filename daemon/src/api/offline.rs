//! What a device tells of the time when it could not reach the daemon.

use serde::Deserialize;
use utoipa::ToSchema;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OfflineReport {
    /// PINs that were tried against this device's own copy and did not open it, since the last report.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub wrong_pins: u32,
}
