//! The frames service on a real NATS: workers on the bus, programs of its own, and a change of who drives the display.

mod programs;
mod reigns;
mod stage;
mod workers;
mod writes;
