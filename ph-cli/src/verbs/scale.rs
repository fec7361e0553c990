//! `scale`: another number of workers, now.

use std::process::ExitCode;
use std::time::Duration;

use ph_core::control::Request;

use super::config::Complaint;
use super::tell;
use crate::args::{Change, Scale};
use crate::client::{self, Follow, Told};
use crate::exit::Exit;
use crate::failure::Failure;

/// How long is waited, unless `--timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Has the master keep another number of workers, and waits until there are so many.
pub(crate) fn scale(args: &Scale) -> Result<ExitCode, Failure> {
    let (targets, number) = match args.words.split_last() {
        Some((number, targets)) => (targets, number.as_str()),
        None => (&[][..], ""),
    };
    let change: Change = number.parse().map_err(|why| Failure::new(Exit::Usage, why))?;
    let services = client::services(targets, &args.reach, &args.source, Complaint::Here)?;
    let [service] = &services[..] else {
        let why = format!("the configuration has {} sections", services.len());
        let failure = Failure::new(Exit::Usage, why).attempt("cannot scale all of them");
        return Err(failure.remedy("name one: ph scale SECTION N"));
    };
    service.target.whole("scale")?;
    let master = service.only_master("scale")?;
    let request = match change {
        Change::To(workers) => Request::ScaleTo { workers },
        Change::By(by) => Request::ScaleBy { by },
    };
    let client = service.ask(&master, &request, "scale")?;
    let mut client = client.within(Some(args.reach.timeout.unwrap_or(TIMEOUT)));
    let how = Follow { no_wait: args.no_wait, is_told: !args.json };
    let answer = client::follow(service, &master, &mut client, "scale", how)?;
    if args.json {
        let code = answer.code;
        tell::print_json(&[Told { service, master, answer: Ok(answer) }], &[])?;
        return Ok(code.into());
    }
    if answer.code != Exit::Ok {
        let name = service.name_of(master.instance);
        let failure = Failure::new(answer.code, answer.text);
        return Err(failure.attempt(format!("cannot scale {name}")));
    }
    tell::print(service, &master, &answer)?;
    Ok(Exit::Ok.into())
}
