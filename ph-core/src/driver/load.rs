//! A reload, as the driver sees it: the *loader*, a process that reads the configuration, looks up what has to
//! be looked up, opens what is to be listened on, tries out what may fail, and hands all of that back.
//!
//! So nothing the master does in a reload waits for a disk, a name server or a user database, and whatever
//! would refuse a start refuses the reload, in the same words, with nothing changed. The loader says its
//! piece in messages over a channel: a descriptor for each new listener, then one document in parts.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tracing::{error, info};

use super::control::PARTLY_DONE;
use super::era::{Era, Makings, Paths};
use super::listeners::{Address, Listeners, MadeSocket, Opened};
use super::master::Settings;
use super::spec::Spec;
use super::{Driver, LOADER, Master};
use crate::arbiter::{Event, Generation, Time};
use crate::sys::channel::Channel;
use crate::sys::process::{self, Fork};
use crate::sys::{fds, mark, signals};
use crate::worker;

mod request;

use request::Depth;
pub use request::LoadRequest;
pub(super) use request::PendingLoad;

/// Reads the configuration and makes a master of it, or says why not.
pub(super) type Loader = Rc<dyn Fn(&LoadRequest) -> Result<Master, String>>;

/// The most a configuration may come to, in bytes: environments of megabytes have been seen.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// A part of it, and the parts taken in one turn of the loop.
const PART: usize = 32 * 1024;
const PARTS_A_TURN: usize = 32;

/// What the loader says.
#[derive(Serialize, Deserialize)]
enum Answer {
    Good(Box<Found>),
    Refused(String),
    /// It is the configuration that is in force, and a reload was wanted only for another; what of it needs a
    /// restart, in words.
    Unchanged(String),
    /// It would do; what it would change, in words.
    WouldDo(String),
}

#[derive(Serialize, Deserialize)]
struct Found {
    spec: Spec,
    paths: Paths,
    listeners: Vec<Place>,
    /// What it changes, in words.
    changes: String,
}

/// What came of reading a configuration.
enum Judged {
    Good(Box<Era>, String),
    Refused(String),
    Unchanged(String),
    WouldDo(String),
}

/// Where a listener is.
#[derive(Serialize, Deserialize)]
enum Place {
    /// The master has it, at this place of those it had.
    Kept(usize),
    /// It is the next of the descriptors that came.
    New { address: Address, shown: String, made: Option<MadeSocket> },
}

/// A configuration that is being read.
pub(super) struct Loading {
    generation: Generation,
    /// Until it is reaped.
    pid: Option<Pid>,
    channel: Channel,
    /// Listeners that were open when it was forked, also those only workers that stop have: whatever is
    /// named again is kept, or this very master would be in its own way.
    existing: Vec<Rc<Opened>>,
    sockets: Vec<OwnedFd>,
    answer: Vec<u8>,
}

impl Loading {
    /// What no child is to have: the channel, and the new listeners until they are a generation's.
    pub(super) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        let sockets = self.sockets.iter().map(std::os::fd::AsRawFd::as_raw_fd);
        std::iter::once(self.channel.as_fd().as_raw_fd()).chain(sockets)
    }

    /// What is open for workers, of whichever generation.
    pub(super) fn listeners(&self) -> impl Iterator<Item = RawFd> {
        self.existing.iter().flat_map(|opened| opened.raw_fds())
    }
}

