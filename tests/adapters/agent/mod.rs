//! The agent with real processes, a real NATS, and an owner that says what the test wants.

mod children;
mod encoder;
mod owner;
