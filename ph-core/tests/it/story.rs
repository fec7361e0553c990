//! A story: a table of what happens when, and what the arbiter must answer.
//!
//! One row is `seconds | event | answer`. The answer lists every action in order, separated by
//! commas; `-` stands for none. Notices begin with `*`, and they are compared only in rows that name
//! one, because most rows are about deeds; `*leaving` only where it is named itself. A row `seconds | due | 3.5` asks for the next deadline.
//! Unless a row asks for `strays`, workers have left nothing behind, and the arbiter hears that at once.
//! Jitter is zero unless the row says `jitter N` (percent of the most there is).

use std::fmt::Write as _;
use std::time::Duration;

use ph_core::arbiter::{
    Action, Arbiter, Event, ExitStatus, Generation, HelperId, HelperRole, Jitter, Notice, Order,
    Outcome, Policy, RecycleReason, RollFault, Share, SpawnFault, Time, UpgradeFault, WorkerId,
    WorkerSignal,
};

/// Tells a story to an arbiter with this policy and compares every answer.
#[track_caller]
pub(crate) fn tell(policy: Policy, table: &str) -> Arbiter {
    continue_with(Arbiter::new(policy), table)
}

/// Tells a story to an arbiter that has helpers.
#[track_caller]
pub(crate) fn tell_with(helpers: &[HelperRole], policy: Policy, table: &str) -> Arbiter {
    continue_with(Arbiter::new(policy).with_helpers(helpers), table)
}

/// Goes on with a story.
#[track_caller]
pub(crate) fn continue_with(mut arbiter: Arbiter, table: &str) -> Arbiter {
    let mut mistakes = String::new();
    for row in table.lines().map(str::trim).filter(|row| !row.is_empty() && !row.starts_with('#')) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [at, event, wanted] = cells[..] else { panic!("not a row: {row}") };
        let answer = answer_to(&mut arbiter, at, event, wanted);
        if answer != wanted {
            let _ =
                writeln!(mistakes, "{at} | {event}\n    wanted: {wanted}\n    was:    {answer}");
        }
        if let Err(error) = arbiter.check() {
            let _ = writeln!(mistakes, "{at} | {event}\n    check: {error}");
        }
        // The count of strays is asked for, and comes before the master sleeps.
        if !answer.contains("strays") && wakes_in_vain(&arbiter, time(at)) {
            let _ = writeln!(mistakes, "{at} | {event}\n    it wakes at once, and does nothing");
        }
    }
    assert!(mistakes.is_empty(), "the story went another way:\n{mistakes}");
    arbiter
}

/// Whether an arbiter that wants to be woken at once would do nothing then: its master would spin.
fn wakes_in_vain(arbiter: &Arbiter, now: Time) -> bool {
    let mut woken = arbiter.clone();
    let is_due = arbiter.next_deadline().is_some_and(|at| at <= now);
    let mut actions = Vec::new();
    woken.step(now, Event::Tick, &mut actions);
    is_due && actions.is_empty() && woken == *arbiter
}

fn answer_to(arbiter: &mut Arbiter, at: &str, event: &str, wanted: &str) -> String {
    if event == "due" {
        return arbiter.next_deadline().map_or("never".into(), |at| seconds(at.since(Time::ZERO)));
    }
    let mut actions = Vec::new();
    let policy = *arbiter.policy();
    arbiter.step(time(at), parse(event, policy), &mut actions);
    let with_notices = wanted.contains('*');
    let with_leaving = wanted.contains("*leaving");
    let with_strays = wanted.contains("strays");
    if !with_strays && actions.contains(&Action::EndStrays) {
        arbiter.step(time(at), Event::StraysCounted { left: 0 }, &mut actions);
    }
    let shown: Vec<_> = actions
        .iter()
        .filter(|action| with_notices || !matches!(action, Action::Notify(_)))
        .filter(|action| with_strays || !matches!(action, Action::EndStrays))
        .filter(|action| with_leaving || !matches!(action, Action::Notify(Notice::Leaving { .. })))
        .map(show)
        .collect();
    if shown.is_empty() { "-".into() } else { shown.join(", ") }
}

