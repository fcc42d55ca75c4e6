//! Adapters: what each service does with a real NATS, real processes and real files, one at a time.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails")]

mod agent;
mod frames;
mod link;
mod runner;
mod scheduler;
mod workers;
