//! How a master says it is.

use std::io::ErrorKind;
use std::time::Duration;

use ph_core::control::{self, Reply, Request};

use super::{Master, Service, refusal};
use crate::exit::Exit;
use crate::failure::Failure;

impl Service {
    /// Asks a master how the service and its workers are.
    pub(crate) fn status_of(
        &self,
        master: &Master,
        limit: Duration,
    ) -> Result<(control::Service, Vec<control::Worker>), Failure> {
        let failed = |code, why: String| {
            let name = self.name_of(master.instance);
            Failure::new(code, why).attempt(format!("cannot ask {name}"))
        };
        let mut client = self.ask(master, &Request::Status, "ask")?.within(Some(limit));
        let (mut status, mut workers) = (None, Vec::new());
        loop {
            match client.next(None) {
                Ok(Some(Reply::Service(service))) => status = Some(*service),
                Ok(Some(Reply::Workers(some))) => workers.extend(some),
                Ok(Some(Reply::Event(_))) => {}
                Ok(Some(Reply::Error(why))) => return Err(failed(refusal(&why), why)),
                Ok(Some(Reply::Done(_))) => break,
                Ok(None) => {
                    return Err(failed(Exit::Failed, "it has closed the connection".to_owned()));
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    return Err(failed(Exit::TimedOut, format!("no answer within {limit:?}")));
                }
                Err(error) => return Err(failed(Exit::Failed, error.to_string())),
            }
        }
        let status =
            status.ok_or_else(|| failed(Exit::Failed, "its answer is empty".to_owned()))?;
        Ok((status, workers))
    }
}