/// A point in time, given in seconds.
pub(crate) fn time(seconds: &str) -> Time {
    let seconds = seconds.parse().unwrap_or_else(|_| panic!("not a time: {seconds}"));
    Time::ZERO.after(Duration::from_secs_f64(seconds))
}

fn seconds(span: Duration) -> String {
    span.as_secs_f64().to_string()
}

fn parse(text: &str, policy: Policy) -> Event {
    let (text, jitter) = text.split_once(" jitter ").unwrap_or((text, "0"));
    let percent: u32 = jitter.parse().expect("a number of percent");
    let jitter = Jitter(u32::MAX / 100 * percent);
    let words: Vec<_> = text.split_whitespace().collect();
    let id = |word: &str| WorkerId(word.parse().unwrap_or_else(|_| panic!("no worker: {text}")));
    match words[..] {
        ["started"] => Event::Started,
        ["tick"] => Event::Tick,
        ["stop"] => Event::Ordered(Order::Stop),
        ["reopen"] => Event::Ordered(Order::Reopen),
        ["reload"] => Event::Ordered(Order::Reload),
        ["drain"] => Event::Ordered(Order::Drain),
        ["upgrade"] => Event::Ordered(Order::Upgrade),
        ["successor", "ready"] => Event::SuccessorReady,
        ["taken", "over"] => Event::TakenOver,
        ["predecessor", "gone"] => Event::PredecessorGone,
        ["successor", "ended", "failed"] => Event::SuccessorEnded { status: None },
        ["successor", "ended", code] => {
            let status = Some(ExitStatus::Code(code.parse().expect("a code")));
            Event::SuccessorEnded { status }
        }
        ["loaded", number, ref changes @ ..] => {
            Event::Loaded { generation: generation(number), policy: changed(policy, changes) }
        }
        ["unneeded", number] => Event::LoadUnneeded { generation: generation(number) },
        ["refused", number] => Event::LoadFailed { generation: generation(number) },
        ["probed", worker, "ready"] => Event::Probed { worker: id(worker), is_ready: true },
        ["probed", worker, "not"] => Event::Probed { worker: id(worker), is_ready: false },
        ["memory", worker, bytes] => {
            Event::MemoryRead { worker: id(worker), bytes: bytes.parse().expect("bytes") }
        }
        ["scale", by] if by.starts_with(['+', '-']) => {
            Event::Ordered(Order::ScaleBy(by.parse().expect("a number")))
        }
        ["scale", to] => Event::Ordered(Order::ScaleTo(to.parse().expect("a number"))),
        ["ready", worker] => Event::Ready { worker: id(worker), jitter },
        ["watched", worker] => Event::Watched { worker: id(worker) },
        ["recycle", worker] => Event::RecycleDue { worker: id(worker) },
        ["beat", worker, at] => Event::Heartbeat { worker: id(worker), beat: time(at) },
        ["exit", worker, code] => {
            let status = ExitStatus::Code(code.parse().expect("a code"));
            Event::Exited { worker: id(worker), status, jitter }
        }
        ["signalled", worker, number] => {
            let status =
                ExitStatus::Signal { number: number.parse().expect("a number"), core: false };
            Event::Exited { worker: id(worker), status, jitter }
        }
        ["strays", left] => Event::StraysCounted { left: left.parse().expect("a number") },
        ["helper", helper, end] => {
            let helper = HelperId(helper.parse().expect("a helper"));
            let status = match end {
                "failed" => None,
                "killed" => Some(ExitStatus::Signal { number: 9, core: false }),
                code => Some(ExitStatus::Code(code.parse().expect("a code"))),
            };
            Event::HelperEnded { helper, status, jitter }
        }
        ["fail", worker, fault] => {
            let fault = match fault {
                "missing" => SpawnFault::NotFound,
                "noexec" => SpawnFault::NotExecutable,
                "passing" => SpawnFault::Passing,
                other => panic!("not a fault: {other}"),
            };
            Event::SpawnFailed { worker: id(worker), fault, jitter }
        }
        _ => panic!("not an event: {text}"),
    }
}

