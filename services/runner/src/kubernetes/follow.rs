//! Following the program of a Job: wait until it starts, then read its log until it ended and all of the log was read.

use futures::{AsyncBufRead, AsyncBufReadExt};
use kube::api::LogParams;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::job::CONTAINER;
use super::log::{LogReader, Pass};
use super::pod::{PodEnd, PodState, StartObstacle};
use super::retry::{ApiFailure, Retries, send};
use super::watch::PodSeen;
use super::{Kubernetes, Reported};

/// How often the log of a program that ended is opened without success before it is given up.
const LAST_TRIES: u32 = 8;

/// Follows one program.
pub(super) struct Follower<'a> {
    pub(super) kubernetes: &'a Kubernetes,
    pub(super) job: &'a str,
    pub(super) events: &'a mpsc::Sender<Reported>,
    pub(super) seen: watch::Receiver<PodSeen>,
    pub(super) reader: &'a mut LogReader,
}

/// How far a program was followed.
pub(super) enum Followed {
    /// It ended; `torn` is why its log was not read to the end.
    Ended { pod: PodEnd, torn: Option<String> },
    /// Its pod is gone, and how it ended was not seen.
    Lost,
    /// It will not start.
    Stuck { error: String, retryable: bool },
    /// It did not start in time.
    NotStarted(Option<StartObstacle>),
}

/// How one opening of the log came to its end.
enum ReadEnd {
    /// The API ended it.
    Ended,
    /// Nothing came for a long time.
    Silent,
    /// It failed.
    Broken(ApiFailure),
}

