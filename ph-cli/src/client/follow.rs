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
const AT_ONCE: Duration = Duration::from_millis(500);

/// So many lines are kept back at most before they are told.
const KEPT: usize = 16;

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Exit,
    pub(crate) text: String,
    /// Workers that had to be killed.
    pub(crate) killed: Vec<Event>,
}

impl Answer {
    /// It was heard, and that is all.
    pub(crate) fn not_waited_for() -> Self {
        Self { code: Exit::Ok, text: "told; not waited for".to_owned(), killed: Vec::new() }
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
    let mut killed = Vec::new();
    let mut kept: Option<Vec<String>> = Some(Vec::new());
    let failed = |code, why: &str| Failure::new(code, why).attempt(service.attempt(verb));
    loop {
        // Events that come quickly one after the other are progress, too.
        let reply = match &kept {
            Some(lines) if lines.len() < KEPT => client.next(Some(AT_ONCE)),
            Some(_) => Err(io::ErrorKind::TimedOut.into()),
            None => client.next(None),
        };
        match reply {
            Ok(Some(Reply::Event(event))) => {
                if how.no_wait {
                    return Ok(Answer::not_waited_for());
                }
                let line = format!("{}: {}", service.name_of(master.instance), event.text);
                match &mut kept {
                    Some(kept) => kept.push(line),
                    None => tell(how, &line),
                }
                if event.kind == EventKind::Killed {
                    killed.push(event);
                }
            }
            Ok(Some(Reply::Done(done))) => {
                let code = match done.code {
                    0 => Exit::Ok,
                    1 => Exit::Failed,
                    6 => Exit::Config,
                    code => Exit::Code(code),
                };
                return Ok(Answer { code, text: done.text, killed });
            }
            Ok(Some(Reply::Error(why))) => return Err(failed(refusal(&why), &why)),
            Ok(Some(Reply::Service(_) | Reply::Workers(_))) => {}
            Ok(None) if service.still_runs(master) => {
                return Err(failed(Exit::Failed, "the master has closed the connection"));
            }
            Ok(None) => {
                let text = "the master has ended".to_owned();
                return Ok(Answer { code: Exit::Ok, text, killed });
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                if let Some(kept) = kept.take() {
                    kept.iter().for_each(|line| tell(how, line));
                }
                if client.is_late() {
                    let why =
                        "it takes longer than was to be waited for; the master goes on with it";
                    return Err(
                        failed(Exit::TimedOut, why).remedy(format!("ph status {}", service.name))
                    );
                }
            }
            Err(error) => return Err(failed(Exit::Failed, &error.to_string())),
        }
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
