//! The log as its users have it: real processes, real files, and the ways they end and break.
//!
//! The global subscriber can be set once in a process and a fork needs a process with one thread,
//! so a test runs its story on a *stage*: this same binary, started once more for one scenario
//! (see `stage`). The test then judges what is in the folder that the scenario wrote to.

mod capture;
mod capture_crash;
mod capture_hostile;
mod capture_own_file;
mod capture_stderr;
mod capture_trouble;
mod compression;
mod descriptors;
mod failures;
mod follow;
mod reopen;
mod rotating;
mod rotating_chaos;
mod rotating_crash;
mod rotating_hostile;
mod rotating_trouble;
mod rotation;
mod stage;
mod stderr;
mod trail;
mod workers;
