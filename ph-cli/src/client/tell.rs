//! Masters are told something: all that are meant first, then each is waited for.

use std::time::Duration;

use ph_core::control::{Client, Request};

use super::{Answer, Follow, Master, Service, follow};
use crate::exit::Exit;
use crate::failure::Failure;

/// What masters are told, and how that is waited for.
pub(crate) struct Order<'a> {
    pub(crate) verb: &'a str,
    pub(crate) request: Request,
    pub(crate) how: Follow,
    /// How long the answer of a master may take.
    pub(crate) limit: &'a dyn Fn(&Service) -> Duration,
}

/// One that was told, and what came of it.
#[derive(Debug)]
pub(crate) struct Told<'s> {
    pub(crate) service: &'s Service,
    pub(crate) master: Master,
    pub(crate) answer: Result<Answer, Failure>,
}

/// How a master was told.
enum By {
    Socket(Client),
    /// Why not on its socket.
    Signal(String),
}

impl Order<'_> {
    /// Tells these masters, and calls `on_answer` with what came of each as soon as that is known.
    pub(crate) fn carry_out<'s>(
        &self,
        masters: Vec<(&'s Service, Master)>,
        mut on_answer: impl FnMut(&Told<'s>),
    ) -> Vec<Told<'s>> {
        let ask = |(service, master): (&'s Service, Master)| {
            let by = self.ask(service, &master);
            (service, master, by)
        };
        let asked: Vec<_> = masters.into_iter().map(ask).collect();
        let wait = |(service, master, by): (&'s Service, Master, Result<By, Failure>)| {
            let answer = by.and_then(|by| self.wait(service, &master, by));
            let told = Told { service, master, answer };
            on_answer(&told);
            told
        };
        asked.into_iter().map(wait).collect()
    }

    /// On its socket. One that cannot be reached there is told by signals what can be said by them.
    fn ask(&self, service: &Service, master: &Master) -> Result<By, Failure> {
        let failure = match service.ask(master, &self.request, self.verb) {
            Ok(client) => return Ok(By::Socket(client)),
            Err(failure) => failure,
        };
        let is_unreachable = failure.code == Exit::Failed;
        if is_unreachable && service.signal_instead(master, &self.request, self.verb)? {
            return Ok(By::Signal(failure.why().to_owned()));
        }
        Err(failure)
    }

    fn wait(&self, service: &Service, master: &Master, by: By) -> Result<Answer, Failure> {
        let limit = (self.limit)(service);
        let is_stop = matches!(self.request, Request::Stop { .. });
        match by {
            By::Socket(client) => {
                let mut client = client.within(Some(limit));
                let answer = follow(service, master, &mut client, self.verb, self.how);
                // The master lets go of its clients only after it has given up its lock.
                let is_waited = is_stop && !self.how.no_wait && answer.is_ok();
                while is_waited && matches!(client.next(None), Ok(Some(_))) {}
                answer
            }
            By::Signal(_) if self.how.no_wait => Ok(Answer::not_waited_for()),
            By::Signal(why) if is_stop => {
                service.wait_stopped(master, limit, &why, self.how.is_told)
            }
            By::Signal(why) => Ok(Answer::by_signal(&why)),
        }
    }
}

/// In which order services are stopped: each together with others that nobody among the rest needs any more.
pub(crate) fn stop_waves(services: &[Service]) -> Vec<Vec<&Service>> {
    let mut left: Vec<&Service> = services.iter().collect();
    let mut waves = Vec::new();
    while !left.is_empty() {
        let needs = |other: &&Service, it: &Service| {
            other.name != it.name && other.depends_on.contains(&it.name)
        };
        let (needed, mut wave): (Vec<_>, Vec<_>) =
            left.iter().copied().partition(|it| left.iter().any(|other| needs(other, it)));
        left = needed;
        if wave.is_empty() {
            // They depend on each other, and have to end all the same.
            wave = std::mem::take(&mut left);
        }
        waves.push(wave);
    }
    waves
}
