//! The rows about logs: eight writers, lines of a hundred bytes, one log, rotation at 10 MB.
//!
//! All ways are gone in turn, a round of each, so that a busy neighbour disturbs all of them. The
//! lines are numbered and every file is read afterwards: what is missing, doubled or torn is counted
//! over all rounds. The time is from the moment all writers may begin to the end of the last process;
//! the CPU is that of all of them, from their start. The goals are ratios to other ways of the same
//! run; those of the CPU are absolute, from a machine on which the floor of batches takes 0.19.
//!
//! In one row writers kill themselves in the middle of a rotation, one after the other, each at
//! another step; what counts there are the lines of the eight others.

mod round;
mod table;
mod verify;

use anyhow::{Context as _, Result};

use super::subject::Programs;
use round::{Outcome, Round};
pub(super) use table::LogRow;
use table::{Goal, median};
use verify::Count;

const WRITERS: usize = 8;
const ROUNDS: usize = 7;
/// Of each writer; a quick run has an eighth, and one round.
const LINES: usize = 100_000;
/// How many times as many lines there are of ways so fast that the others' would be over too soon.
const MORE: usize = 4;
const BATCH: usize = 64 << 10;
/// What a pipe takes at once, so that those of several writers never mix.
const PIPE_BATCH: usize = 4 << 10;
const MAX_SIZE: u64 = 10_000_000;
/// Where rotators are killed: small files and batches, so that there are many rotations.
const KILLED_MAX_SIZE: u64 = 1_000_000;
const KILLED_BATCH: usize = 2 << 10;

/// How lines come into files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    FloorBatches,
    FloorLines,
    Rotating,
    RotatingLines,
    Killed,
    Tracing,
    Appender,
    Captured,
    S6Log,
}

impl Way {
    const ALL: [Way; 9] = [
        Way::FloorBatches,
        Way::FloorLines,
        Way::Rotating,
        Way::RotatingLines,
        Way::Killed,
        Way::Tracing,
        Way::Appender,
        Way::Captured,
        Way::S6Log,
    ];

    fn work(self) -> &'static str {
        match self {
            Way::FloorBatches => "log: floor, 64 KiB batches, no rotation",
            Way::FloorLines => "log: floor, a write a line, no rotation",
            Way::Rotating => "log: RotatingFile, 64 KiB batches",
            Way::RotatingLines => "log: RotatingFile, a write a line",
            Way::Killed => "log: RotatingFile, 1 MB, rotators killed",
            Way::Tracing => "log: through tracing, ph-log",
            Way::Appender => "log: through tracing, tracing_appender direct",
            Way::Captured => "log: captured from commands, ph run",
            Way::S6Log => "log: captured from a pipe, s6-log t",
        }
    }

    /// What `bench-log` is to do.
    fn job(self) -> &'static str {
        match self {
            Way::FloorBatches | Way::FloorLines => "plain",
            Way::Rotating | Way::RotatingLines | Way::Killed => "rotating",
            Way::Tracing => "tracing",
            Way::Appender => "appender",
            Way::Captured => "stay",
            Way::S6Log => "print",
        }
    }

    /// The most bytes of one write.
    fn batch(self) -> usize {
        match self {
            Way::FloorBatches | Way::Rotating => BATCH,
            Way::FloorLines | Way::RotatingLines | Way::Tracing | Way::Appender => 1,
            Way::Killed => KILLED_BATCH,
            Way::Captured | Way::S6Log => PIPE_BATCH,
        }
    }

    fn max_size(self) -> u64 {
        if self == Way::Killed { KILLED_MAX_SIZE } else { MAX_SIZE }
    }

    fn lines(self, lines: usize) -> usize {
        match self {
            Way::FloorBatches | Way::Rotating => lines * MORE,
            Way::Killed => lines * 2,
            Way::FloorLines
            | Way::RotatingLines
            | Way::Tracing
            | Way::Appender
            | Way::Captured
            | Way::S6Log => lines,
        }
    }

    /// What it should come to: so many times the lines a second of another way, and so many seconds
    /// of CPU for a million lines.
    fn goal(self) -> Option<Goal> {
        let goal = |times, than, cpu| Some(Goal { times, than, cpu });
        match self {
            Way::Rotating => goal(0.8, Way::FloorBatches, 0.25),
            Way::Tracing => goal(3.0, Way::Appender, 0.8),
            Way::Captured => goal(2.0, Way::S6Log, 0.5),
            Way::FloorBatches
            | Way::FloorLines
            | Way::RotatingLines
            | Way::Killed
            | Way::Appender
            | Way::S6Log => None,
        }
    }

    /// Whether anything is promised of its lines.
    fn is_ours(self) -> bool {
        match self {
            Way::Rotating | Way::RotatingLines | Way::Killed | Way::Tracing | Way::Captured => true,
            Way::FloorBatches | Way::FloorLines | Way::Appender | Way::S6Log => false,
        }
    }
}

/// All rounds of one way.
struct Figures {
    way: Way,
    /// Lines a second of each round.
    speed: Vec<f64>,
    /// Seconds of CPU for a million lines of each round.
    cpu: Vec<f64>,
    count: Count,
    /// Why there are none.
    missing: Option<String>,
}

impl Figures {
    fn add(&mut self, outcome: &Outcome) {
        // Counts of lines are far below what a float holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "some millions")]
        let lines = outcome.count.found as f64;
        self.speed.push(lines / outcome.seconds);
        self.cpu.push(outcome.cpu / lines * 1e6);
        self.count += outcome.count;
    }
}

/// Measures all ways whose work holds the text.
pub(super) fn measure(
    programs: &Programs,
    is_quick: bool,
    only: Option<&str>,
) -> Result<Vec<LogRow>> {
    let wanted = |way: &Way| only.is_none_or(|only| way.work().contains(only));
    let new = |way| {
        let (speed, cpu) = (Vec::new(), Vec::new());
        Figures { way, speed, cpu, count: Count::default(), missing: None }
    };
    let mut all: Vec<Figures> = Way::ALL.into_iter().filter(wanted).map(new).collect();
    let (rounds, lines) = if is_quick { (1, LINES / 8) } else { (ROUNDS, LINES) };
    for _ in 0..rounds {
        for figures in all.iter_mut().filter(|figures| figures.missing.is_none()) {
            let way = figures.way;
            let round = Round { programs, way, lines: way.lines(lines) };
            match round.run().with_context(|| way.work().to_owned())? {
                Ok(outcome) => figures.add(&outcome),
                Err(why) => figures.missing = Some(why),
            }
        }
    }
    let speeds: Vec<_> = all.iter().map(|it| (it.way, median(&it.speed))).collect();
    Ok(all.into_iter().map(|figures| LogRow::new(figures, &speeds)).collect())
}
