//! The rows: what is done, how often, and how good it should be.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

use super::subject::{Programs, Subject, Who, Workers};
use super::table::{Goal, Row, Table};

/// Between two rounds, so that the one's aftermath is not counted as the other's.
const BREATH: Duration = Duration::from_millis(4);
/// The same after many workers started at once.
const LONG_BREATH: Duration = Duration::from_millis(200);
/// How long an idle master is watched.
const IDLE: Duration = Duration::from_secs(5);

/// Figures of `ph` and of the floor, of the same rounds.
#[derive(Default)]
struct Pairs {
    ph: Vec<Duration>,
    floor: Vec<Duration>,
}

impl Pairs {
    fn figures(mut self) -> Figures {
        self.ph.sort_unstable();
        self.floor.sort_unstable();
        let quiet = |it: &[Duration]| at_tenths(it, 1);
        Figures {
            value: at_tenths(&self.ph, 5),
            floor: Some(at_tenths(&self.floor, 5)),
            quiet_ratio: Some(quiet(&self.ph) / quiet(&self.floor)),
        }
    }
}

/// What a row comes to.
#[derive(Clone, Copy)]
struct Figures {
    value: f64,
    floor: Option<f64>,
    /// The ratio in the fastest tenth of the rounds, which busy neighbours disturb least.
    quiet_ratio: Option<f64>,
}

impl Figures {
    fn one(value: f64, floor: Option<f64>) -> Self {
        Self { value, floor, quiet_ratio: None }
    }
}

/// One kind of workers, through all rows.
pub(super) struct Rows<'a> {
    pub(super) programs: &'a Programs,
    pub(super) workers: Workers,
    pub(super) divisor: usize,
    pub(super) only: Option<&'a str>,
    pub(super) table: &'a mut Table,
}

impl Rows<'_> {
    /// `kill -9` of one worker, until its successor runs.
    pub(super) fn kill_one(&mut self, is_large: bool) -> Result<()> {
        let mut few = None;
        for (count, rounds) in [(10, 300), (1_000, 200), (5_000, 100)] {
            let work = format!("kill -9 -> successor runs, N={count}");
            if !self.wants(&work) || (count > 1_000 && !is_large) {
                continue;
            }
            let (mut ph, mut floor) = self.both(count)?;
            let mut pairs = Pairs::default();
            for _ in 0..rounds / self.divisor {
                pairs.ph.push(ph.kill_one()?);
                ph.rest(BREATH)?;
                pairs.floor.push(floor.kill_one()?);
                floor.rest(BREATH)?;
            }
            stop_both(ph, floor)?;
            let figures = pairs.figures();
            let ratio = figures.floor.map(|floor| figures.value / floor);
            let goal = match (few, self.workers) {
                (None, Workers::Forked) => Goal::TimesFloor(1.25),
                (None, Workers::Command) => Goal::TimesFloor(1.15),
                // The floor grows with N too, so growth is judged by the ratio to it.
                (Some(few), _) => Goal::Growth { times: 1.2, few },
            };
            few = few.or(ratio);
            self.add(work, "ms", figures, goal);
        }
        Ok(())
    }

    /// A start from nothing until all workers run, and a stop until nothing is left.
    pub(super) fn start_and_stop(&mut self) -> Result<()> {
        for (count, rounds) in [(100, 20), (1_000, 8)] {
            let start = format!("start N={count}, all running");
            let stop = format!("stop N={count}");
            if !self.wants(&start) && !self.wants(&stop) {
                continue;
            }
            let (mut starts, mut stops) = (Pairs::default(), Pairs::default());
            for _ in 0..(rounds / self.divisor).max(2) {
                for who in [Who::Ph, Who::Floor] {
                    let (mut subject, took) =
                        Subject::start(self.programs, who, self.workers, count)?;
                    subject.rest(LONG_BREATH)?;
                    let (starts, stops) = match who {
                        Who::Ph => (&mut starts.ph, &mut stops.ph),
                        Who::Floor => (&mut starts.floor, &mut stops.floor),
                    };
                    starts.push(took);
                    stops.push(subject.stop()?);
                }
            }
            self.add(start, "ms", starts.figures(), Goal::TimesFloor(1.3));
            if count == 1_000 {
                self.add(stop, "ms", stops.figures(), Goal::TimesFloor(1.3));
            }
        }
        Ok(())
    }

    /// All of a hundred workers killed at once, until all successors run.
    pub(super) fn kill_all(&mut self) -> Result<()> {
        let work = "100 killed at once, all replaced".to_owned();
        if !self.wants(&work) {
            return Ok(());
        }
        let (mut ph, mut floor) = self.both(100)?;
        let mut pairs = Pairs::default();
        for _ in 0..40 / self.divisor {
            pairs.ph.push(ph.kill_all()?);
            ph.rest(LONG_BREATH)?;
            pairs.floor.push(floor.kill_all()?);
            floor.rest(LONG_BREATH)?;
        }
        stop_both(ph, floor)?;
        self.add(work, "ms", pairs.figures(), Goal::TimesFloor(1.3));
        Ok(())
    }

    /// What a master of a hundred workers costs while nothing happens. Context switches stand for
    /// system calls: a process that never wakes makes none.
    pub(super) fn idle(&mut self) -> Result<()> {
        const WORK: &str = "idle, N=100";
        if !self.wants(WORK) {
            return Ok(());
        }
        let (mut ph, mut floor) = self.both(100)?;
        ph.rest(LONG_BREATH)?;
        let before = wakes(&ph)?;
        ph.rest(IDLE)?;
        let wakes = wakes(&ph)? - before;
        floor.rest(BREATH)?;
        let master = |subject: &Subject| -> Result<f64> {
            Ok(processes_of_master(subject)?.into_iter().map(pss).sum::<Result<f64>>()? / 1024.0)
        };
        let (ph_master, floor_master) = (master(&ph)?, master(&floor)?);
        let (ph_worker, floor_worker) = (pss_of_workers(&ph)?, pss_of_workers(&floor)?);
        stop_both(ph, floor)?;
        let work = |what: &str| format!("{WORK}: {what}");
        self.add(
            work("wakes of the master in 5 s"),
            "",
            Figures::one(wakes, None),
            Goal::AtMost(0.0),
        );
        let figures = Figures::one(ph_master, Some(floor_master));
        self.add(work("PSS of the master"), "MB", figures, Goal::AtMost(2.0));
        if self.workers == Workers::Forked {
            let figures = Figures::one(ph_worker, Some(floor_worker));
            self.add(work("PSS a worker"), "KB", figures, Goal::AtMost(250.0));
        }
        Ok(())
    }

    fn both(&self, count: usize) -> Result<(Subject, Subject)> {
        let start = |who| -> Result<Subject> {
            let (mut subject, _) = Subject::start(self.programs, who, self.workers, count)?;
            subject.rest(LONG_BREATH)?;
            Ok(subject)
        };
        Ok((start(Who::Ph)?, start(Who::Floor)?))
    }

    fn wants(&self, work: &str) -> bool {
        self.only.is_none_or(|text| work.contains(text))
    }

    fn add(&mut self, work: String, unit: &'static str, figures: Figures, goal: Goal) {
        let workers = match self.workers {
            Workers::Forked => "forked",
            Workers::Command => "command",
        };
        let Figures { value, floor, quiet_ratio } = figures;
        self.table.add(Row { work, workers, unit, value, floor, quiet_ratio, goal });
    }
}

