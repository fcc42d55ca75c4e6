//! Readiness of a runner: whether every shard is led, by any runner.

use std::collections::BTreeSet;

use quintet_contract::id::RunShard;
use quintet_service::health::ComponentHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Reports it until `shutdown`.
pub(crate) async fn report_readiness(
    health: ComponentHandle,
    mut led: watch::Receiver<BTreeSet<RunShard>>,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    loop {
        let open = usize::from(RunShard::COUNT) - led.borrow_and_update().len();
        if open == 0 {
            health.ready();
        } else {
            health.not_ready(format!("{open} of the shards of runs are not led yet"));
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            changed = led.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}
