//! The frames service on a real NATS: workers on the bus, programs of its own, and a change of who drives the display.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod programs;
mod reigns;
mod stage;
mod workers;
mod writes;