fn generation(number: &str) -> Generation {
    Generation(number.parse().unwrap_or_else(|_| panic!("not a generation: {number}")))
}

/// What a new configuration says otherwise: `key=value`, and seconds for spans.
fn changed(mut policy: Policy, changes: &[&str]) -> Policy {
    for change in changes {
        let (key, value) =
            change.split_once('=').unwrap_or_else(|| panic!("not a change: {change}"));
        let number = || value.parse().unwrap_or_else(|_| panic!("not a number: {change}"));
        let span = || time(value).since(Time::ZERO);
        match key {
            "workers" => policy.target = number(),
            "surge" => policy.reload_surge = Share::Count(number()),
            "missing" => policy.max_unavailable = Share::Count(number()),
            "hold" => policy.canary_hold = span(),
            "delay" => policy.drain_delay = span(),
            "grace" => policy.graceful_timeout = span(),
            "timeout" => policy.timeout = Some(span()),
            "age" => policy.max_age = Some(span()),
            "memory" => policy.max_memory = Some(value.parse().expect("bytes")),
            "wait" => policy.backoff_min = span(),
            other => panic!("not a key: {other}"),
        }
    }
    policy
}

fn show(action: &Action) -> String {
    match *action {
        Action::Spawn { worker, slot, generation: Generation(1) } => {
            format!("spawn {worker}@{slot}")
        }
        Action::Spawn { worker, slot, generation } => {
            format!("spawn {worker}@{slot} g{generation}")
        }
        Action::ReadMemory { worker } => format!("weigh {worker}"),
        Action::StartProbe { worker } => format!("probe {worker}"),
        Action::EndProbe { worker } => format!("end probe {worker}"),
        Action::Load { generation } => format!("load {generation}"),
        Action::AbandonLoad => "abandon".into(),
        Action::SpawnSuccessor => "successor".into(),
        Action::CommitUpgrade => "commit".into(),
        Action::StopSuccessor => "stop successor".into(),
        Action::KillSuccessor => "kill successor".into(),
        Action::HandOver => "hand over".into(),
        Action::Forward(order) => format!("forward {order:?}"),
        Action::Signal { worker, signal } => match signal {
            WorkerSignal::Stop | WorkerSignal::StopLast => format!("stop {worker}"),
            WorkerSignal::Abort => format!("abort {worker}"),
            WorkerSignal::Kill => format!("kill {worker}"),
            WorkerSignal::Reopen => format!("usr1 {worker}"),
        },
        Action::ReadHeartbeat { worker } => format!("look {worker}"),
        Action::SpawnHelper { helper } => format!("help {helper}"),
        Action::StopHelper { helper } => format!("dismiss {helper}"),
        Action::KillHelper { helper } => format!("kill helper {helper}"),
        Action::EndStrays => "strays".into(),
        Action::ReopenLog => "reopen".into(),
        Action::Notify(notice) => show_notice(notice),
        Action::Exit(outcome) => match outcome {
            Outcome::Unreaped { processes } => format!("exit 1 unreaped {processes}"),
            Outcome::Unwritten => "exit 1 unwritten".to_owned(),
            Outcome::Stopped
            | Outcome::WorkersEnded { .. }
            | Outcome::BootFailed { .. }
            | Outcome::NotExecutable
            | Outcome::NotFound
            | Outcome::CrashLoop
            | Outcome::NotBooted
            | Outcome::Upgraded => format!("exit {}", outcome.code()),
        },
    }
}

