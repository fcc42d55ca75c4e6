//! The frames service on a real NATS: workers on the bus, programs of its own, and a change of the service that drives
//! the display.

mod fixture;
mod programs;
mod take_over;
mod workers;
mod writes;
