//! The Prometheus side of metrics: buckets, rendering, upkeep.
//!
//! Histograms whose name ends in `_seconds` have buckets from 0.5 ms to 10 s; others are rendered as
//! summaries. Recorded samples are held until a scrape or the upkeep folds them in, so upkeep runs
//! for as long as the process does: a process without scrapes must not grow.

use std::time::Duration;

use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::Error;

/// The suffix of metrics that measure time.
pub(super) const SECONDS_SUFFIX: &str = "_seconds";

/// Upper bounds of their buckets.
pub(super) const SECONDS_BUCKETS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
const UPKEEP_THREAD: &str = "metrics-upkeep";

/// Renders the metrics of this process; cheap to clone.
#[derive(Clone)]
pub struct Prometheus {
    handle: PrometheusHandle,
}

impl Prometheus {
    /// The content type of what [`Prometheus::render`] returns.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// All metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Starts upkeep. A thread rather than a task: the recorder outlives every runtime.
    pub(super) fn keep_up(&self) -> Result<(), Error> {
        let handle = self.handle.clone();
        std::thread::Builder::new()
            .name(UPKEEP_THREAD.to_owned())
            .spawn(move || {
                loop {
                    std::thread::sleep(UPKEEP_INTERVAL);
                    handle.run_upkeep();
                }
            })
            .map(drop)
            .map_err(|source| Error::Thread {
                name: UPKEEP_THREAD,
                source,
            })
    }
}

pub(super) fn recorder() -> (PrometheusRecorder, Prometheus) {
    let seconds = Matcher::Suffix(SECONDS_SUFFIX.to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(seconds, &SECONDS_BUCKETS)
        .expect("the list of buckets is not empty")
        .build_recorder();
    let handle = recorder.handle();
    (recorder, Prometheus { handle })
}
