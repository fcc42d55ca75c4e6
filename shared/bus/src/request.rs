//! Requests: one request, one reply, a deadline that travels with it.

use std::time::Duration;

use async_nats::RequestErrorKind;
use bytes::Bytes;
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::subject::Request;
use tokio::time::{Instant, timeout_at};

use crate::clock::now;
use crate::codec::{Encoding, decode, encode};
use crate::connect::Bus;
use crate::error::{CodecError, RequestError};
use crate::headers::{self, HEADER_ERROR, HEADER_SERVICE_ERROR};
use crate::metrics;

/// First wait of [`Bus::request_until`]; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(20);
/// Longest wait of [`Bus::request_until`].
const RETRY_MAX: Duration = Duration::from_millis(250);
/// How long [`Bus::request_until`] waits for its first answer; it doubles with every try. The process that had the
/// request may have died with it.
const TRY_MIN: Duration = Duration::from_secs(1);

impl Bus {
    /// Sends the request once. Fails at once when the subject has no responders or the connection is lost.
    ///
    /// # Errors
    /// [`RequestError::NoResponders`] and [`RequestError::Link`] when nothing was done, [`RequestError::Timeout`] when it may have
    /// been, [`RequestError::Refused`] with the error of the service, [`RequestError::Codec`] for what cannot be encoded or read.
    pub async fn request<S: Request>(
        &self,
        subject: &S,
        message: &S::Message,
        deadline: Duration,
    ) -> Result<S::Reply, RequestError> {
        let body = encode(message, Encoding::MessagePack)?;
        self.send_request::<S>(subject.render(self.prefix()), body, deadline)
            .await
    }

    /// Repeats the request while the subject has no responders, no answer comes, the connection is lost, or the answer
    /// asks to try later, until the deadline; then fails with the last reason.
    ///
    /// The request may be carried out more than once: for requests whose repetition changes nothing.
    ///
    /// # Errors
    /// As [`Bus::request`]: the last reason before the deadline.
    pub async fn request_until<S: Request>(
        &self,
        subject: &S,
        message: &S::Message,
        deadline: Duration,
    ) -> Result<S::Reply, RequestError> {
        let body = encode(message, Encoding::MessagePack)?;
        let subject = subject.render(self.prefix());
        let end = Instant::now() + deadline;
        let (mut wait, mut patience) = (RETRY_MIN, TRY_MIN);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let reply = self.send_request::<S>(subject.clone(), body.clone(), left.min(patience));
            let error = match reply.await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let unanswered = matches!(error, RequestError::Timeout { .. });
            // That passes when an operator has repaired NATS, not in a moment.
            if matches!(&error, RequestError::Refused(reply) if reply.is_unwritable()) {
                return Err(error);
            }
            let pause = wait.mul_f64(rand::random_range(0.5..=1.0));
            if !(unanswered || error.is_worth_retrying()) || Instant::now() + pause >= end {
                return Err(match error {
                    RequestError::Timeout { subject, .. } => RequestError::Timeout {
                        subject,
                        after: deadline,
                    },
                    error => error,
                });
            }
            if unanswered {
                patience *= 2;
            }
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    pub(crate) async fn send_request<S: Request>(
        &self,
        subject: String,
        body: Bytes,
        deadline: Duration,
    ) -> Result<S::Reply, RequestError> {
        let answer = self.send_unmeasured::<S>(subject, body, deadline).await;
        metrics::request(match &answer {
            Ok(_) => "ok",
            Err(RequestError::NoResponders { .. }) => "no_responders",
            Err(RequestError::Timeout { .. }) => "timeout",
            Err(RequestError::Refused(_)) => "refused",
            Err(RequestError::Link { .. }) => "link",
            Err(RequestError::Codec(_)) => "codec",
        });
        answer
    }

    async fn send_unmeasured<S: Request>(
        &self,
        subject: String,
        body: Bytes,
        deadline: Duration,
    ) -> Result<S::Reply, RequestError> {
        if !self.is_connected() {
            return Err(RequestError::Link {
                subject,
                source: "the client is reconnecting".into(),
            });
        }
        let end = Instant::now() + deadline;
        let headers = headers::outgoing_request(self.cause(), now().after(deadline));
        // The timeout of the request covers the answer only; the outer one also a full queue to the socket.
        let request = async_nats::Request::new()
            .payload(body)
            .headers(headers)
            .timeout(Some(deadline));
        let sent = timeout_at(end, self.client().send_request(subject.clone(), request)).await;
        let message = match sent {
            Ok(Ok(message)) => message,
            Err(_) => {
                return Err(RequestError::Timeout {
                    subject,
                    after: deadline,
                });
            }
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    RequestErrorKind::NoResponders => RequestError::NoResponders { subject },
                    RequestErrorKind::TimedOut => RequestError::Timeout {
                        subject,
                        after: deadline,
                    },
                    RequestErrorKind::MaxPayloadExceeded => RequestError::Refused(ErrorReply::new(
                        ErrorCode::PayloadTooLarge,
                        format!(
                            "the request is larger than the bus takes, {} bytes",
                            self.max_payload()
                        ),
                    )),
                    RequestErrorKind::InvalidSubject | RequestErrorKind::Other => {
                        RequestError::Link {
                            subject,
                            source: error.into(),
                        }
                    }
                });
            }
        };
        read_answer(&message)
    }
}

fn read_answer<R: serde::de::DeserializeOwned>(
    message: &async_nats::Message,
) -> Result<R, RequestError> {
    let header = |name: &str| {
        message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(name))
    };
    if header(HEADER_ERROR).is_some() {
        let (reply, _) = decode::<ErrorReply>(&message.payload)?;
        return Err(RequestError::Refused(reply));
    }
    // An answer of a service that is not ours.
    if let Some(phrase) = header(HEADER_SERVICE_ERROR) {
        return Err(RequestError::Refused(ErrorReply::new(
            ErrorCode::Unknown,
            phrase.as_str(),
        )));
    }
    decode(&message.payload)
        .map(|(reply, _)| reply)
        .map_err(|error: CodecError| RequestError::Codec(error))
}
