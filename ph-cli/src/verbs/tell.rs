//! `stop`, `reload`, `upgrade` and `reopen`: masters are told something, and whoever asked learns what came
//! of it.

use std::process::ExitCode;
use std::time::Duration;

use ph_core::control::{Event, Request};
use serde_json::{Value, json};

use super::config::Complaint;
use super::logs;
use crate::args::control::CallArgs;
use crate::args::{Reload, Reopen, Stop, Upgrade};
use crate::client::{self, Answer, Follow, Master, Order, Service, Told};
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

/// How long a master may take to open its logs again.
const LONGEST_REOPEN: Duration = Duration::from_secs(60);

/// Stops services: first those that depend on others.
pub(crate) fn stop(Stop { now, call }: &Stop) -> Result<ExitCode, Failure> {
    make(call, "stop", Request::Stop { now: *now }, longest_stop)
}

/// How long the stop of a service is waited for.
pub(super) fn longest_stop(service: &Service) -> Duration {
    service.stop_limit.unwrap_or(UNKNOWN_GRACE).saturating_add(BEYOND_GRACE)
}

/// Has services replace their workers by those of the configuration as it is now.
pub(crate) fn reload(args: &Reload) -> Result<ExitCode, Failure> {
    let Reload { if_changed, dry_run, call } = args;
    let request = Request::Reload { if_changed: *if_changed, dry_run: *dry_run };
    make(call, "reload", request, |_| LONGEST_ROLL)
}

/// Has masters be replaced by the program that is on disk now.
pub(crate) fn upgrade(Upgrade { call }: &Upgrade) -> Result<ExitCode, Failure> {
    make(call, "upgrade", Request::Upgrade, |_| LONGEST_ROLL)
}

/// Has masters open their logs again.
pub(crate) fn reopen(Reopen { call }: &Reopen) -> Result<ExitCode, Failure> {
    make(call, "reopen", Request::Reopen, |_| LONGEST_REOPEN)
}

/// Tells the masters that are meant and run, and what came of it.
fn make(
    call: &CallArgs,
    verb: &str,
    request: Request,
    limit: impl Fn(&Service) -> Duration,
) -> Result<ExitCode, Failure> {
    let CallArgs { targets, reach, source, no_wait, json } = call;
    let (no_wait, json) = (*no_wait, *json);
    let is_read_by_master = matches!(request, Request::Reload { .. });
    let complaint = if is_read_by_master { Complaint::ByMaster } else { Complaint::Here };
    let services = client::services(targets, reach, source, complaint)?;
    for service in &services {
        service.target.whole(verb)?;
    }
    let is_named = !targets.is_empty() || !reach.sections.is_empty();
    let is_stop = matches!(request, Request::Stop { .. });
    let waves = match is_stop {
        true => client::stop_waves(&services),
        false => vec![services.iter().collect()],
    };
    let limit = |service: &Service| reach.timeout.unwrap_or_else(|| limit(service));
    let how = Follow { no_wait, is_told: !json };
    let order = Order { verb, request, how, limit: &limit };
    let (mut told, mut absent) = (Vec::new(), Vec::new());
    for wave in waves {
        let mut masters = Vec::new();
        for service in wave {
            match service.masters() {
                // The others are told all the same.
                Err(failure) => absent.push(failure),
                Ok(found) if found.is_empty() && (is_named || services.len() == 1) => {
                    absent.push(service.not_running(verb));
                }
                Ok(found) => masters.extend(found.into_iter().map(|it| (service, it))),
            }
        }
        let mut printed = Ok(());
        told.extend(order.carry_out(masters, |told| {
            if let (Ok(answer), false, Ok(())) = (&told.answer, json, &printed) {
                printed = print(told.service, &told.master, answer);
            }
        }));
        printed?;
    }
    if told.is_empty() && absent.is_empty() {
        let attempt = format!("cannot {verb}");
        return Err(Failure::new(Exit::NotRunning, "no service of it runs").attempt(attempt));
    }
    report(told, absent, json)
}