fn stop_both(ph: Subject, floor: Subject) -> Result<()> {
    ph.stop()?;
    floor.stop()?;
    Ok(())
}

/// The duration so many tenths through the sorted ones, in milliseconds.
fn at_tenths(sorted: &[Duration], tenths: usize) -> f64 {
    let duration = sorted.get(sorted.len() * tenths / 10).copied().unwrap_or_default();
    duration.as_secs_f64() * 1000.0
}

/// The master and those of its children that are not workers.
fn processes_of_master(subject: &Subject) -> Result<Vec<Pid>> {
    let master = subject.master_pid();
    let path = format!("/proc/{master}/task/{master}/children");
    // A kernel may be built without this file; then the master counts alone.
    let children = fs::read_to_string(path).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    let helpers = children.map(Pid::from_raw).filter(|pid| !subject.workers().contains(pid));
    Ok(std::iter::once(master).chain(helpers).collect())
}

/// How often the master and its helpers went to sleep or were put aside so far.
fn wakes(subject: &Subject) -> Result<f64> {
    let mut wakes = 0.0;
    for process in processes_of_master(subject)? {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        wakes += number(&status, "voluntary_ctxt_switches:")?;
        wakes += number(&status, "nonvoluntary_ctxt_switches:")?;
    }
    Ok(wakes)
}

fn pss_of_workers(subject: &Subject) -> Result<f64> {
    let mut all = subject.workers().iter().map(|pid| pss(*pid)).collect::<Result<Vec<_>>>()?;
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().context("no worker")
}

/// The memory a process has to itself and its share of what it has with others, in KB.
fn pss(process: Pid) -> Result<f64> {
    let path = format!("/proc/{process}/smaps_rollup");
    let rollup = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    number(&rollup, "Pss:")
}

/// The number in the line of a /proc file that begins with `label`.
fn number(text: &str, label: &str) -> Result<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label));
    let number = rest.and_then(|rest| rest.split_whitespace().next());
    Ok(number.with_context(|| format!("no {label}"))?.parse()?)
}
