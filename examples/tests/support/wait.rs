//! Waiting: on facts, with a deadline. Nothing else in the tests sleeps or looks at a clock.

use std::time::{Duration, Instant};

/// How long a fact may take to become true. A loaded machine is slow, never this slow.
const DEADLINE: Duration = Duration::from_secs(60);

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `fact` gives something, and gives that; panics after a minute.
#[expect(clippy::disallowed_methods, reason = "the one place where tests wait on a fact")]
pub(crate) fn eventually<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Lets time pass, for facts of the kind "nothing happens meanwhile": there is none to wait for.
#[expect(clippy::disallowed_methods, reason = "to see that nothing happens takes time")]
pub(crate) fn let_pass(duration: Duration) {
    std::thread::sleep(duration);
}

/// A figure for people; the test harness shows it on request.
#[expect(clippy::print_stdout, reason = "what --nocapture is for")]
pub(crate) fn tell(line: &str) {
    println!("{line}");
}

/// Does something and says how long it took.
#[expect(clippy::disallowed_methods, reason = "the one clock of the tests")]
pub(crate) fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = act();
    (done, start.elapsed())
}
