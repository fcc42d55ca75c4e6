//! The run worker with real programs, a real NATS, and an owner that says what the test wants.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod handlers;
mod owner;
mod programs;
mod survival;
