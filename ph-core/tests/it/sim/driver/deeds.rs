//! What the model driver does with each action, and what it tells that means nothing.

use ph_core::arbiter::{
    Action, Event, ExitStatus, Generation, HelperId, Jitter, SpawnFault, Time, WorkerId,
};

use super::{Load, Successor, Verdict, Violation, World, copies, hold};

impl World {
    /// Events that mean nothing: about workers that are dead or never were, said twice, or not asked
    /// for; and a clock that seems to go back.
    pub(super) fn tell_stray(&mut self) -> Verdict {
        let jitter = self.jitter();
        let known = self.rng.below(self.newest.0 + 2);
        let worker = WorkerId(self.rng.pick(&[known, u64::MAX]));
        let is_known = self.children.contains_key(&worker);
        let status = ExitStatus::Code(self.rng.pick(&[0, 3, 4]));
        let fault = self.rng.pick(&[SpawnFault::NotFound, SpawnFault::Passing]);
        let beat = Time::from_nanos(self.rng.pick(&[0, u64::MAX]));
        let mut events = vec![Event::Heartbeat { worker, beat }];
        match self.subject.arbiter().worker(worker) {
            Some(record) if record.state.is_ready() => {
                events.push(Event::Ready { worker, jitter: Jitter::default() });
            }
            Some(_) => {}
            None if is_known => {}
            None => events.extend([
                Event::Ready { worker, jitter: Jitter::default() },
                Event::RecycleDue { worker },
                Event::Watched { worker },
                Event::Exited { worker, status, jitter },
                Event::SpawnFailed { worker, fault, jitter },
            ]),
        }
        let helper = HelperId(self.rng.pick(&[0, 1, 2, u32::MAX]));
        if !self.kernel.beside.has_process(helper) {
            let status = self.rng.pick(&[None, Some(status)]);
            events.push(Event::HelperEnded { helper, status, jitter });
        }
        let number = self.rng.pick(&[0, 1, self.observer.newest_load(), u32::MAX]);
        let generation = Generation(number);
        if self.observer.loading() != Some(generation) {
            let policy = self.plan.policy;
            events.push(Event::Loaded { generation, policy });
            events.push(Event::LoadFailed { generation });
            events.push(Event::LoadUnneeded { generation });
        }
        if !is_known {
            events.push(Event::MemoryRead { worker, bytes: u64::MAX });
        }
        if self.successor.is_none() {
            events.push(Event::SuccessorReady);
            events.push(Event::TakenOver);
            events.push(Event::SuccessorEnded { status: Some(status) });
        }
        if !self.kernel.beside.is_asked_for_strays() {
            events.push(Event::StraysCounted { left: self.rng.between(0, 2) });
        }
        let event = self.rng.pick(&events);
        let now = self.now;
        self.now = self.rng.pick(&[now, Time::ZERO]);
        let verdict =
            copies::check_stray(&self.subject, self.now, event).and_then(|()| self.step(event));
        self.now = now;
        verdict
    }

    /// What the successor says, and its end; but not always all that can be seen.
    pub(super) fn tell_of_successor(&mut self) -> Verdict {
        let now = self.now;
        while let Some(event) = self.successor.as_mut().and_then(|it| it.news(now)) {
            if matches!(event, Event::SuccessorEnded { .. }) {
                if self.fault(self.plan.faults.reaps_partly) {
                    return Ok(());
                }
                self.successor = None;
            }
            self.step(event)?;
        }
        Ok(())
    }

    /// Whom an action is for.
    fn successor(&mut self) -> Result<&mut Successor, Violation> {
        self.successor.as_mut().ok_or_else(|| Violation::new(2, "there is no successor"))
    }

    pub(super) fn perform(&mut self, action: Action) -> Result<Option<Event>, Violation> {
        let now = self.now;
        match action {
            Action::Spawn { worker, generation, .. } => {
                self.newest = self.newest.max(worker);
                match self.kernel.spawn(worker, generation, &mut self.rng) {
                    Ok(pid) => {
                        self.children.insert(worker, pid);
                    }
                    Err(fault) => {
                        let jitter = self.jitter();
                        return Ok(Some(Event::SpawnFailed { worker, fault, jitter }));
                    }
                }
            }
            Action::Signal { worker, signal } => {
                let Some(pid) = self.children.get(&worker) else { return Ok(None) };
                let hit = self.kernel.signal(*pid, signal, &mut self.rng);
                hold!(22, hit == Some(worker), "{signal:?} for {worker:?} hit {hit:?}");
            }
            Action::ReadHeartbeat { worker } => {
                let beat = self.kernel.beat(worker, &mut self.rng);
                return Ok(beat.map(|beat| Event::Heartbeat { worker, beat }));
            }
            Action::SpawnHelper { helper } => {
                if !self.kernel.beside.spawn(helper, &mut self.rng) {
                    let (status, jitter) = (None, self.jitter());
                    return Ok(Some(Event::HelperEnded { helper, status, jitter }));
                }
            }
            // One that could not be started may be told before its end is.
            Action::StopHelper { helper } => self.kernel.beside.stop(helper),
            Action::KillHelper { helper } => self.kernel.beside.kill(helper),
            Action::EndStrays => {
                let left = self.kernel.beside.end_strays();
                return Ok(Some(Event::StraysCounted { left }));
            }
            Action::ReadMemory { worker } => {
                let bytes = self.kernel.weigh(worker);
                return Ok(bytes.map(|bytes| Event::MemoryRead { worker, bytes }));
            }
            Action::Load { generation } => {
                let faults = (!self.is_calm).then_some(&self.plan.load_faults);
                let load = Load::draw(self.now, generation, self.file, faults, &mut self.rng);
                if load.is_due(self.now) {
                    self.learn(load);
                    return Ok(Some(load.answer));
                }
                self.load = Some(load);
            }
            Action::StartProbe { worker } => {
                let is_ready = self.is_calm || self.rng.chance(600);
                return Ok(Some(Event::Probed { worker, is_ready }));
            }
            // Every probe has ended before anybody can want its end.
            Action::EndProbe { .. } => {}
            Action::AbandonLoad => self.load = None,
            Action::SpawnSuccessor => {
                let faults = (!self.is_calm).then_some(&self.plan.upgrade_faults);
                let policy = self.observer.policy;
                self.successor = Successor::draw(self.now, &policy, faults, &mut self.rng);
                if self.successor.is_none() {
                    return Ok(Some(Event::SuccessorEnded { status: None }));
                }
            }
            Action::CommitUpgrade => self.successor()?.commit(now),
            Action::StopSuccessor => self.successor()?.stop(now),
            Action::KillSuccessor => self.successor()?.kill(now),
            // From here on it is no child of this master.
            Action::HandOver => self.successor = None,
            Action::Forward(_) | Action::ReopenLog | Action::Notify(_) | Action::Exit(_) => {}
        }
        Ok(None)
    }
}
