//! `stop`: services stop, and whoever asked knows that they have.

use std::process::ExitCode;
use std::time::Duration;

use ph_core::control::{Client, Request};
use serde_json::{Value, json};

use crate::args::Stop;
use crate::client::{self, Answer, Follow, Master, Service};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, SCHEMA};

/// How long is waited beyond the time that workers have, unless `--timeout` says otherwise; and how long
/// those have if nobody says.
const BEYOND_GRACE: Duration = Duration::from_secs(15);
const UNKNOWN_GRACE: Duration = Duration::from_secs(120);

/// A master that was told.
struct Told<'a> {
    service: &'a Service,
    master: Master,
    client: Client,
}

/// Stops the masters that are meant: all are told first, then each is waited for.
pub(crate) fn stop(args: &Stop) -> Result<ExitCode, Failure> {
    let services = client::services(&args.targets, &args.reach, &args.source)?;
    let is_named = !args.targets.is_empty() || !args.reach.sections.is_empty();
    let mut told = Vec::new();
    let mut failures = Vec::new();
    for service in &services {
        service.target.whole("stop")?;
        let masters = service.masters()?;
        if masters.is_empty() && (is_named || services.len() == 1) {
            failures.push(service.not_running("stop"));
        }
        for master in masters {
            match service.ask(&master, &Request::Stop { now: args.now }, "stop") {
                Ok(client) => {
                    let grace = service.graceful_timeout.unwrap_or(UNKNOWN_GRACE);
                    let limit = args.reach.timeout.unwrap_or(grace.saturating_add(BEYOND_GRACE));
                    told.push(Told { service, master, client: client.within(Some(limit)) });
                }
                Err(failure) => failures.push(failure),
            }
        }
    }
    if told.is_empty() && failures.is_empty() {
        return Err(Failure::new(Exit::NotRunning, "no service of it runs").attempt("cannot stop"));
    }
    let mut done = Vec::new();
    let how = Follow { no_wait: args.no_wait, is_told: !args.json };
    for Told { service, master, mut client } in told {
        match client::follow(service, &master, &mut client, "stop", how) {
            Ok(answer) => {
                // The master lets go of its clients only after it has given up its lock.
                while !args.no_wait && matches!(client.next(None), Ok(Some(_))) {}
                if !args.json {
                    print(service, &master, &answer)?;
                }
                done.push((service, master, answer));
            }
            Err(failure) => failures.push(failure),
        }
    }
    let codes = done.iter().map(|(_, _, answer)| answer.code);
    let worst = codes.chain(failures.iter().map(|it| it.code)).max_by_key(|code| code.code());
    match args.json {
        true => print_json(&done, &failures)?,
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
