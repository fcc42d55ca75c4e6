//! Jobs under faults, simulated: two schedulers that want to lead, three agents with the cores of the real ones, clients that
//! ask until they are answered, and a bus that loses, doubles, reorders and delays, cuts links and heals them, while any part
//! crashes, freezes and comes back.
//!
//! Everything follows from a seed, which a failure prints; `make sim SEED=…` plays it again.

#![expect(
    clippy::unwrap_used,
    reason = "a simulation that cannot continue fails"
)]

mod leader;
mod runs;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

/// Worlds that are played where no seed is named.
const SEEDS: u64 = 10_000;

#[test]
fn no_fault_makes_a_job_run_twice_or_disappear() {
    play("QUINTET_SIM_SEED", "sim SEED", |seed, verbose| {
        World::new(seed, verbose).play()
    });
}

#[test]
fn no_fault_makes_a_node_succeed_twice_or_a_checkpoint_disappear() {
    play("QUINTET_SIM_RUNS_SEED", "sim RUNS_SEED", |seed, verbose| {
        runs::World::new(seed, verbose).play();
    });
}

/// Plays many worlds, or the one that is named in the environment.
fn play(variable: &str, again: &str, world: impl Fn(u64, bool) + Sync) {
    let named = std::env::var(variable).ok().map(|seed| {
        seed.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number"))
    });
    let (first, last) = named.map_or((1, SEEDS), |seed| (seed, seed));
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        return;
                    }
                    let played = catch_unwind(AssertUnwindSafe(|| world(seed, named.is_some())));
                    if played.is_err() {
                        // The others need not continue.
                        next.store(last + 1, Ordering::Relaxed);
                        panic!("seed {seed} breaks a rule; `make {again}={seed}` plays it again");
                    }
                }
            });
        }
    });
}