impl Driver<'_> {
    /// Starts to read the configuration. Without a loader the new one is the old one, and who wants a reload
    /// only for another one gets none.
    pub(super) fn load(&mut self, generation: Generation) -> Option<Event> {
        let depth = self.load_flags.take();
        let Some(loader) = self.settings.loader.clone() else {
            if depth != Depth::Always {
                self.history.outlook = (0, "this program reads no configuration anew".to_owned());
                return Some(Event::LoadUnneeded { generation });
            }
            let current = self.eras.current();
            let policy = current.spec.policy;
            let again = Rc::clone(current);
            self.eras.add(generation, again);
            return Some(Event::Loaded { generation, policy });
        };
        let note = self.eras.current().spec.note.clone();
        let request = LoadRequest::new(note, depth);
        match self.with_signals_blocked(|driver| driver.fork_loader(generation, &loader, &request))
        {
            Ok(loading) => {
                self.loading = Some(loading);
                None
            }
            Err(why) => {
                let why = format!("cannot start the loader: {why}");
                error!("{why}");
                self.history.refuse(why);
                Some(Event::LoadFailed { generation })
            }
        }
    }

    fn fork_loader(
        &mut self,
        generation: Generation,
        loader: &Loader,
        request: &LoadRequest,
    ) -> std::io::Result<Loading> {
        let (channel, own_end) = Channel::pair()?;
        self.epoll.add(&channel, EpollEvent::new(EpollFlags::EPOLLIN, LOADER))?;
        let existing = self.eras.listeners();
        let master = nix::unistd::getpid();
        match process::fork()? {
            Fork::Master(pid) => {
                self.loaders.push(pid);
                let (sockets, answer) = (Vec::new(), Vec::new());
                Ok(Loading { generation, pid: Some(pid), channel, existing, sockets, answer })
            }
            Fork::Child => worker::never_return(|| {
                let prepared = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
                process::leave_if_orphaned(master);
                drop(channel);
                let its_signals = self.signals.become_worker();
                self.settle_helper("loader", &self.fds_of_log());
                mark::wear(None);
                fds::close_in_child(self.trees.hold_fds());
                let is_settled = prepared.is_ok() && its_signals.is_ok();
                if !is_settled || signals::set_mask(&SigSet::empty()).is_err() {
                    return 1;
                }
                let (answer, sockets) = self.read_anew(loader, request, &existing);
                let is_told = tell(&own_end, &answer, &sockets).is_ok();
                // Dropped, they would take the files of sockets along that are the master's by now.
                #[expect(clippy::mem_forget, reason = "the process ends here")]
                std::mem::forget((answer, sockets));
                u8::from(!is_told)
            }),
        }
    }

    /// In the loader: everything a start would do before its first fork.
    fn read_anew(
        &self,
        loader: &Loader,
        request: &LoadRequest,
        existing: &[Rc<Opened>],
    ) -> (Answer, Listeners) {
        let refused = |why: String| (Answer::Refused(why), Listeners::default());
        let settings = match loader(request) {
            Ok(Master(settings)) => settings,
            Err(why) => return refused(why),
        };
        if settings.factory.is_some() != self.seats.is_some() {
            let why = "workers cannot become commands, or commands workers, by a reload: restart";
            return refused(why.to_owned());
        }
        if request.is_only_if_changed() && settings.spec.note == request.note() {
            return (Answer::Unchanged(settings.spec.unapplied), Listeners::default());
        }
        match settings.found(self.nofile, existing) {
            // What was opened for it is closed here, files and all.
            Ok((found, _)) if request.is_dry_run() => {
                (Answer::WouldDo(found.changes), Listeners::default())
            }
            Ok((found, listeners)) => (Answer::Good(Box::new(found)), listeners),
            Err(error) => refused(match &settings.explain {
                Some(explain) => explain(&error),
                None => error.to_string(),
            }),
        }
    }

    /// The loader has said something.
    pub(super) fn on_loader(&mut self, now: Time) {
        let Some(loading) = &mut self.loading else { return };
        let Some(is_whole) = loading.hear() else { return };
        let Some(loading) = self.loading.take() else { return };
        // A child forked meanwhile may still have a copy, so closing it is not enough.
        let _ = self.epoll.delete(&loading.channel);
        let generation = loading.generation;
        let judged = if is_whole {
            self.judge(loading).unwrap_or_else(Judged::Refused)
        } else {
            Judged::Refused("the loader said more than can be taken".to_owned())
        };
        let event = match judged {
            Judged::Good(era, changes) => {
                if !changes.is_empty() {
                    info!("configuration: {changes}");
                }
                let policy = era.spec.policy;
                self.eras.add(generation, Rc::from(era));
                Event::Loaded { generation, policy }
            }
            Judged::Refused(why) => {
                for line in why.lines() {
                    error!("{line}");
                }
                self.history.refuse(why);
                Event::LoadFailed { generation }
            }
            Judged::Unchanged(unapplied) if unapplied.is_empty() => {
                info!("the configuration has not changed");
                self.history.outlook = (0, "nothing has changed, nothing was reloaded".to_owned());
                Event::LoadUnneeded { generation }
            }
            Judged::Unchanged(unapplied) => {
                info!("configuration: {unapplied}");
                self.history.outlook = (PARTLY_DONE, format!("nothing was reloaded; {unapplied}"));
                Event::LoadUnneeded { generation }
            }
            Judged::WouldDo(changes) => {
                let changes =
                    if changes.is_empty() { "nothing changed".to_owned() } else { changes };
                info!("the configuration is good: {changes}");
                self.history.outlook = (0, format!("the configuration is good: {changes}"));
                Event::LoadUnneeded { generation }
            }
        };
        self.step(now, event);
    }

    /// What the loader has said; what it has found is ready for spawns.
    fn judge(&self, loading: Loading) -> Result<Judged, String> {
        let found = match serde_json::from_slice(&loading.answer) {
            Ok(Answer::Good(found)) => *found,
            Ok(Answer::Refused(why)) => return Err(why),
            Ok(Answer::Unchanged(unapplied)) => return Ok(Judged::Unchanged(unapplied)),
            Ok(Answer::WouldDo(changes)) => return Ok(Judged::WouldDo(changes)),
            Err(_) if loading.answer.is_empty() => {
                return Err("the loader ended without an answer".to_owned());
            }
            Err(error) => return Err(format!("the loader's answer makes no sense: {error}")),
        };
        let changes = found.changes.clone();
        let era = self.era_of(found, &loading.existing, loading.sockets)?;
        Ok(Judged::Good(Box::new(era), changes))
    }

    fn era_of(
        &self,
        found: Found,
        existing: &[Rc<Opened>],
        sockets: Vec<OwnedFd>,
    ) -> Result<Era, String> {
        let current = self.eras.current();
        let mut spec = found.spec;
        spec.adopt_code_of(&current.spec);
        let mut sockets = sockets.into_iter();
        let mut opened = Vec::new();
        let options = spec.socket_options();
        for place in found.listeners {
            opened.push(match place {
                Place::Kept(index) => existing.get(index).map(Rc::clone),
                Place::New { address, shown, made } => sockets.next().map(|socket| {
                    info!("listening on {shown}");
                    let options = Some(options.clone());
                    Rc::new(Opened::received(address, socket, made, shown, options, Vec::new()))
                }),
            });
        }
        let opened: Option<Vec<_>> = opened.into_iter().collect();
        let opened = opened.ok_or("a listener did not arrive: are there descriptors enough?")?;
        let setup = spec.conditions.lay_out(self.nofile).map_err(|error| error.to_string())?;
        let makings = Makings {
            factory: self.settings.factory.as_ref(),
            instance: self.instance,
            nofile: self.nofile,
            ignored: self.signals.ignored(),
        };
        let era = Era::new(spec, Listeners::of(opened), setup, found.paths, &makings);
        era.map_err(|error| error.to_string())
    }

    /// Nobody waits for the answer any more.
    pub(super) fn abandon_load(&mut self) {
        let Some(loading) = self.loading.take() else { return };
        let _ = self.epoll.delete(&loading.channel);
        if let Some(pid) = loading.pid {
            // It is reaped here only, so it is still there, at least as a zombie.
            let _ = process::signal(pid, Signal::SIGKILL);
            let _ = process::signal_group(pid, Signal::SIGKILL);
        }
    }

    /// A child was reaped: if it was the loader, its number may be another's from now on.
    pub(super) fn note_loader_ended(&mut self, pid: Pid) {
        self.loaders.retain(|loader| *loader != pid);
        if let Some(loading) = &mut self.loading {
            loading.pid = loading.pid.filter(|loader| *loader != pid);
        }
    }
}

