//! One story for every bug that the simulation or a reader found and that has been mended: what the
//! arbiter must never do again. Each says what it did before.

use std::time::Duration;

use ph_core::arbiter::{
    Action, Arbiter, Event, ExitStatus, Jitter, Order, Policy, Readiness, Share, SpawnFault, Time,
    WorkerId,
};

use crate::story::{tell, time};

mod closing;
mod reloading;

fn policy() -> Policy {
    Policy { target: 2, reload_surge: Share::Count(1), ..Policy::default() }
}

/// A stuck worker whose slot was scaled away and back dies when the slot has a new worker, which is
/// being recycled. Its death was taken for that of the successor: the surge was given away twice, and
/// the slot had to wait (seed 1198).
#[test]
fn a_worker_that_lost_its_slot_dies_without_hurting_it() {
    let policy = Policy { timeout: Some(Duration::from_secs(8)), ..policy() };
    tell(
        policy,
        "0    | started          | spawn 1@0, spawn 2@1
         1    | ready 1          | -
         1    | ready 2          | -
         6    | tick             | look 1, look 2
         6    | beat 1 5.9       | -
         6    | beat 2 1         | -
         9    | tick             | look 2
         9    | beat 2 1         | abort 2
         9    | scale 1          | -
         9    | scale 2          | spawn 3@1
         9.1  | ready 3          | -
         9.2  | recycle 3        | spawn 4@1
         9.3  | recycle 1        | -
         9.4  | signalled 2 6    | *exited 2 Stuck
         9.5  | ready 4          | stop 3, spawn 5@0",
    );
}

/// A worker that never came to be, in a slot that was scaled away and back, put the slot into backoff.
#[test]
fn a_failed_spawn_that_lost_its_slot_does_not_hurt_it() {
    let policy = Policy { max_restarts: 0, ..policy() };
    tell(
        policy,
        "0    | started        | spawn 1@0, spawn 2@1
         0.1  | ready 1        | -
         0.1  | scale 1        | stop 2
         0.1  | scale 2        | spawn 3@1
         0.2  | fail 2 passing | *failed 2 Passing
         0.3  | ready 3        | -
         0.4  | recycle 3      | spawn 4@1",
    );
}

/// A worker the kernel does not end frees its slot when it is given up. That was not counted as the
/// death it is; its reaping, much later, was, and the worker that had the slot by then paid for it.
#[test]
fn an_unreaped_worker_counts_when_it_is_given_up() {
    let boot_timeout = Some(Duration::from_secs(4));
    let policy = Policy { boot_timeout, target: 1, ..policy() };
    tell(
        policy,
        "0    | started        | spawn 1@0
         4    | tick           | abort 1
         9    | tick           | kill 1
         10   | tick           | *unreaped 1 BootTimeout, spawn 2@0
         11   | ready 2        | -
         11.1 | recycle 2      | spawn 3@0
         12   | signalled 1 9  | *exited 1 BootTimeout
         12.1 | exit 2 1       | -
         12.1 | due            | 15.1",
    );
}

/// Workers that cannot be killed were not counted at all in the most processes there may be: each
/// timeout added one, without end, until no process was left to be had.
#[test]
fn workers_that_cannot_be_killed_are_bounded_too() {
    let boot_timeout = Some(Duration::from_secs(4));
    let policy = Policy { target: 1, max_workers: 1, boot_timeout, ..policy() };
    tell(
        policy,
        "0    | started       | spawn 1@0
         4    | tick          | abort 1
         9    | tick          | kill 1
         10   | tick          | *unreaped 1 BootTimeout, spawn 2@0
         14   | tick          | abort 2
         19   | tick          | kill 2
         20   | tick          | *unreaped 2 BootTimeout
         20.1 | tick          | spawn 3@0
         24.1 | tick          | abort 3
         29.1 | tick          | kill 3
         30.1 | tick          | *unreaped 3 BootTimeout
         30.3 | tick          | -
         30.3 | due           | never
         99   | signalled 2 9 | *exited 2 BootTimeout, spawn 4@0",
    );
}

/// A slot that had to wait for room died into backoff just when there was some; the room was not
/// offered to the next slot, which had nothing to wait for.
#[test]
fn room_that_one_slot_cannot_use_goes_to_the_next() {
    tell(
        Policy { max_workers: 2, max_restarts: 0, ..policy() },
        "0    | started   | spawn 1@0, spawn 2@1
         0.1  | ready 1   | -
         0.2  | scale 1   | stop 2
         0.2  | scale 2   | spawn 3@1
         0.3  | scale 1   | stop 3
         0.3  | scale 2   | spawn 4@1
         0.4  | recycle 1 | -
         0.5  | scale 1   | stop 4
         0.5  | scale 2   | -
         0.6  | exit 1 1  | spawn 5@1",
    );
}

