//! The control socket's language: what a master can be asked, and what it answers.
//!
//! A client connects, sends one request as one line of JSON, and reads lines until the master closes:
//!
//! ```text
//! > {"version":1,"request":{"scale_to":{"workers":3}}}
//! < {"event":{"kind":"accepted","text":"scale to 3"}}
//! < {"event":{"kind":"scaled","text":"workers wanted: 3 (was 2)"}}
//! < {"event":{"kind":"ready","slot":2,"pid":4711,"generation":1,"text":"worker 2 is ready after 3ms"}}
//! < {"done":{"code":0,"text":"3 of 3 workers are ready"}}
//! ```
//!
//! What is answered is any number of events, for a status its parts, and then one last line: `done` with
//! the exit code of the verb, or `error` if the line was no request or the client may not ask. Requests are a
//! closed set: an unknown version, verb or field is an error, and so is a line of more than
//! [`REQUEST_MAX`] bytes. Answers may get further fields and kinds of events; readers ignore what they do
//! not know.
//!
//! Who may ask is decided by the kernel's word for who connected (`SO_PEERCRED`), see
//! [`ControlSocket`](crate::ControlSocket).

mod client;
mod lines;
mod status;

use serde::{Deserialize, Serialize};

pub use client::Client;
pub(crate) use lines::Lines;
pub use status::{
    ExitReason, LastExit, LogCounts, Reloads, Service, ServiceState, Worker, WorkerState,
};

/// The version of this language. A master answers no other.
pub const VERSION: u32 = 1;

/// The longest request, in bytes, without the end of its line.
pub const REQUEST_MAX: usize = 64 * 1024;

/// What a master can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How it is: one [`Reply::Service`], its workers in any number of [`Reply::Workers`].
    Status,
    /// So many workers; done when they are ready and those beyond have ended.
    ScaleTo {
        /// How many.
        workers: u32,
    },
    /// So many workers more, or fewer.
    ScaleBy {
        /// How many more.
        by: i32,
    },
    /// Stop; done when everything has ended and the master is about to exit.
    Stop {
        /// Without giving anybody time.
        now: bool,
    },
    /// Replace all workers by those of the configuration as it is now.
    Reload {
        /// Only if something changed that takes new workers.
        if_changed: bool,
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Replace the master by the program that is on disk now.
    Upgrade,
    /// Open the log files again.
    Reopen,
    /// Tell all that happens, until the client leaves or the master does.
    Watch,
}

impl Request {
    /// The line, with its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let frame = Frame { version: VERSION, request: self.clone() };
        line_of(&frame)
    }

    /// Reads a line without its end.
    ///
    /// # Errors
    ///
    /// It is no request of this version: why not, in one sentence.
    pub fn of_line(line: &[u8]) -> Result<Self, String> {
        let not_one = |error| format!("not a request: {error}");
        let versioned: Versioned = serde_json::from_slice(line).map_err(not_one)?;
        if versioned.version != VERSION {
            let asked = versioned.version;
            return Err(format!("version {asked} is not known here, version {VERSION} is"));
        }
        let frame: Frame = serde_json::from_slice(line).map_err(not_one)?;
        Ok(frame.request)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Frame {
    version: u32,
    request: Request,
}

/// What every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Something happened.
    Event(Event),
    /// A status: the service as a whole.
    Service(Box<Service>),
    /// A status: some of its workers.
    Workers(Vec<Worker>),
    /// The last line: what came of the request.
    Done(Done),
    /// The only line: why there is no answer.
    Error(String),
}

impl Reply {
    /// The line, with its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        line_of(self)
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The exit code of the verb: 0 done, 1 not, 6 a bad configuration, 151 everything is as it was before.
    pub code: u8,
    /// For people: one sentence, and perhaps lines that say more.
    pub text: String,
    /// The worker at which it failed, if there is one; what it printed may say more still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_pid: Option<u32>,
}

