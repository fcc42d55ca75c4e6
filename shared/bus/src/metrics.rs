//! Names of the bus's metrics and the few functions that count them.
//!
//! Labels come from the closed sets below, never from ids or subjects.

use metrics::counter;

/// Requests sent, by `outcome`: ok, refused, no_responders, timeout, link, codec.
pub const REQUESTS_TOTAL: &str = "bus_requests_total";
/// Messages that could not be decoded or whose subject is unknown, by `where`: delivery, request, record, replay.
pub const MALFORMED_TOTAL: &str = "bus_malformed_total";
/// Requests dropped without an answer by a defect; the requester was answered INTERNAL.
pub const UNANSWERED_TOTAL: &str = "bus_unanswered_total";
/// Compare-and-swap writes, by `outcome`: ok, conflict, failed.
pub const WRITES_TOTAL: &str = "bus_writes_total";
/// Messages that a subscription lost because its reader was too slow.
pub const SLOW_CONSUMER_TOTAL: &str = "bus_slow_consumer_total";
/// Reconnects after the connection was lost.
pub const RECONNECTS_TOTAL: &str = "bus_reconnects_total";
/// Times a watch or load had to recreate its consumer to stay without gaps.
pub const FEED_RESTARTS_TOTAL: &str = "bus_feed_restarts_total";

/// Where a malformed message was met.
#[derive(Clone, Copy)]
pub(crate) enum DecodeSite {
    Delivery,
    Request,
    Record,
    Replay,
}

pub(crate) fn malformed(place: DecodeSite) {
    let place = match place {
        DecodeSite::Delivery => "delivery",
        DecodeSite::Request => "request",
        DecodeSite::Record => "record",
        DecodeSite::Replay => "replay",
    };
    counter!(MALFORMED_TOTAL, "where" => place).increment(1);
}

pub(crate) fn request(outcome: &'static str) {
    counter!(REQUESTS_TOTAL, "outcome" => outcome).increment(1);
}

pub(crate) fn write(outcome: &'static str) {
    counter!(WRITES_TOTAL, "outcome" => outcome).increment(1);
}

pub(crate) fn unanswered() {
    counter!(UNANSWERED_TOTAL).increment(1);
}

pub(crate) fn slow_consumer() {
    counter!(SLOW_CONSUMER_TOTAL).increment(1);
}

pub(crate) fn reconnected() {
    counter!(RECONNECTS_TOTAL).increment(1);
}

pub(crate) fn feed_restarted() {
    counter!(FEED_RESTARTS_TOTAL).increment(1);
}
