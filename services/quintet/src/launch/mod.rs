//! Launch: commands, the system that they put together, and the nats-server beside it.

pub(crate) mod agent;
pub(crate) mod banner;
pub(crate) mod bind_policy;
pub(crate) mod data_dir;
pub(crate) mod demo;
pub(crate) mod embedded_nats;
pub(crate) mod file_limit;
pub(crate) mod part;
mod parts;
pub(crate) mod serve;
pub mod system;
pub(crate) mod telemetry;
pub(crate) mod up;
pub(crate) mod worker;
