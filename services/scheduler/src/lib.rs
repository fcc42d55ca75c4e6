//! The scheduler: decides which agent runs what.

mod config;
mod error;

pub use config::SchedulerConfig;
pub use error::Error;

use quintet_bus::Bus;
use quintet_service::health::ComponentHandle;
use tokio_util::sync::CancellationToken;

/// Runs until `shutdown` is cancelled.
pub async fn run(
    _config: SchedulerConfig,
    _bus: Bus,
    _health: ComponentHandle,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    shutdown.cancelled().await;
    Ok(())
}
