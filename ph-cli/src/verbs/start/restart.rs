//! `restart`: masters are stopped, and as many are started again, each with its own number.
//!
//! Only what was named is stopped. A service without a file has its name from its program, and others may
//! have that name too: they are told from it by all of their words and their folder.

use std::process::ExitCode;
use std::time::Duration;

use ph_config::Escaped;
use ph_core::control::Request;

use super::super::tell::{longest_stop, print_to_stderr};
use super::{Prepared, refuse, start_all, succeed};
use crate::App;
use crate::args::Start;
use crate::client::{self, Follow, Master, Order, Service, Target, Told};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// Looks for masters after some have ended: others may have taken over from them meanwhile.
const LOOKS: u32 = 16;

/// How long a master may take to say what it was made from.
const LIMIT: Duration = Duration::from_secs(10);

/// A master that is to end, as a service of its own.
type Leaving = (Service, Master);

/// Stops what the arguments name, or all that start by themselves or run, and starts it again.
pub(crate) fn restart(app: &App, args: &Start) -> Result<ExitCode, Failure> {
    if ph_core::is_successor() {
        return succeed(app, args);
    }
    let words: Vec<_> = args.sections.names().into_iter().map(str::to_owned).collect();
    let targets = Target::all(words.iter())?;
    let mut names: Vec<&str> = Vec::new();
    for target in &targets {
        target.whole("restart")?;
        if !names.contains(&target.name.as_str()) {
            names.push(&target.name);
        }
    }
    let runs = |service: &crate::wire::Service| {
        let running = service.pidfile().running().unwrap_or_default();
        service.settings.autostart || !running.is_empty()
    };
    let mut services = Prepared::all(app, args, &names, runs)?;
    let mut leaving = Vec::new();
    for prepared in &mut services {
        let wanted = targets.iter().filter(|it| it.name == prepared.name());
        let wanted: Vec<_> = wanted.filter_map(|it| it.instance).collect();
        let of_it = masters_of(prepared, &wanted)?;
        prepared.instances = instances_after(prepared, &of_it)?;
        leaving.extend(of_it);
    }
    let pids: Vec<_> = leaving.iter().filter_map(|(_, master)| master.pid).collect();
    if let Some(code) = refuse(app, args, &services, &pids)? {
        output::note("nothing was stopped");
        return Ok(code);
    }
    stop_all(leaving, args)?;
    start_all(app, &services, &args.wait)
}

/// The masters of a section that are meant: those of the `wanted` numbers, or all.
fn masters_of(prepared: &Prepared, wanted: &[u32]) -> Result<Vec<Leaving>, Failure> {
    let all = prepared.asked(None);
    let mut masters: Vec<Leaving> = Vec::new();
    for master in all.masters()? {
        if wanted.is_empty() || wanted.contains(&master.instance) {
            masters.push((prepared.asked(Some(master.instance)), master));
        }
    }
    if let Some(missing) = wanted.iter().find(|it| !masters.iter().any(|of| of.1.instance == **it))
    {
        return Err(prepared.asked(Some(*missing)).not_running("restart"));
    }
    if prepared.start.is_adhoc() {
        return its_own(prepared, masters);
    }
    let settings = &prepared.service.settings;
    if let (true, Some((there, _))) =
        (masters.is_empty(), all.former(settings, &prepared.made_from()))
    {
        let one = |master: Master| (there.only(master.instance), master);
        masters.extend(there.masters()?.into_iter().map(one));
    }
    Ok(masters)
}

