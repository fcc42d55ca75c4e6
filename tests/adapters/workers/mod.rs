//! Workers on a real NATS: the run worker with real programs and an owner that the test scripts, and effects.

mod effects;
mod handlers;
mod owner;
mod programs;
mod survival;