/// Something that happened while a client waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What it is.
    pub kind: EventKind,
    /// The place of the worker it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The process of that worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The configuration of that worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// One sentence for people.
    pub text: String,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The request was heard, and is being carried out.
    Accepted,
    /// A worker is ready.
    Ready,
    /// A worker was told to stop.
    Stopping,
    /// A worker did not end in time and was killed.
    Killed,
    /// The kernel does not end a worker that was killed.
    Unreaped,
    /// A worker ended.
    Exited,
    /// A worker could not be started.
    SpawnFailed,
    /// The workers of a slot keep dying.
    CrashLoop,
    /// A slot has recovered from that.
    Recovered,
    /// A worker served its share and is to be replaced.
    Recycling,
    /// Another number of workers is wanted.
    Scaled,
    /// More or fewer were asked for than there may be.
    ScaleLimited,
    /// A reload has come a step further.
    Reload,
    /// A worker of a new generation has failed: the old one comes back.
    RollFailed,
    /// An upgrade has come a step further.
    Upgrade,
    /// A helper ended unasked.
    HelperEnded,
    /// The master stops.
    MasterStopping,
    /// The master is about to leave.
    Leaving,
    /// Anything else, also what a newer master tells.
    #[serde(other)]
    Other,
}

/// Numbers and texts only: there is nothing in it that JSON cannot hold.
fn line_of(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        for request in [
            Request::Status,
            Request::ScaleTo { workers: 3 },
            Request::ScaleBy { by: -1 },
            Request::Stop { now: true },
            Request::Reload { if_changed: true, dry_run: false },
            Request::Upgrade,
            Request::Reopen,
            Request::Watch,
        ] {
            let line = request.to_line();
            assert_eq!(Request::of_line(line.trim_end().as_bytes()), Ok(request), "{line}");
        }
        let line = Request::ScaleTo { workers: 3 }.to_line();
        assert_eq!(line, "{\"version\":1,\"request\":{\"scale_to\":{\"workers\":3}}}\n");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let deep = format!(r#"{{"version":1,"request":{}"#, "[".repeat(REQUEST_MAX));
        for (line, wanted) in [
            (r#"{"version":2,"request":"dance","more":1}"#, "version 2 is not known here"),
            (r#"{"version":1,"request":"dance"}"#, "unknown variant `dance`"),
            (r#"{"version":1,"request":"status","more":1}"#, "unknown field `more`"),
            (r#"{"version":1,"request":{"stop":{"now":true,"and":1}}}"#, "unknown field `and`"),
            (r#"{"version":1,"request":{"scale_to":{"workers":-1}}}"#, "invalid value"),
            (r#"{"version":1,"request":{"scale_to":{"workers":4294967296}}}"#, "invalid value"),
            (r#"{"version":1,"version":1,"request":"status"}"#, "duplicate field"),
            (r#"{"request":"status"}"#, "missing field `version`"),
            (r#"{"version":1}"#, "missing field `request`"),
            ("status", "not a request"),
            ("", "not a request"),
            ("{} {}", "not a request"),
            ("\u{0}\u{1}", "not a request"),
            ("[1]", "not a request"),
            (&deep, "not a request"),
        ] {
            let why = Request::of_line(line.as_bytes()).unwrap_err();
            assert!(why.contains(wanted), "{why}");
        }
        assert!(Request::of_line(b"\xff\xfe").is_err());
    }

    /// A reader of this version understands what a later one says, as far as it goes.
    #[test]
    fn answers_may_say_more() {
        let line = r#"{"event":{"kind":"danced","text":"a","beat":4}}"#;
        let Ok(Reply::Event(event)) = serde_json::from_str(line) else { panic!("an event") };
        assert_eq!(event.kind, EventKind::Other);
        let line =
            Reply::Done(Done { code: 0, text: "x\ny".to_owned(), worker_pid: None }).to_line();
        assert_eq!(line, "{\"done\":{\"code\":0,\"text\":\"x\\ny\"}}\n");
    }
}
