//! Workers on a real NATS: the run worker with real programs and an owner that says what the test wants, and effects.

mod effects;
mod handlers;
mod owner;
mod programs;
mod survival;
