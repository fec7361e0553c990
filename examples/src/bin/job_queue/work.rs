//! What jobs are: a word and a number.
//!
//! | payload | result |
//! |---|---|
//! | `primes N` | how many primes there are below N |
//! | `wait MILLISECONDS` | `waited`, as a job that waits for somebody else |
//!
//! A job is done in steps of a moment each, between which the worker says that it lives.

use std::time::Duration;

/// Numbers that are tried in one step.
const NUMBERS: u64 = 20_000;

/// The longest wait in one step.
const WAIT: u64 = 200;

/// A job in the middle of it.
pub(crate) enum Work {
    Primes { below: u64, next: u64, found: u64 },
    Wait { left: u64 },
}

impl Work {
    /// # Errors
    ///
    /// What is wrong with the payload.
    pub(crate) fn parse(payload: &str) -> Result<Self, String> {
        let (word, number) = payload.split_once(' ').unwrap_or((payload, ""));
        let number = number.parse().map_err(|error| format!("{payload:?}: {error}"))?;
        match word {
            "primes" => Ok(Self::Primes { below: number, next: 2, found: 0 }),
            "wait" => Ok(Self::Wait { left: number }),
            _ => Err(format!("{payload:?}: expected primes or wait")),
        }
    }

    /// Goes on for a moment; gives the result when there is nothing left to do.
    pub(crate) fn step(&mut self) -> Option<String> {
        match self {
            Self::Primes { below, next, found } => {
                let end = next.saturating_add(NUMBERS).min(*below);
                *found += (*next..end).map(|number| u64::from(is_prime(number))).sum::<u64>();
                *next = end.max(*next);
                (*next >= *below).then(|| found.to_string())
            }
            Self::Wait { left } => {
                let now = WAIT.min(*left);
                wait(Duration::from_millis(now));
                *left -= now;
                (*left == 0).then(|| "waited".to_owned())
            }
        }
    }
}

fn is_prime(number: u64) -> bool {
    (2..)
        .take_while(|divisor| divisor * divisor <= number)
        .all(|divisor| !number.is_multiple_of(divisor))
}

#[expect(clippy::disallowed_methods, reason = "a job at hand is finished whatever else is asked")]
fn wait(span: Duration) {
    std::thread::sleep(span);
}
