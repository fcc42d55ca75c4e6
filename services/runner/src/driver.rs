//! The life of a runner.

use quintet_bus::Bus;
use quintet_service::health::ComponentHandle;
use tokio_util::sync::CancellationToken;

use crate::config::RunnerConfig;
use crate::error::Error;

/// Runs a runner until `shutdown` is cancelled.
///
/// Fails only when the bus refuses what it cannot work without; everything that may pass is tried again.
pub async fn run(
    _config: RunnerConfig,
    _bus: Bus,
    health: ComponentHandle,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    health.ready();
    shutdown.cancelled().await;
    Ok(())
}
