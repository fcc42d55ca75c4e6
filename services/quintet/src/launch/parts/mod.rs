//! What each part of a system declares of itself, one file each.

mod agent;
mod edge;
mod effects;
mod frames;
mod run_worker;
mod runner;
mod scheduler;
