//! The agent with real processes, a real NATS, and an owner that says what the test wants.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod children;
mod encoder;
mod owner;
