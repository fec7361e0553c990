//! The arbiter's tests, in one binary: stories a person can read, one story for every mended bug, and
//! a deterministic simulation that looks for the next one.
//!
//! Nothing here waits, forks or looks at a clock: the arbiter is data in, data out.

// `cfg(test)` is always on here; it tells clippy that helpers of tests are tests too.
#[cfg(test)]
mod regress;
#[cfg(all(test, feature = "serde"))]
mod replay;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod story;