/// The last words, and the worst code of all.
fn report(told: Vec<Told<'_>>, absent: Vec<Failure>, json: bool) -> Result<ExitCode, Failure> {
    let codes = told.iter().map(|it| match &it.answer {
        Ok(answer) => answer.code,
        Err(failure) => failure.code,
    });
    let worst = codes.chain(absent.iter().map(|it| it.code)).max_by_key(|code| code.code());
    let worst = worst.unwrap_or(Exit::Ok);
    if json {
        print_json(&told, &absent)?;
        return Ok(worst.into());
    }
    let mut failures: Vec<_> = told.into_iter().filter_map(|it| it.answer.err()).collect();
    failures.extend(absent);
    let Some(last) = failures.pop() else { return Ok(worst.into()) };
    failures.iter().for_each(|failure| output::note(&format!("ph: {failure}")));
    Err(last.code(worst))
}

/// An answer for people: on stdout if it is what was asked for.
pub(super) fn print(service: &Service, master: &Master, answer: &Answer) -> Result<(), Failure> {
    let name = service.name_of(master.instance);
    let killed = answer.killed.iter().map(|event| event.text.as_str());
    for line in killed.chain(answer.text.lines()) {
        let line = format!("{name}: {line}");
        match answer.code == Exit::Ok {
            true => output::print_escaped(&line)?,
            false => output::note(&ph_config::Escaped(&line).to_string()),
        }
    }
    logs::print_last_lines(&answer.last_lines);
    Ok(())
}

/// The same of a stop that is but the first half: who was killed, and that it has ended if that took its time.
pub(super) fn print_to_stderr(service: &Service, master: &Master, answer: &Answer) {
    let name = service.name_of(master.instance);
    let killed = answer.killed.iter().map(|event| event.text.as_str());
    let is_news = answer.was_slow || answer.code != Exit::Ok;
    for line in killed.chain(answer.text.lines().filter(|_| is_news)) {
        output::note(&ph_config::Escaped(&format!("{name}: {line}")).to_string());
    }
}

/// All answers as one object.
pub(super) fn print_json(told: &[Told<'_>], absent: &[Failure]) -> Result<(), Failure> {
    let answered = |it: &Told<'_>| Some(object(it.service, &it.master, it.answer.as_ref().ok()?));
    let failed = |it: &Told<'_>| {
        let mut error = it.answer.as_ref().err()?.to_json()["error"].take();
        error["name"] = it.service.name.as_str().into();
        error["instance"] = it.master.instance.into();
        Some(error)
    };
    let services: Vec<_> = told.iter().filter_map(answered).collect();
    let errors = told.iter().filter_map(failed);
    let absent = absent.iter().map(|it| it.to_json()["error"].take());
    let errors: Vec<_> = errors.chain(absent).collect();
    output::print_json(&json!({"schema": SCHEMA, "services": services, "errors": errors}))
}

fn object(service: &Service, master: &Master, answer: &Answer) -> Value {
    let workers = |events: &[Event]| -> Vec<Value> {
        let one = |it: &Event| json!({"slot": it.slot, "pid": it.pid, "generation": it.generation});
        events.iter().map(one).collect()
    };
    json!({
        "name": service.name,
        "instance": master.instance,
        "master_pid": master.pid,
        "code": answer.code.code(),
        "verdict": verdict(answer),
        "text": answer.text,
        "ready": workers(&answer.ready),
        "killed": workers(&answer.killed),
        "last_lines": answer.last_lines,
    })
}

/// The exit code in one word.
fn verdict(answer: &Answer) -> &'static str {
    match answer.code.code() {
        0 if answer.is_final => "done",
        0 => "told",
        6 => "refused",
        151 => "rolled_back",
        153 => "partly_done",
        _ => "failed",
    }
}