/// The master slept through the second in which a killed worker should be reaped, and gave it up at
/// the first look, before it had reaped anything: a clean stop ended with exit code 1 (seed 43).
#[test]
fn nobody_is_given_up_by_a_late_look() {
    tell(
        policy(),
        "0    | started       | spawn 1@0, spawn 2@1
         0.1  | ready 1       | -
         0.1  | ready 2       | -
         1    | stop          | stop 1, stop 2
         31   | tick          | kill 1, kill 2
         33   | signalled 1 9 | *exited 1 Shutdown, *late 1
         33   | signalled 2 9 | exit 0",
    );
}

/// While a slot was recovering, its successors died so fast that the slot had to prove itself for
/// longer. It recovered at the old time, and the record of those deaths was gone (seed 10892).
#[test]
fn a_slot_recovers_by_the_rule_of_its_last_death() {
    let policy = Policy {
        target: 1,
        min_uptime: Duration::from_millis(200),
        max_restarts: 5,
        restart_window: Duration::from_secs(10),
        ..policy()
    };
    tell(
        policy,
        "0    | started        | spawn 1@0
         0    | fail 1 passing | spawn 2@0
         0    | fail 2 passing | -
         0.1  | tick           | spawn 3@0
         0.1  | fail 3 passing | -
         0.3  | tick           | spawn 4@0
         0.3  | fail 4 passing | -
         0.7  | tick           | spawn 5@0
         0.7  | fail 5 passing | *crash loop @0 5, *failed 5 Passing again in 0.8
         1.5  | tick           | spawn 6@0
         1.6  | ready 6        | -
         1.6  | recycle 6      | spawn 7@0
         1.6  | fail 7 passing | *failed 7 Passing again in 1.6
         1.8  | tick           | -
         1.8  | due            | 3.2
         3.2  | tick           | spawn 8@0
         3.6  | tick           | *recovered @0",
    );
}

/// The master slept twice, each time until just before or after a look at a silent worker was due, so
/// both looks were on time and the worker was condemned; but had it been frozen with the master, it
/// would have had a tenth of a second to beat (seed 15454).
#[test]
fn a_worker_has_a_quarter_of_its_timeout_under_the_eyes_of_a_waking_master() {
    let policy = Policy { timeout: Some(Duration::from_secs(8)), ..policy() };
    tell(
        policy,
        "0    | started        | spawn 1@0, spawn 2@1
         0    | ready 1        | -
         0    | fail 2 passing | spawn 3@1
         6    | tick           | look 1
         6    | beat 1 0       | -
         6    | fail 3 passing | -
         6    | due            | 6.1
         9.9  | tick           | look 1, spawn 4@1
         9.9  | beat 1 0       | -
         9.9  | due            | 11.8
         11.8 | tick           | look 1
         11.8 | beat 1 0       | abort 1",
    );
}

/// A worker that had beaten once before the master fell asleep was not given a fresh period when it
/// woke late, but two quarters of one: the old beat, being news, hid that the look was late.
#[test]
fn a_late_look_at_an_old_beat_gives_a_fresh_period_too() {
    tell(
        Policy { target: 1, timeout: Some(Duration::from_secs(8)), ..policy() },
        "0   | started  | spawn 1@0
         0   | ready 1  | -
         60  | tick     | look 1
         60  | beat 1 5 | *late 54
         60  | due      | 66
         66  | tick     | look 1
         66  | beat 1 5 | -
         68  | tick     | look 1
         68  | beat 1 5 | abort 1",
    );
}

/// A scale-down lowers the surge and takes the last successors back. One that had been aborted already
/// was taken out of its slot as well: its death was nobody's, and the slot got a third worker (seed
/// 588031614411).
#[test]
fn a_lower_surge_leaves_successors_that_end_anyway_in_their_slots() {
    let boot_timeout = Some(Duration::from_secs(4));
    let policy = Policy { target: 5, boot_timeout, reload_surge: Share::Percent(25), ..policy() };
    tell(
        policy,
        "0   | started       | spawn 1@0, spawn 2@1, spawn 3@2, spawn 4@3, spawn 5@4
         0   | ready 1       | -
         0   | ready 2       | -
         0   | ready 3       | -
         0   | ready 4       | -
         0   | ready 5       | -
         1   | recycle 4     | spawn 6@3
         3   | recycle 1     | spawn 7@0
         5   | tick          | abort 6
         5.5 | scale -1      | stop 5
         6   | ready 7       | stop 1
         7   | signalled 6 6 | *exited 6 BootTimeout again in 0, spawn 8@3",
    );
}

/// The same where the worker really cannot be reaped: the fresh period is one second, and ends.
#[test]
fn the_fresh_period_after_a_late_look_ends() {
    tell(
        Policy { target: 1, ..policy() },
        "0    | started | spawn 1@0
         0.1  | stop    | stop 1
         30.1 | tick    | kill 1
         33   | tick    | -
         33   | due     | 34
         34   | tick    | *unreaped 1 Shutdown, exit 1 unreaped 1",
    );
}