fn show_notice(notice: Notice) -> String {
    match notice {
        Notice::WorkerReady { worker, after } => format!("*ready {worker} {}", seconds(after)),
        Notice::WorkerStopping { worker, reason, grace } => {
            format!("*{reason:?} {worker} grace {}", seconds(grace))
        }
        Notice::WorkerKilled { worker, reason } => format!("*killed {worker} {reason:?}"),
        Notice::WorkerUnreaped { worker, reason } => format!("*unreaped {worker} {reason:?}"),
        Notice::WorkerExited { worker, reason, respawn_in, .. } => {
            let why = reason.map_or(String::new(), |reason| format!(" {reason:?}"));
            match respawn_in {
                Some(wait) => format!("*exited {worker}{why} again in {}", seconds(wait)),
                None => format!("*exited {worker}{why}"),
            }
        }
        Notice::SpawnFailed { worker, fault, retry_in, .. } => match retry_in {
            Some(wait) => format!("*failed {worker} {fault:?} again in {}", seconds(wait)),
            None => format!("*failed {worker} {fault:?}"),
        },
        Notice::CrashLoop { slot, deaths, within: None } => format!("*crash loop @{slot} {deaths}"),
        Notice::CrashLoop { slot, deaths, within: Some(_) } => {
            format!("*crash loop @{slot} {deaths} in the window")
        }
        Notice::Recovered { slot } => format!("*recovered @{slot}"),
        Notice::Recycling { worker, reason } => {
            let why = match reason {
                RecycleReason::Requests => "",
                RecycleReason::Age => " old",
                RecycleReason::Memory { .. } => " heavy",
            };
            format!("*recycling {worker}{why}")
        }
        Notice::Loading { generation } => format!("*loading {generation}"),
        Notice::LoadRefused { generation, is_timeout: true } => format!("*late load {generation}"),
        Notice::LoadUnneeded { generation } => format!("*unneeded {generation}"),
        Notice::LoadRefused { generation, .. } => format!("*refused {generation}"),
        Notice::Rolling { generation, canary } => format!("*rolling {generation} canary @{canary}"),
        Notice::CanaryProven { worker } => format!("*canary {worker}"),
        Notice::Reloaded { generation, took } => {
            format!("*reloaded {generation} in {}", seconds(took))
        }
        Notice::RollFailed { generation, back_to, worker, slot, cause } => {
            let how = match cause {
                RollFault::Exited(_) => "exited",
                RollFault::NotSpawned(_) => "not spawned",
                RollFault::BootTimeout => "boot timeout",
                RollFault::Stuck => "stuck",
            };
            format!("*failed {generation} back to {back_to}: {worker}@{slot} {how}")
        }
        Notice::RolledBack { generation, back_to } => format!("*back {generation} to {back_to}"),
        Notice::Draining => "*draining".into(),
        Notice::Upgrading => "*upgrading".into(),
        Notice::Upgraded { took } => format!("*upgraded in {}", seconds(took)),
        Notice::UpgradeFailed { fault } => match fault {
            UpgradeFault::NotStarted => "*no successor".into(),
            UpgradeFault::Ended(_) => "*successor ended".into(),
            UpgradeFault::NotReady { .. } => "*successor late".into(),
            UpgradeFault::NotTakenOver => "*successor does not take over".into(),
        },
        Notice::Booted { took } => format!("*booted in {}", seconds(took)),
        Notice::NotBooted { is_timeout: true } => "*not booted in time".into(),
        Notice::NotBooted { .. } => "*not booted".into(),
        Notice::Scaled { from, to } => format!("*scaled {from} to {to}"),
        Notice::ScaleLimited { wanted, limit } => format!("*limited {wanted} to {limit}"),
        Notice::LateWake { by } => format!("*late {}", seconds(by)),
        Notice::HelperEnded { helper, respawn_in, .. } => match respawn_in {
            Some(wait) => format!("*helper {helper} ended again in {}", seconds(wait)),
            None => format!("*helper {helper} ended"),
        },
        Notice::EndsWithWorkers { code } => format!("*ends with {code}"),
        Notice::StraysLeft { left } => format!("*left behind {left}"),
        Notice::Stopping { workers, delay: Duration::ZERO } => format!("*stopping {workers}"),
        Notice::Stopping { workers, delay } => {
            format!("*stopping {workers} after {}", delay.as_secs_f64())
        }
        Notice::DelayOver { workers } => format!("*stopping {workers} now"),
        Notice::Quitting { workers } => format!("*quitting {workers}"),
        Notice::Leaving { outcome } => format!("*leaving with {}", outcome.code()),
        Notice::Bug(text) => format!("*bug {text}"),
    }
}