impl Loading {
    /// Takes some of what was said; `None`: there is more to come. Else, whether all of it was taken.
    fn hear(&mut self) -> Option<bool> {
        let mut part = vec![0; PART + 1];
        for _ in 0..PARTS_A_TURN {
            match self.channel.receive(&mut part) {
                Ok((0, _)) => return Some(true),
                Ok((length, socket)) => {
                    self.sockets.extend(socket);
                    self.answer.extend_from_slice(&part[1..length]);
                }
                Err(Errno::EAGAIN) => return None,
                Err(_) => return Some(false),
            }
            if self.answer.len() > ANSWER_MAX {
                return Some(false);
            }
        }
        None
    }
}

impl Settings {
    /// Whatever a start would meet before its first fork, in the same order and by the same code.
    fn found(
        &self,
        nofile: fds::NofileLimit,
        existing: &[Rc<Opened>],
    ) -> Result<(Found, Listeners), super::RunError> {
        self.bad_app_keys().next().map_or(Ok(()), Err)?;
        let (addresses, options) = (&self.spec.addresses, self.spec.socket_options());
        let is_forked = self.factory.is_some();
        let listeners = Listeners::open(addresses, &options, is_forked, existing)?;
        self.spec.conditions.setup(nofile, self.spec.name.as_ref())?;
        let paths = self.paths()?;
        let place =
            |opened: &Rc<Opened>| match existing.iter().position(|other| Rc::ptr_eq(other, opened))
            {
                Some(index) => Place::Kept(index),
                None => Place::New {
                    address: opened.address.clone(),
                    shown: opened.shown.clone(),
                    made: opened.made.get(),
                },
            };
        let places = listeners.all().iter().map(place).collect();
        let mut spec = self.spec.clone();
        spec.find_on_event()?;
        let changes = self.changes.clone();
        Ok((Found { spec, paths, listeners: places, changes }, listeners))
    }
}

/// In the loader: hands all of it over. A message has a byte of its own, because one without would be the end.
fn tell(channel: &Channel, answer: &Answer, listeners: &Listeners) -> Result<(), String> {
    let named = |errno: Errno| errno.to_string();
    if let Answer::Good(found) = answer {
        for (opened, place) in listeners.all().iter().zip(&found.listeners) {
            if let Place::New { .. } = place {
                channel.send_in_time(&[0], Some(opened.as_fd())).map_err(named)?;
            }
        }
    }
    let text = match serde_json::to_vec(answer) {
        Ok(text) => text,
        Err(error) => {
            let why = Answer::Refused(format!("the configuration cannot be handed over: {error}"));
            serde_json::to_vec(&why).map_err(|error| error.to_string())?
        }
    };
    for part in text.chunks(PART) {
        channel.send_in_time(&[&[0], part].concat(), None).map_err(named)?;
    }
    Ok(())
}
