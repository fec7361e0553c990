//! The rows about logs as people and programs read them.

use serde::Serialize;

use super::{Figures, Way};

/// See [`Way::goal`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    pub(super) times: f64,
    pub(super) than: Way,
    pub(super) cpu: f64,
}

/// One way, beside the one it is compared with.
#[derive(Debug, Serialize)]
pub(in super::super) struct LogRow {
    work: &'static str,
    lines_a_second: f64,
    lost: u64,
    duplicate: u64,
    torn: u64,
    /// Seconds for a million lines.
    cpu: f64,
    /// To the floor of batches, to that of lines, and to what the goal speaks of.
    floor_batches: Option<f64>,
    floor_lines: Option<f64>,
    ratio: Option<f64>,
    goal_ratio: Option<f64>,
    goal_cpu: Option<f64>,
    than: Option<&'static str>,
    /// Whether the goals are met, as far as there are any.
    speed_ok: Option<bool>,
    cpu_ok: Option<bool>,
    whole_ok: Option<bool>,
    /// Why it was not measured.
    missing: Option<String>,
}

impl LogRow {
    pub(super) fn new(figures: Figures, speeds: &[(Way, f64)]) -> LogRow {
        let Figures { way, speed, cpu, count, missing } = figures;
        let (speed, cpu) = (median(&speed), median(&cpu));
        let to = |than: Way| {
            let (_, other) = speeds.iter().find(|(way, _)| *way == than)?;
            (*other > 0.0 && speed > 0.0).then(|| speed / other)
        };
        let goal = way.goal();
        let ratio = goal.and_then(|goal| to(goal.than));
        let is_measured = missing.is_none();
        let is_whole = (count.lost, count.duplicate, count.torn) == (0, 0, 0);
        LogRow {
            work: way.work(),
            lines_a_second: speed,
            lost: count.lost,
            duplicate: count.duplicate,
            torn: count.torn,
            cpu,
            floor_batches: to(Way::FloorBatches),
            floor_lines: to(Way::FloorLines),
            ratio,
            goal_ratio: goal.map(|goal| goal.times),
            goal_cpu: goal.map(|goal| goal.cpu),
            than: goal.map(|goal| goal.than.work()),
            speed_ok: goal.and_then(|goal| ratio.map(|ratio| ratio >= goal.times)),
            cpu_ok: goal.filter(|_| is_measured).map(|goal| cpu <= goal.cpu),
            whole_ok: (way.is_ours() && is_measured).then_some(is_whole),
            missing,
        }
    }

    fn cells(&self) -> [String; 9] {
        if let Some(why) = &self.missing {
            let mut cells = [const { String::new() }; 9];
            cells[0] = format!("{}: {why}", self.work);
            return cells;
        }
        let times =
            |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("x{ratio:.2}"));
        [
            self.work.to_owned(),
            format!("{:.2} M", self.lines_a_second / 1e6),
            self.lost.to_string(),
            self.duplicate.to_string(),
            self.torn.to_string(),
            format!("{:.2}", self.cpu),
            times(self.floor_batches),
            times(self.floor_lines),
            self.judgement(),
        ]
    }

    fn judgement(&self) -> String {
        let word = |is_met: bool| if is_met { "ok" } else { "MISSED" };
        let mut parts = Vec::new();
        if let Some(is_whole) = self.whole_ok {
            parts.push(format!("whole {}", word(is_whole)));
        }
        if let (Some(ratio), Some(goal), Some(than)) = (self.ratio, self.goal_ratio, self.than) {
            let than = than.trim_start_matches("log: ");
            let is_met = self.speed_ok.unwrap_or(false);
            parts.push(format!("x{ratio:.2} of `{than}`, goal x{goal} {}", word(is_met)));
        }
        if let (Some(goal), Some(is_met)) = (self.goal_cpu, self.cpu_ok) {
            parts.push(format!("CPU goal {goal} {}", word(is_met)));
        }
        parts.join("; ")
    }

    /// All rows, for people.
    pub(in super::super) fn print(rows: &[LogRow]) {
        let head =
            ["work", "lines/s", "lost", "double", "torn", "CPU s/M", "batches", "lines", "goals"];
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend(rows.iter().map(LogRow::cells));
        let mut widths = [0; 9];
        for line in lines.iter().filter(|line| !line[1].is_empty()) {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        for line in &lines {
            let cells = line.iter().zip(widths).enumerate().map(|(at, (cell, width))| match at {
                1..=7 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            });
            println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        println!(
            "8 writers, lines of 100 bytes, rotation at 10 MB; lines/s and CPU s/M: medians; lost, double, torn: \
             of all rounds; batches, lines: the ratio to that floor"
        );
    }
}

/// The middle one; 0 of none.
pub(super) fn median(all: &[f64]) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}
