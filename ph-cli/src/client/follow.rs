//! An answer that takes its time: followed to its end, with progress for whoever waits.

use std::io;
use std::time::Duration;

use ph_config::Escaped;
use ph_core::control::{Client, Event, EventKind, Reply};

use super::{Master, Service};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// What takes no longer than this needs no progress.
pub(super) const AT_ONCE: Duration = Duration::from_millis(500);

/// So many lines are kept back at most before they are told.
const KEPT: usize = 16;

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Exit,
    pub(crate) text: String,
    /// Whether it was waited for.
    pub(crate) is_final: bool,
    /// Whether it took so long that progress was told.
    pub(crate) was_slow: bool,
    /// Workers that became ready meanwhile.
    pub(crate) ready: Vec<Event>,
    /// The last that the worker printed at which it failed.
    pub(crate) last_lines: Vec<String>,
    /// Workers that had to be killed. Progress does not tell of them: what came of it does.
    pub(crate) killed: Vec<Event>,
}

impl Answer {
    pub(super) fn new(code: Exit, text: String) -> Self {
        let (ready, killed) = (Vec::new(), Vec::new());
        let last_lines = Vec::new();
        Self { code, text, is_final: true, was_slow: false, ready, last_lines, killed }
    }

    /// It was heard, and that is all.
    pub(super) fn not_waited_for() -> Self {
        Self { is_final: false, ..Self::new(Exit::Ok, "told; not waited for".to_owned()) }
    }

    /// It was sent a signal, which nobody answers.
    pub(super) fn by_signal(why: &str) -> Self {
        Self { is_final: false, ..Self::new(Exit::Ok, format!("told by a signal: {why}")) }
    }
}

/// How an answer is followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Follow {
    pub(crate) no_wait: bool,
    /// Whether people are told of progress.
    pub(crate) is_told: bool,
}

/// Follows an answer until the master has said the last word, or until it is known to have heard.
pub(crate) fn follow(
    service: &Service,
    master: &Master,
    client: &mut Client,
    verb: &str,
    how: Follow,
) -> Result<Answer, Failure> {
    let failed = |code, why: &str| Failure::new(code, why).attempt(service.attempt(verb));
    let mut heard = Heard::new(service.name_of(master.instance), how);
    loop {
        // Events that come quickly one after the other are progress, too.
        let reply = match &heard.kept {
            Some(lines) if lines.len() < KEPT => client.next(Some(AT_ONCE)),
            Some(_) => Err(io::ErrorKind::TimedOut.into()),
            None => client.next(None),
        };
        let failure = match reply {
            Ok(Some(Reply::Event(_))) if how.no_wait => return Ok(Answer::not_waited_for()),
            Ok(Some(Reply::Event(event))) => {
                heard.add(event);
                continue;
            }
            Ok(Some(Reply::Done(done))) => {
                let code = match done.code {
                    0 => Exit::Ok,
                    1 => Exit::Failed,
                    6 => Exit::Config,
                    code => Exit::Code(code),
                };
                let last_lines = service.last_lines_of(done.worker_pid);
                return Ok(Answer { last_lines, ..heard.into_answer(code, done.text) });
            }
            Ok(Some(Reply::Service(_) | Reply::Workers(_))) => continue,
            Ok(Some(Reply::Error(why))) => failed(refusal(&why), &why),
            Ok(None) if service.still_runs(master) => {
                failed(Exit::Failed, "the master has closed the connection")
            }
            Ok(None) => return Ok(heard.into_answer(Exit::Ok, "the master has ended".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                heard.tell_kept();
                if !client.is_late() {
                    continue;
                }
                let why = "it takes longer than was to be waited for; the master goes on with it";
                failed(Exit::TimedOut, why).remedy(format!("ph status {}", service.name))
            }
            Err(error) => failed(Exit::Failed, &error.to_string()),
        };
        heard.tell_killed();
        return Err(failure);
    }
}

/// What was heard so far.
struct Heard {
    name: String,
    how: Follow,
    /// Lines that are told only if it takes longer.
    kept: Option<Vec<String>>,
    ready: Vec<Event>,
    killed: Vec<Event>,
}

impl Heard {
    fn new(name: String, how: Follow) -> Self {
        let (ready, killed) = (Vec::new(), Vec::new());
        Self { name, how, kept: Some(Vec::new()), ready, killed }
    }

    fn add(&mut self, event: Event) {
        if event.kind == EventKind::Killed {
            return self.killed.push(event);
        }
        let is_its_end = |killed: &Event| killed.pid.is_some() && killed.pid == event.pid;
        if event.kind == EventKind::Exited && self.killed.iter().any(is_its_end) {
            return;
        }
        let line = format!("{}: {}", self.name, event.text);
        match &mut self.kept {
            Some(kept) => kept.push(line),
            None => tell(self.how, &line),
        }
        if event.kind == EventKind::Ready {
            self.ready.push(event);
        }
    }

    fn tell_kept(&mut self) {
        if let Some(kept) = self.kept.take() {
            kept.iter().for_each(|line| tell(self.how, line));
        }
    }

    /// Where no answer names them.
    fn tell_killed(&self) {
        let lines = self.killed.iter().map(|event| format!("{}: {}", self.name, event.text));
        lines.for_each(|line| tell(self.how, &line));
    }

    fn into_answer(self, code: Exit, text: String) -> Answer {
        let was_slow = self.kept.is_none();
        Answer { was_slow, ready: self.ready, killed: self.killed, ..Answer::new(code, text) }
    }
}

/// What a master that gives no answer means.
pub(crate) fn refusal(why: &str) -> Exit {
    if why.contains("may not ask") { Exit::NotPermitted } else { Exit::Failed }
}

fn tell(how: Follow, line: &str) {
    if how.is_told {
        output::note(&Escaped(line).to_string());
    }
}
