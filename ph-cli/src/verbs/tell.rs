//! `stop`, `reload` and `upgrade`: masters are told something, and whoever asked learns what came of it.

use std::process::ExitCode;
use std::time::Duration;

use ph_core::control::{Client, Request};
use serde_json::{Value, json};

use crate::args::{ReachArgs, Reload, SourceArgs, Stop, Upgrade};
use crate::client::{self, Answer, Follow, Master, Service};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, SCHEMA};

/// How long is waited beyond the time that workers have, unless `--timeout` says otherwise; and how long
/// those have if nobody says.
const BEYOND_GRACE: Duration = Duration::from_secs(15);
const UNKNOWN_GRACE: Duration = Duration::from_secs(120);

/// How long the verdict of a roll or an upgrade is waited for: the master has its own limits, which are
/// longer than this only if many workers boot one after the other.
const LONGEST_ROLL: Duration = Duration::from_secs(600);

/// A master that was told.
struct Told<'a> {
    service: &'a Service,
    master: Master,
    how: By,
    limit: Duration,
}

/// How it was told.
enum By {
    Socket(Client),
    /// Why not on its socket.
    Signal(String),
}

/// What is told, and to whom.
struct Order<'a> {
    verb: &'a str,
    request: Request,
    targets: &'a [String],
    reach: &'a ReachArgs,
    source: &'a SourceArgs,
    no_wait: bool,
    json: bool,
    /// How long may be waited for the answer, unless `--timeout` says otherwise.
    limit: fn(&Service) -> Duration,
}

/// Stops services.
pub(crate) fn stop(args: &Stop) -> Result<ExitCode, Failure> {
    let Stop { targets, now, reach, source, no_wait, json } = args;
    let limit = |service: &Service| {
        service.graceful_timeout.unwrap_or(UNKNOWN_GRACE).saturating_add(BEYOND_GRACE)
    };
    let request = Request::Stop { now: *now };
    let (no_wait, json) = (*no_wait, *json);
    Order { verb: "stop", request, targets, reach, source, no_wait, json, limit }.carry_out()
}

/// Has services replace their workers by those of the configuration as it is now.
pub(crate) fn reload(args: &Reload) -> Result<ExitCode, Failure> {
    let Reload { targets, if_changed, dry_run, reach, source, no_wait, json } = args;
    let request = Request::Reload { if_changed: *if_changed, dry_run: *dry_run };
    let (no_wait, json, limit) = (*no_wait, *json, |_: &Service| LONGEST_ROLL);
    Order { verb: "reload", request, targets, reach, source, no_wait, json, limit }.carry_out()
}

/// Has masters be replaced by the program that is on disk now.
pub(crate) fn upgrade(args: &Upgrade) -> Result<ExitCode, Failure> {
    let Upgrade { targets, reach, source, no_wait, json } = args;
    let (no_wait, json, limit) = (*no_wait, *json, |_: &Service| LONGEST_ROLL);
    let request = Request::Upgrade;
    Order { verb: "upgrade", request, targets, reach, source, no_wait, json, limit }.carry_out()
}

impl Order<'_> {
    /// All masters that are meant are told first, then each is waited for.
    fn carry_out(self) -> Result<ExitCode, Failure> {
        let Self { verb, request, targets, reach, source, no_wait, json, limit } = self;
        let services = client::services(targets, reach, source)?;
        let is_named = !targets.is_empty() || !reach.sections.is_empty();
        let mut told = Vec::new();
        let mut failures = Vec::new();
        for service in &services {
            service.target.whole(verb)?;
            let masters = service.masters()?;
            if masters.is_empty() && (is_named || services.len() == 1) {
                failures.push(service.not_running(verb));
            }
            for master in masters {
                let limit = reach.timeout.unwrap_or_else(|| limit(service));
                match ask(service, &master, &request, verb) {
                    Ok(how) => told.push(Told { service, master, how, limit }),
                    Err(failure) => failures.push(failure),
                }
            }
        }
        if told.is_empty() && failures.is_empty() {
            let attempt = format!("cannot {verb}");
            return Err(Failure::new(Exit::NotRunning, "no service of it runs").attempt(attempt));
        }
        let is_stop = matches!(request, Request::Stop { .. });
        let follow = Follow { no_wait, is_told: !json };
        let mut done = Vec::new();
        for Told { service, master, how, limit } in told {
            let answer = match how {
                By::Socket(client) => {
                    let mut client = client.within(Some(limit));
                    let answer = client::follow(service, &master, &mut client, verb, follow);
                    // The master lets go of its clients only after it has given up its lock.
                    let is_waited = is_stop && !no_wait && answer.is_ok();
                    while is_waited && matches!(client.next(None), Ok(Some(_))) {}
                    answer
                }
                By::Signal(_) if no_wait => Ok(Answer::not_waited_for()),
                By::Signal(why) => service.wait_stopped(&master, limit, &why),
            };
            match answer {
                Ok(answer) => {
                    if !json {
                        print(service, &master, &answer)?;
                    }
                    done.push((service, master, answer));
                }
                Err(failure) => failures.push(failure),
            }
        }
        report(&done, failures, json)
    }
}

/// Tells a master on its socket. A stop needs none: one that cannot be reached is told by signals.
fn ask(service: &Service, master: &Master, request: &Request, verb: &str) -> Result<By, Failure> {
    let failure = match service.ask(master, request, verb) {
        Ok(client) => return Ok(By::Socket(client)),
        Err(failure) => failure,
    };
    let Request::Stop { now } = request else { return Err(failure) };
    if failure.code == Exit::Failed && service.signal_stop(master, *now)? {
        return Ok(By::Signal(failure.why().to_owned()));
    }
    Err(failure)
}

/// The last words, and the worst code of all.
fn report(
    done: &[(&Service, Master, Answer)],
    mut failures: Vec<Failure>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let codes = done.iter().map(|(_, _, answer)| answer.code);
    let worst = codes.chain(failures.iter().map(|it| it.code)).max_by_key(|code| code.code());
    match json {
        true => print_json(done, &failures)?,
        false => {
            if let Some(last) = failures.pop() {
                failures.iter().for_each(|failure| output::note(&format!("ph: {failure}")));
                return Err(last.code(worst.unwrap_or(Exit::Failed)));
            }
        }
    }
    Ok(worst.unwrap_or(Exit::Ok).into())
}

fn print(service: &Service, master: &Master, answer: &Answer) -> Result<(), Failure> {
    let name = service.name_of(master.instance);
    if answer.code != Exit::Ok {
        for line in answer.text.lines() {
            output::note(&format!("{name}: {}", ph_config::Escaped(line)));
        }
        return Ok(());
    }
    for event in &answer.killed {
        output::print_escaped(&format!("{name}: {}", event.text))?;
    }
    output::print_escaped(&format!("{name}: {}", answer.text))
}

fn print_json(done: &[(&Service, Master, Answer)], failures: &[Failure]) -> Result<(), Failure> {
    let killed = |answer: &Answer| -> Vec<Value> {
        let one = |event: &ph_core::control::Event| json!({"slot": event.slot, "pid": event.pid});
        answer.killed.iter().map(one).collect()
    };
    let services: Vec<_> = done
        .iter()
        .map(|(service, master, answer)| {
            json!({
                "name": service.name,
                "instance": master.instance,
                "master_pid": master.pid,
                "code": answer.code.code(),
                "text": answer.text,
                "killed": killed(answer),
            })
        })
        .collect();
    let errors: Vec<_> = failures.iter().map(|it| it.to_json()["error"].clone()).collect();
    output::print_json(&json!({"schema": SCHEMA, "services": services, "errors": errors}))
}
