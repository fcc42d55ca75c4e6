//! Faults on real processes: every part is killed, frozen, cut off or restarted while work continues, and then nothing
//! is lost and nothing was run twice.
//!
//! Timings are short, so that a whole life fits into a test: an agent is lost after a second and a half of silence.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails")]

mod agents;
mod bus;
mod cluster;
mod disk;
mod frames;
mod nats_cluster;
mod restarts;
mod runners;
mod schedulers;
mod slow;
mod unconfirmed;
