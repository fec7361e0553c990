//! The rows as people and programs read them.

use anyhow::Result;
use serde::Serialize;

use super::log::LogRow;

/// One figure, beside its floor.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// What was done.
    pub(super) work: String,
    /// To which workers.
    pub(super) workers: &'static str,
    /// What is counted.
    pub(super) unit: &'static str,
    pub(super) value: f64,
    pub(super) floor: Option<f64>,
    /// The ratio in the fastest tenth of the rounds.
    pub(super) quiet_ratio: Option<f64>,
    pub(super) goal: Goal,
}

/// What the figure should come to, at most.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Goal {
    /// So many times the floor.
    TimesFloor(f64),
    /// So many times the ratio that few workers gave.
    Growth { times: f64, few: f64 },
    /// This figure.
    AtMost(f64),
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.floor.filter(|floor| *floor > 0.0).map(|floor| self.value / floor)
    }

    fn is_met(&self) -> bool {
        match self.goal {
            Goal::TimesFloor(times) => self.ratio().is_none_or(|ratio| ratio <= times),
            Goal::Growth { times, few } => self.ratio().is_none_or(|ratio| ratio <= times * few),
            Goal::AtMost(limit) => self.value <= limit,
        }
    }

    fn goal_text(&self) -> String {
        match self.goal {
            Goal::TimesFloor(times) => format!("x{times:.2}"),
            Goal::Growth { times, few } => format!("x{:.2}", times * few),
            Goal::AtMost(limit) => format!("{limit}"),
        }
    }

    fn cells(&self) -> [String; 9] {
        let dash = || "-".to_owned();
        [
            self.work.clone(),
            self.workers.to_owned(),
            format!("{:.2}", self.value),
            self.unit.to_owned(),
            self.floor.map_or_else(dash, |floor| format!("{floor:.2}")),
            self.ratio().map_or_else(dash, |ratio| format!("x{ratio:.2}")),
            self.quiet_ratio.map_or_else(dash, |ratio| format!("x{ratio:.2}")),
            self.goal_text(),
            if self.is_met() { "ok" } else { "MISSED" }.to_owned(),
        ]
    }
}

/// A row that could not be measured here, which must not be taken for one that is met.
#[derive(Debug, Serialize)]
struct Unmeasured {
    work: String,
    workers: &'static str,
    reason: String,
}

impl Unmeasured {
    fn cells(&self) -> [String; 9] {
        let mut cells = std::array::from_fn(|_| "-".to_owned());
        cells[0] = self.work.clone();
        self.workers.clone_into(&mut cells[1]);
        cells[8] = format!("NOT MEASURED: {}", self.reason);
        cells
    }
}

/// All rows of a run.
#[derive(Debug)]
pub(super) struct Table {
    is_static: bool,
    rows: Vec<Row>,
    unmeasured: Vec<Unmeasured>,
    logs: Vec<LogRow>,
}

impl Table {
    pub(super) fn new(is_static: bool) -> Self {
        Self { is_static, rows: Vec::new(), unmeasured: Vec::new(), logs: Vec::new() }
    }

    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(super) fn add_unmeasured(&mut self, work: String, workers: &'static str, reason: String) {
        self.unmeasured.push(Unmeasured { work, workers, reason });
    }

    pub(super) fn add_logs(&mut self, rows: Vec<LogRow>) {
        self.logs.extend(rows);
    }

    /// For people.
    #[expect(clippy::unnecessary_wraps, reason = "the twin of print_json")]
    pub(super) fn print(&self) -> Result<()> {
        if !self.rows.is_empty() || !self.unmeasured.is_empty() {
            self.print_rows();
        }
        if !self.logs.is_empty() {
            LogRow::print(&self.logs);
        }
        let linked = if self.is_static { "static" } else { "dynamic" };
        println!("all programs are {linked}");
        Ok(())
    }

    fn print_rows(&self) {
        let head = ["work", "workers", "ph", "", "floor", "ratio", "quiet", "goal", ""];
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));
        lines.extend(self.unmeasured.iter().map(Unmeasured::cells));
        let mut widths = [0; 9];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        for line in &lines {
            let cells = line.iter().zip(widths).enumerate().map(|(at, (cell, width))| match at {
                2 | 4..=7 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            });
            println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        println!("medians; quiet: the ratio in the fastest tenth of the rounds");
        println!("floor: fork or posix_spawn, and waitpid; of loading, Python's configparser;");
        println!(
            "of requests, a bare server or, of their worst, no kills; of heartbeats, the clock"
        );
    }

    /// For programs.
    pub(super) fn print_json(&self) -> Result<()> {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| serde_json::json!({"row": row, "ratio": row.ratio(), "ok": row.is_met()}))
            .collect();
        let all = serde_json::json!({
            "schema": 1,
            "static": self.is_static,
            "rows": rows,
            "unmeasured": self.unmeasured,
            "logs": self.logs,
        });
        println!("{}", serde_json::to_string_pretty(&all)?);
        Ok(())
    }
}
