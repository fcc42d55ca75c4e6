//! The agent with real processes, a real NATS, and an owner that the test scripts.

mod children;
mod encoder;
mod owner;
