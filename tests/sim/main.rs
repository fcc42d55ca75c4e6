//! The scheduler under faults, simulated: its core, agents that keep the protocol's promises, and a bus that loses, doubles,
//! reorders and delays, cuts agents off and heals them, while scheduler and agents crash and come back.
//!
//! Everything follows from a seed, which a failure prints; `make sim SEED=…` plays it again.

#![expect(clippy::unwrap_used, reason = "a simulation that cannot go on fails")]

mod agent;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::World;

/// Worlds that are played where no seed is named.
const SEEDS: u64 = 300;

#[test]
fn no_fault_makes_a_job_run_twice_or_disappear() {
    let named = std::env::var("QUINTET_SIM_SEED")
        .ok()
        .map(|seed| seed.parse().expect("QUINTET_SIM_SEED is a number"));
    let seeds = match named {
        Some(seed) => seed..=seed,
        None => 1..=SEEDS,
    };
    for seed in seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| World::new(seed).play()));
        if outcome.is_err() {
            panic!("seed {seed} breaks a rule; `make sim SEED={seed}` plays it again");
        }
    }
}