impl Follower<'_> {
    /// Follows the program to its end.
    pub(super) async fn run(&mut self) -> Followed {
        match self.started().await {
            Some(followed) => followed,
            None => self.read_all().await,
        }
    }

    /// Waits until the program started. Something when it did not.
    async fn started(&mut self) -> Option<Followed> {
        let deadline = Instant::now() + self.kubernetes.config.start_timeout;
        loop {
            let obstacle = match self.seen.borrow_and_update().state.clone() {
                PodState::Running | PodState::Ended(_) => return None,
                PodState::Gone => return Some(Followed::Lost),
                PodState::Stuck { error, retryable } => {
                    return Some(Followed::Stuck { error, retryable });
                }
                PodState::Waiting(obstacle) => obstacle,
            };
            tokio::select! {
                biased;
                // The sender outlives this.
                _ = self.seen.changed() => {}
                () = sleep_until(deadline) => return Some(Followed::NotStarted(obstacle)),
            }
        }
    }

    async fn read_all(&mut self) -> Followed {
        let mut retries = Retries::new(self.kubernetes.pace);
        let mut failures = 0;
        loop {
            let PodSeen { name, state } = self.seen.borrow_and_update().clone();
            let end = match state {
                PodState::Gone => return Followed::Lost,
                PodState::Ended(pod) if has_no_log(&pod) => {
                    return Followed::Ended { pod, torn: None };
                }
                PodState::Ended(pod) => Some(pod),
                PodState::Running | PodState::Waiting(_) | PodState::Stuck { .. } => None,
            };
            let mut pass = self.reader.begin();
            let name = name.unwrap_or_default();
            let read = self.read(&name, &mut pass, end.is_some()).await;
            let Some(pod) = end else {
                self.pause(read, &mut retries).await;
                continue;
            };
            let is_ended = matches!(read, ReadEnd::Ended);
            if is_ended && self.reader.is_whole(&pass) {
                let mut reports = Vec::new();
                self.reader.finish(pass, &mut reports);
                self.send(reports).await;
                return Followed::Ended { pod, torn: None };
            }
            if is_ended && pass.is_good() {
                // Something new came, so that more may come.
                continue;
            }
            failures += 1;
            let api_failure = why(read, &pass);
            if failures == LAST_TRIES {
                let torn = Some(api_failure.description());
                return Followed::Ended { pod, torn };
            }
            retries.wait("read log", self.job, &api_failure).await;
        }
    }

    /// Waits a little before the log of a running program is opened again.
    async fn pause(&mut self, read: ReadEnd, retries: &mut Retries) {
        match read {
            ReadEnd::Silent => retries.succeeded(),
            // The program has probably ended, and its pod will show it.
            ReadEnd::Ended => {
                retries.succeeded();
                tokio::select! {
                    biased;
                    _ = self.seen.changed() => {}
                    () = sleep(self.kubernetes.pace.retry_min) => {}
                }
            }
            ReadEnd::Broken(api_failure) => retries.wait("read log", self.job, &api_failure).await,
        }
    }

    /// Opens the log once and takes what is new.
    async fn read(&mut self, pod: &str, pass: &mut Pass, is_over: bool) -> ReadEnd {
        match self.try_read(pod, pass, is_over).await {
            Ok(end) => end,
            Err(api_failure) => ReadEnd::Broken(api_failure),
        }
    }

    async fn try_read(
        &mut self,
        pod: &str,
        pass: &mut Pass,
        mut is_over: bool,
    ) -> Result<ReadEnd, ApiFailure> {
        let pace = self.kubernetes.pace;
        let params = LogParams {
            container: Some(CONTAINER.to_owned()),
            follow: !is_over,
            since_time: self.reader.since(),
            timestamps: true,
            ..LogParams::default()
        };
        let Some(stream) = self.open(pod, &params, is_over).await? else {
            return Ok(ReadEnd::Silent);
        };
        let mut stream = std::pin::pin!(stream);
        loop {
            let silence = if is_over {
                pace.last_silence
            } else {
                pace.log_silence
            };
            // Both are cancel-safe: what was read stays in the stream's buffer, and a change stays marked.
            let bytes = tokio::select! {
                biased;
                bytes = stream.fill_buf() => bytes.map_err(ApiFailure::Log)?,
                _ = self.seen.changed(), if !is_over => {
                    is_over = is_ended(&self.seen.borrow().state);
                    continue;
                }
                () = sleep(silence) => return Ok(ReadEnd::Silent),
            };
            if bytes.is_empty() {
                return Ok(ReadEnd::Ended);
            }
            let mut reports = Vec::new();
            let length = bytes.len();
            self.reader.feed(pass, bytes, &mut reports);
            stream.consume_unpin(length);
            self.send(reports).await;
        }
    }

    /// Opens the log. Nothing when there was no answer: of a program that runs it comes with the first line.
    async fn open(
        &mut self,
        pod: &str,
        params: &LogParams,
        is_over: bool,
    ) -> Result<Option<impl AsyncBufRead + use<>>, ApiFailure> {
        let opening = self.kubernetes.pods.log_stream(pod, params);
        if is_over {
            return send(opening).await.map(Some);
        }
        let is_ended = |seen: &PodSeen| is_ended(&seen.state);
        tokio::select! {
            biased;
            opened = opening => Ok(Some(opened?)),
            _ = self.seen.wait_for(is_ended) => Ok(None),
            () = sleep(self.kubernetes.pace.log_silence) => Ok(None),
        }
    }

    async fn send(&self, reports: Vec<Reported>) {
        for reported in reports {
            // The owner of the receiver drops this future too.
            let _ = self.events.send(reported).await;
        }
    }
}

fn is_ended(state: &PodState) -> bool {
    matches!(state, PodState::Ended(_) | PodState::Gone)
}

fn has_no_log(pod: &PodEnd) -> bool {
    pod.container
        .as_ref()
        .is_none_or(|container| container.is_no_start())
}

fn why(read: ReadEnd, pass: &Pass) -> ApiFailure {
    match (read, pass.api_failure()) {
        (ReadEnd::Broken(api_failure), _) => api_failure,
        (ReadEnd::Ended | ReadEnd::Silent, Some(words)) => ApiFailure::Words(words.to_owned()),
        (ReadEnd::Silent, None) => ApiFailure::Words("it does not end".to_owned()),
        (ReadEnd::Ended, None) => {
            ApiFailure::Words("it no longer holds what was read before".to_owned())
        }
    }
}
