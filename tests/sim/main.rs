//! Jobs under faults, simulated: two schedulers that want to lead, three agents with the cores of the real ones, clients that
//! ask until they are answered, and a bus that loses, doubles, reorders and delays, cuts links and heals them, while any part
//! crashes, freezes and comes back.
//!
//! Everything follows from a seed, which a failure prints; `make sim SEED=…` plays it again.

#![expect(clippy::unwrap_used, reason = "a simulation that cannot go on fails")]

mod leader;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

/// Worlds that are played where no seed is named.
const SEEDS: u64 = 10_000;

#[test]
fn no_fault_makes_a_job_run_twice_or_disappear() {
    let named = std::env::var("QUINTET_SIM_SEED")
        .ok()
        .map(|seed| seed.parse().expect("QUINTET_SIM_SEED is a number"));
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
                    let world = || World::new(seed, named.is_some()).play();
                    if catch_unwind(AssertUnwindSafe(world)).is_err() {
                        // The others need not go on.
                        next.store(last + 1, Ordering::Relaxed);
                        panic!("seed {seed} breaks a rule; `make sim SEED={seed}` plays it again");
                    }
                }
            });
        }
    });
}