/// Of the masters that have a program's name those that run this very command; the others are left alone.
fn its_own(prepared: &Prepared, masters: Vec<Leaving>) -> Result<Vec<Leaving>, Failure> {
    let wanted = prepared.made_from();
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for (service, master) in masters {
        let asked = service.status_of(&master, LIMIT);
        let made_from = asked.ok().and_then(|(status, _)| status.made_from);
        if made_from.as_ref() == Some(&wanted) {
            own.push((service, master));
            continue;
        }
        let name = service.name_of(master.instance);
        let pid = master.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        let what = made_from.unwrap_or_else(|| "something it does not tell".to_owned());
        let which = format!("{}@{}", prepared.name(), master.instance);
        others.push((service, which, format!("{name}{pid} runs {what}")));
    }
    match (&own[..], &others[..]) {
        ([], [(service, which, why), ..]) => {
            let failure = Failure::new(Exit::Failed, format!("{why}, which is not this command"));
            let path = service.pidfile().unwrap_or(std::path::Path::new("")).display();
            let failure = failure.attempt(format!("cannot restart {}", prepared.name()));
            Err(failure.remedy(format!(
                "stop that one first, with ph stop --pidfile {path} {which}, or start this one beside it"
            )))
        }
        _ => {
            for (.., why) in &others {
                output::note(&Escaped(&format!("note: {why} and is left alone")).to_string());
            }
            Ok(own)
        }
    }
}

/// Which masters there are to be once these have ended.
fn instances_after(prepared: &Prepared, leaving: &[Leaving]) -> Result<Vec<Option<u32>>, Failure> {
    let settings = &prepared.service.settings;
    if leaving.is_empty() {
        return Ok(vec![None]);
    }
    let numbers: Vec<_> = leaving.iter().map(|(_, master)| master.instance).collect();
    if !settings.single_instance {
        return Ok(numbers.into_iter().map(Some).collect());
    }
    let running = prepared.asked(None).masters()?;
    if let Some(other) = running.iter().find(|it| !numbers.contains(&it.instance)) {
        let name = prepared.asked(None).name_of(other.instance);
        let why = format!("{name} would run beside it");
        let failure = prepared.service.failure(Exit::Failed, &why, "single_instance");
        return Err(failure.remedy("restart all of it, or stop the one that is too many"));
    }
    if numbers.len() > 1 {
        let text = format!(
            "note: {} has single_instance: its {} masters become one",
            prepared.name(),
            numbers.len()
        );
        output::note(&Escaped(&text).to_string());
    }
    Ok(vec![None])
}

/// Stops these masters, those first that need others, and waits until they have ended. Then nobody runs in
/// their place.
fn stop_all(leaving: Vec<Leaving>, args: &Start) -> Result<(), Failure> {
    // The master that runs may have been given more time by the configuration of its own.
    let timeout = args.wait.timeout.unwrap_or_default();
    let limit = |service: &Service| longest_stop(service).max(timeout);
    let how = Follow { no_wait: false, is_told: !args.wait.json };
    let request = Request::Stop { now: false };
    let order = Order { verb: "stop", request, how, limit: &limit };
    let services: Vec<_> = leaving.into_iter().map(|(service, _)| service).collect();
    for wave in client::stop_waves(&services) {
        stop_wave(&order, &wave)?;
    }
    Ok(())
}

fn stop_wave(order: &Order<'_>, wave: &[&Service]) -> Result<(), Failure> {
    for _ in 0..LOOKS {
        let mut masters = Vec::new();
        for service in wave {
            masters.extend(service.masters()?.into_iter().map(|master| (*service, master)));
        }
        if masters.is_empty() {
            return Ok(());
        }
        let told = order.carry_out(masters, |told| {
            if let (Ok(answer), true) = (&told.answer, order.how.is_told) {
                print_to_stderr(told.service, &told.master, answer);
            }
        });
        let mut failures: Vec<_> =
            told.into_iter().filter_map(|it: Told<'_>| it.answer.err()).collect();
        if let Some(last) = failures.pop() {
            failures.iter().for_each(|failure| output::note(&format!("ph: {failure}")));
            return Err(last);
        }
    }
    Err(Failure::new(Exit::Failed, "ever new masters take its lock").attempt("cannot stop it"))
}
