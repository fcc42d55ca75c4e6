//! Checks of the edge, and of the clock against its clock.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use quintet_bus::redact_url;
use quintet_service::telemetry::chain;
use reqwest::Method;
use reqwest::header::{DATE, HeaderMap};
use tokio::time::timeout;

use super::finding::{Findings, State};
use crate::cli::global::Global;
use crate::client::http::Http;

/// How long one check may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How far clocks may be apart: HTTP has whole seconds, and deadlines travel in wall-clock time.
const CLOCK_TOLERANCE_S: i64 = 2;

/// Checks whether the edge is ready, and the clock.
pub(super) async fn check(global: &Global, findings: &mut Findings) {
    let what = format!("edge {}", redact_url(&global.url));
    let message = match ready(global).await {
        Ok(headers) => {
            findings.add("edge", what, State::Ok, "ready");
            return clock(&headers, findings);
        }
        Err(error) => chain(error.as_ref()).to_string(),
    };
    findings.add("edge", what, State::Fail, message);
    findings.skip("clock", "clock", "the edge is not ready");
}

async fn ready(global: &Global) -> anyhow::Result<HeaderMap> {
    let http = Http::of(global)?;
    let answer = timeout(TIMEOUT, http.send(http.request(Method::GET, "/ready"))).await;
    let answer = answer.map_err(|_| anyhow::anyhow!("does not answer in time"))??;
    Ok(answer.headers().clone())
}

/// Compares the clock with that of the edge.
fn clock(headers: &HeaderMap, findings: &mut Findings) {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let Some(date) = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok()) else {
        let message = "the edge sends no time";
        return findings.add("clock", "clock", State::Warn, message);
    };
    let apart = Timestamp::now().as_second() - date.as_second();
    if apart.abs() <= CLOCK_TOLERANCE_S {
        return findings.add("clock", "clock", State::Ok, "agrees with the edge's");
    }
    let way = if apart > 0 { "ahead of" } else { "behind" };
    let message = format!(
        "{} s {way} the edge's; synchronize both (chrony, systemd-timesyncd)",
        apart.abs()
    );
    findings.add("clock", "clock", State::Warn, message);
}
