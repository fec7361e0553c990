//! The waiting for a start: progress for people, then what came of it.
//!
//! The master decides when it gives up, and ends the service before it closes its end. Only one that hangs is
//! given up here.

use std::time::Duration;

use ph_config::Escaped;
use ph_core::{BootNews, BootWatch, Heard};
use serde::{Deserialize, Serialize};

use super::super::logs;
use super::tell::Started;
use crate::args::WaitArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::wire::Service;

/// A start that takes longer is told about, and then so often at most.
const QUIET: Duration = Duration::from_millis(500);

/// What the master may take beyond its limits.
const MARGIN: Duration = Duration::from_secs(15);

/// Ends of workers told of as they come.
const ENDS_TOLD: u32 = 20;

/// How a master in the background has ended, in its own words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ending {
    code: u8,
    /// What kept it from running; none if it has run.
    failure: Option<Told>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Told {
    report: Option<String>,
    why: String,
    attempt: Option<String>,
    origin: Option<String>,
    remedy: Option<String>,
}

impl Ending {
    pub(super) fn of_exit(exit: Exit) -> Self {
        Self { code: exit.code(), failure: None }
    }

    pub(super) fn of_failure(failure: &Failure) -> Self {
        let told = Told {
            report: failure.reported().map(str::to_owned),
            why: failure.why().to_owned(),
            attempt: failure.attempted().map(str::to_owned),
            origin: failure.origin().map(str::to_owned),
            remedy: failure.cure().map(str::to_owned),
        };
        Self { code: failure.code.code(), failure: Some(told) }
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Told {
    fn into_failure(self, code: Exit) -> Failure {
        let Self { report, why, attempt, origin, remedy } = self;
        Failure::told(code, why, [attempt, origin, remedy, report])
    }
}

/// A worker of which there is something to say.
struct Trouble {
    slot: u32,
    pid: u32,
    how: String,
}

/// One start that is waited for.
pub(super) struct Watch<'a> {
    watch: BootWatch,
    service: &'a Service,
    wait: &'a WaitArgs,
    began: Duration,
    /// How many were ready when people were last told.
    ready_told: Option<u32>,
    ends_told: u32,
    master: Option<(u32, u32)>,
    wanted: u32,
    ready: u32,
    trouble: Option<Trouble>,
    gave_up: Option<bool>,
    ending: Option<Ending>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(watch: BootWatch, service: &'a Service, wait: &'a WaitArgs) -> Self {
        let began = watch.now();
        Self {
            watch,
            service,
            wait,
            began,
            ready_told: None,
            ends_told: 0,
            master: None,
            wanted: service.settings.workers(),
            ready: 0,
            trouble: None,
            gave_up: None,
            ending: None,
        }
    }

    /// Waits for the verdict.
    pub(super) fn watch(mut self) -> Started {
        let settings = &self.service.settings;
        let limit = self.wait.timeout.unwrap_or(settings.boot_timeout);
        let longest = limit.saturating_add(settings.graceful_timeout).saturating_add(MARGIN);
        loop {
            let passed = self.watch.now().saturating_sub(self.began);
            if passed >= longest {
                return self.give_up(passed);
            }
            let until_told = match self.ready_told {
                None => QUIET.saturating_sub(passed),
                Some(_) => QUIET,
            };
            match self.watch.next(until_told.min(longest - passed)) {
                Heard::News(news) => {
                    if let Some(started) = self.hear(news) {
                        return started;
                    }
                }
                Heard::End => return self.failed(),
                Heard::Nothing => self.tell_progress(),
            }
        }
    }

    fn hear(&mut self, news: BootNews) -> Option<Started> {
        match news {
            BootNews::Running { pid, instance, workers } => {
                (self.master, self.wanted) = (Some((pid, instance)), workers);
                let (master, instance) = (pid, instance);
                self.wait.no_wait.then_some(Started::Running { master, instance })
            }
            BootNews::WorkerReady { ready, .. } => {
                self.ready = ready;
                None
            }
            BootNews::WorkerEnded { slot, pid, how } => {
                // What ends once it was given up was told to.
                if self.gave_up.is_none() {
                    self.tell_end(slot, pid, &how);
                    self.trouble = Some(Trouble { slot, pid, how });
                }
                None
            }
            BootNews::WorkerLate { slot, pid } => {
                // Of one whose predecessors have died, how they did says more.
                if self.trouble.as_ref().is_none_or(|trouble| trouble.slot != slot) {
                    let how = "was not ready in time".to_owned();
                    self.trouble = Some(Trouble { slot, pid, how });
                }
                None
            }
            BootNews::GaveUp { is_timeout } => {
                self.gave_up = Some(is_timeout);
                None
            }
            BootNews::Ready { workers, took } => {
                let (master, instance) = self.master.unwrap_or_default();
                Some(Started::Ready { master, instance, workers, took })
            }
            BootNews::Told(words) => {
                self.ending = serde_json::from_str(&words).ok();
                None
            }
        }
    }

    /// The master has ended, and it was not ready.
    fn failed(self) -> Started {
        let settings = &self.service.settings;
        let last = |trouble: &Trouble| logs::last_lines_of(settings, trouble.pid);
        let lines = self.trouble.as_ref().map(last).unwrap_or_default();
        let has_lines = !lines.is_empty();
        let failure = match self.ending {
            Some(Ending { code, failure: Some(told) }) => told.into_failure(Exit::Code(code)),
            ending => {
                let (code, why) = match (self.gave_up, ending.map(|it| it.code), &self.trouble) {
                    (Some(true), _, trouble) => (Exit::TimedOut, not_in_time(trouble.as_ref())),
                    (_, Some(0), _) => (Exit::Failed, "it was stopped before it was ready".into()),
                    (_, Some(code), Some(trouble)) => (Exit::Code(code), trouble.to_text()),
                    (_, Some(code), None) => {
                        (Exit::Code(code), "it ended before it was ready".to_owned())
                    }
                    (_, None, _) => (Exit::Failed, "its master ended without a word".to_owned()),
                };
                let failure = Failure::new(code, why);
                let failure = failure.attempt(format!("cannot start {}", settings.name()));
                match logs::one_file(settings) {
                    Ok(path) if !has_lines => {
                        failure.remedy(format!("see the end of {}", path.display()))
                    }
                    Ok(_) => failure,
                    Err(_) if has_lines => failure,
                    Err(_) => {
                        failure.remedy("set log_file, or see it in the foreground with `run`")
                    }
                }
            }
        };
        Started::Failed(Box::new(failure), lines)
    }

    /// The master hangs: neither a verdict nor an end.
    fn give_up(self, passed: Duration) -> Started {
        let why = format!("no verdict after {}; it was left alone", super::tell::span(passed));
        let failure = Failure::new(Exit::TimedOut, why);
        let failure = failure.attempt(format!("cannot start {}", self.service.settings.name()));
        let failure = match self.master {
            Some((pid, _)) => failure.remedy(format!("kill {pid}")),
            None => failure,
        };
        Started::Failed(Box::new(failure), Vec::new())
    }

    fn tell_progress(&mut self) {
        let is_news = self.ready_told.replace(self.ready) != Some(self.ready);
        if is_news && !self.wait.json {
            let name = self.service.settings.name();
            let text = format!("{name}: {} of {} workers ready", self.ready, self.wanted);
            output::note(&Escaped(&text).to_string());
        }
    }

    fn tell_end(&mut self, slot: u32, pid: u32, how: &str) {
        self.ends_told += 1;
        if self.wait.json || self.ready_told.is_none() || self.ends_told > ENDS_TOLD {
            return;
        }
        let name = self.service.settings.name();
        let text = format!("{name}: worker {slot} (pid {pid}) {how}");
        output::note(&Escaped(&text).to_string());
    }
}

impl Trouble {
    fn to_text(&self) -> String {
        let Self { slot, pid, how } = self;
        format!("worker {slot} (pid {pid}) {how}")
    }
}

fn not_in_time(trouble: Option<&Trouble>) -> String {
    match trouble {
        Some(trouble) => format!("not all workers were ready in time: {}", trouble.to_text()),
        None => "not all workers were ready in time".to_owned(),
    }
}