/// A worker that asked for a successor while its readiness was still being proven was not heard, and
/// workers ask only once.
#[test]
fn a_wish_for_a_successor_outlives_the_proof_of_readiness() {
    let policy = Policy { readiness: Readiness::Spawned, target: 1, ..policy() };
    tell(
        policy,
        "0   | started   | spawn 1@0
         0.1 | ready 1   | -
         0.5 | recycle 1 | -
         1.1 | tick      | *ready 1 1.1, *recycling 1, spawn 2@0",
    );
}

/// Without a wait between them, failed forks are answered by forks within one turn of the driver, for
/// ever: the master hears nothing any more, not even a stop.
#[test]
fn no_policy_makes_a_master_spin() {
    let zero = Duration::ZERO;
    let policy = Policy { backoff_min: zero, backoff_max: zero, target: 1, ..policy() };
    tell(
        policy,
        "0     | started        | spawn 1@0
         0     | fail 1 passing | spawn 2@0
         0     | fail 2 passing | -
         0     | due            | 0.001
         0.001 | tick           | spawn 3@0",
    );
}

/// A deadline on a clock of milliseconds is always a little late. Where the timeout was as short as
/// that, every look was too late to tell: nobody was ever given up, and every wake was a notice.
#[test]
fn a_timeout_of_nothing_ends_too() {
    for shortest in [0, 1, 1_000_000] {
        let boot_timeout = Some(Duration::from_nanos(shortest));
        tell(
            Policy { boot_timeout, target: 1, ..policy() },
            "0     | started | spawn 1@0
             0.002 | tick    | *BootTimeout 1 grace 5, abort 1",
        );
    }
}

/// While a successor boots for ever, workers in other slots ask to be replaced and die: each such life
/// left an entry in the queue.
#[test]
fn wishes_for_a_successor_do_not_pile_up() {
    let policy = Policy { boot_timeout: None, max_restarts: u32::MAX, ..policy() };
    let mut arbiter = tell(
        policy,
        "0   | started   | spawn 1@0, spawn 2@1
         0.1 | ready 1   | -
         0.1 | ready 2   | -
         0.2 | recycle 1 | spawn 3@0",
    );
    let mut worker = WorkerId(2);
    let mut most = None;
    for second in 0..1000_u32 {
        let now = time("10").after(Duration::from_secs(10) * second);
        let (status, jitter) = (ExitStatus::Code(0), Jitter(0));
        let mut actions = step(&mut arbiter, now, Event::RecycleDue { worker });
        let exit = Event::Exited { worker, status, jitter };
        actions.extend(step(&mut arbiter, now, exit));
        let Some(Action::Spawn { worker: next, .. }) = actions.last().copied() else {
            panic!("not replaced: {actions:?}");
        };
        worker = next;
        step(&mut arbiter, now, Event::Ready { worker, jitter: Jitter::default() });
        let printed = format!("{arbiter:?}").len();
        assert!(printed <= *most.get_or_insert(printed) + 100, "{printed} bytes after {second}");
    }
}

/// A batch of spawns went before the stops of a scale-down, so for a moment there were more workers
/// than the new target, and a surplus worker could be forgotten in the recycle queue.
#[test]
fn a_scale_down_does_not_wait_behind_a_mass_start() {
    let mut arbiter = Arbiter::new(Policy { target: 100, ..policy() });
    let mut spawned = step(&mut arbiter, Time::ZERO, Event::Started);
    for _ in 0..4 {
        spawned.extend(step(&mut arbiter, Time::ZERO, Event::Tick));
    }
    assert_eq!(spawned.len(), 100);
    // The first seventy die twice, and all wait for the same moment.
    for worker in 1..=70 {
        let fault = SpawnFault::Passing;
        let failed = |id| Event::SpawnFailed { worker: WorkerId(id), fault, jitter: Jitter(0) };
        step(&mut arbiter, Time::ZERO, failed(worker));
        step(&mut arbiter, Time::ZERO, failed(worker + 100));
    }
    let actions = step(&mut arbiter, time("0.1"), Event::Ordered(Order::ScaleTo(90)));
    let spawns = actions.iter().filter(|action| matches!(action, Action::Spawn { .. })).count();
    let stops = actions.iter().filter(|action| matches!(action, Action::Signal { .. })).count();
    assert_eq!((spawns, stops), (32, 10));
}

fn step(arbiter: &mut Arbiter, now: Time, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    arbiter.step(now, event, &mut actions);
    actions
}

/// A failed first boot stops the master. The operator's first stop order after that was taken for a
/// second one, and killed the workers at once.
#[test]
fn the_first_order_after_a_failed_first_boot_is_not_the_second() {
    tell(
        policy(),
        "0   | started  | spawn 1@0, spawn 2@1
         0.1 | exit 1 3 | stop 2
         0.2 | stop     | -
         0.3 | stop     | kill 2
         0.4 | exit 2 0 | exit 3",
    );
}
