//! Workers on a real NATS: the run worker with real programs and an owner that says what the test wants, and effects.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod effects;
mod handlers;
mod owner;
mod programs;
mod survival;
