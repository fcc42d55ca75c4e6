//! Requests to the Kubernetes API: a deadline for every request, and retries.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::Pace;

/// How long one request may take, the client's own waits for a busy API included.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Longest wait that the API can ask for.
const MAX_ASKED_WAIT: Duration = Duration::from_secs(60);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiFailure {
    #[error("no answer within {}", humantime::format_duration(ANSWER_TIME))]
    NoAnswer,
    #[error("it failed")]
    Api(#[source] Box<kube::Error>),
    #[error("the log broke off")]
    Log(#[source] std::io::Error),
    #[error("{0}")]
    Words(String),
}

impl From<kube::Error> for ApiFailure {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl ApiFailure {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::NoAnswer | Self::Log(_) | Self::Words(_) => None,
        }
    }

    /// For people, in one line.
    pub(super) fn description(&self) -> String {
        match (self, self.status()) {
            (_, Some(status)) => status.message.clone(),
            (Self::Api(error), None) => error.to_string(),
            (Self::Log(error), None) => format!("{self}: {error}"),
            (Self::NoAnswer | Self::Words(_), None) => self.to_string(),
        }
    }

    /// By its rules or for want of quota: another time it may be allowed.
    pub(super) fn is_forbidden(&self) -> bool {
        self.status().is_some_and(|status| status.code == 403)
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    pub(super) fn is_already_there(&self) -> bool {
        self.status()
            .is_some_and(kube::core::Status::is_already_exists)
    }

    /// Something else has the name now.
    pub(super) fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409)
    }

    /// The API has forgotten the version that a watch was to continue from.
    pub(super) fn is_forgotten(&self) -> bool {
        self.status().is_some_and(|status| status.code == 410)
    }

    /// The answer of the API where a retry would get the same.
    pub(super) fn refusal(&self) -> Option<&str> {
        let status = self.status()?;
        let is_final = (400..500).contains(&status.code) && !matches!(status.code, 408 | 409 | 429);
        is_final.then_some(status.message.as_str())
    }

    fn warn(&self, what: &'static str, job: &str) {
        let error = self as &dyn std::error::Error;
        warn!(what, job, error, "asking Kubernetes failed, trying again");
    }

    fn asked_wait(&self) -> Option<Duration> {
        let seconds = self.status()?.details.as_ref()?.retry_after_seconds;
        let wait = Duration::from_secs(seconds.into());
        (!wait.is_zero()).then_some(wait.min(MAX_ASKED_WAIT))
    }
}

/// The answer, if it comes in time.
pub(super) async fn send<T>(
    question: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiFailure> {
    match timeout(ANSWER_TIME, question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ApiFailure::NoAnswer),
    }
}

/// The waits between tries: growing, never ending by themselves.
pub(super) struct Retries {
    pace: Pace,
    waits: ExponentialBackoff,
}

impl Retries {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            waits: waits(pace),
        }
    }

    /// Waits before the next try.
    pub(super) async fn wait(&mut self, what: &'static str, job: &str, api_failure: &ApiFailure) {
        api_failure.warn(what, job);
        let wait = self.waits.next().unwrap_or(self.pace.retry_max);
        sleep(api_failure.asked_wait().unwrap_or(wait)).await;
    }

    /// The next failure is a first one again.
    pub(super) fn succeeded(&mut self) {
        self.waits = waits(self.pace);
    }
}

fn waits(pace: Pace) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(pace.retry_min)
        .with_max_delay(pace.retry_max)
        .without_max_times()
        .with_jitter()
        .build()
}
