//! Retry: repeats what must succeed before anything else.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use quintet_service::telemetry::chain;
use tracing::warn;

/// Wait before it is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Repeats until it succeeds; each failure is logged under `what`. Cancel-safe as far as one attempt is.
pub(crate) async fn until_ok<T, E, F>(what: &'static str, attempt: impl Fn() -> F) -> T
where
    E: Error + 'static,
    F: Future<Output = Result<T, E>>,
{
    let backoff = ConstantBuilder::default()
        .with_delay(RETRY_DELAY)
        .without_max_times();
    loop {
        let attempts = (&attempt).retry(backoff).notify(|error: &E, _| {
            warn!(error = %chain(error), "{what}, trying again");
        });
        if let Ok(value) = attempts.await {
            return value;
        }
    }
}
