//! Random numbers of which a failing test can tell where they began.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Knuth's linear congruential generator; its state is a number one can write down.
#[derive(Debug)]
pub(crate) struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// From `E2E_SEED`, else from the clock.
    pub(crate) fn new() -> Self {
        let given = std::env::var("E2E_SEED").ok();
        let given = given.map(|seed| seed.parse().expect("E2E_SEED is a number"));
        let seed = given.unwrap_or_else(|| {
            let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::from(clock.subsec_nanos())
        });
        Self { seed, state: seed }
    }

    /// A number from 0 up to, not including, `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let next = self.state.wrapping_mul(6_364_136_223_846_793_005);
        self.state = next.wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % bound
    }
}

impl fmt::Display for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E2E_SEED={}", self.seed)
    }
}
