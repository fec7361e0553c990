//! The row about death: a thousand new connections a second, while the oldest worker is killed every half second.
//!
//! Of a worker that serves one request at a time, one may fail: the one in its hands. Whoever waits in the
//! queue of the listener is served by another, and nobody is refused. The floor of the worst latency is that of
//! the same requests without kills, a moment before.

use anyhow::{Context as _, Result, ensure};
use xtask::monotonic;

use super::client::{SECOND, await_first, free_address};
use super::schedule::{self, Failure, RATE, Span, count, millis, pause_until};
use super::subject::{Programs, Subject};
use super::table::{Goal, Row, Table};

const SLOTS: usize = 4;
/// Milliseconds of a request: half of what so many slots can serve of such a rate.
const WORK: u64 = 2;
const EVERY: u64 = SECOND / 2;

/// Measures it.
pub(super) fn measure(
    programs: &Programs,
    is_quick: bool,
    only: Option<&str>,
    table: &mut Table,
) -> Result<()> {
    let name = format!("{RATE} conn/s, {SLOTS} slots, {WORK} ms, kill -9 each 0.5 s");
    if only.is_some_and(|only| !name.contains(only)) {
        return Ok(());
    }
    let seconds = if is_quick { 5 } else { 15 };
    let address = free_address()?;
    let mut subject = Subject::of_servers(programs, address.port(), SLOTS, WORK)?;
    await_first(address)?;
    let (undisturbed, ()) = schedule::run(address, seconds, |_| ());
    let (served, kills) = schedule::run(address, seconds, |span| kill_oldest(&mut subject, span));
    let kills = kills?;
    subject.stop()?;
    ensure!(!kills.is_empty(), "nobody was killed");
    let failures = &served.failures;
    let refused = failures.iter().filter(|failure| failure.is_refused).count();
    let row = |what: &str, unit, value, floor, goal| Row {
        work: format!("{name}: {what}"),
        workers: "forked",
        unit,
        value,
        floor,
        quiet_ratio: None,
        goal: Goal::AtMost(goal),
    };
    let of_each = count(failures.len()) / count(kills.len());
    table.add(row("failed a kill", "", of_each, None, 1.0));
    table.add(row("failed of the worst kill", "", count(of_worst(&kills, failures)), None, 1.0));
    table.add(row("refused", "", count(refused), None, 0.0));
    table.add(row("worst", "ms", millis(served.worst), Some(millis(undisturbed.worst)), 25.0));
    Ok(())
}

/// Kills one after the other; gives the moments.
fn kill_oldest(subject: &mut Subject, span: Span) -> Result<Vec<u64>> {
    let mut kills = Vec::new();
    let mut at = span.begin + EVERY;
    while at < span.end {
        pause_until(at);
        kills.push(monotonic());
        subject.kill_one().context("after a kill")?;
        at += EVERY;
    }
    Ok(kills)
}

/// How many requests failed between one kill and the next, where those are the most. What failed before the
/// first kill had another cause, and counts in full.
fn of_worst(kills: &[u64], failures: &[Failure]) -> usize {
    let mut after = vec![0; kills.len() + 1];
    for failure in failures {
        after[kills.partition_point(|kill| *kill <= failure.at)] += 1;
    }
    after.into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_for_the_kill_before_it() {
        let at = |at| Failure { at, is_refused: false };
        assert_eq!(of_worst(&[10, 20, 30], &[]), 0);
        assert_eq!(of_worst(&[10, 20, 30], &[at(11), at(29), at(31)]), 1);
        assert_eq!(of_worst(&[10, 20, 30], &[at(20), at(29), at(31)]), 2);
    }
}
