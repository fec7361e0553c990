//! The decisions of a rotation, as tables.

use super::*;

use tz::TimeZone;
use tz::timezone::{LocalTimeType, Transition, TransitionRule};

const HOUR: u64 = 3600;
const DAY: u64 = 86400;
/// A midnight in UTC.
const MIDNIGHT: u64 = 20_000 * DAY;

fn limits(period: Period, clock: Clock) -> RotateLimits {
    RotateLimits { max_size: Some(1000), period, clock, ..RotateLimits::default() }
}

fn decide(limits: &RotateLimits, size: u64, began: u64, now: u64) -> Decision {
    limits.decide(Moment { size, began, now, batch: 100 })
}

/// A clock whose offset from UTC changes at `MIDNIGHT` + 1 h.
fn changing(before: i32, after: i32) -> Clock {
    let kinds = [before, after].map(LocalTimeType::with_ut_offset);
    let kinds: Vec<_> = kinds.into_iter().map(|kind| kind.expect("an offset")).collect();
    let change = Transition::new((MIDNIGHT + HOUR).cast_signed(), 1);
    let rule = TransitionRule::Fixed(kinds[1]);
    Clock::of(TimeZone::new(vec![change], kinds, vec![], Some(rule)).expect("a zone"))
}

/// The end of summer time.
fn autumn() -> Clock {
    changing(7200, 3600)
}

/// The beginning of summer time.
fn spring() -> Clock {
    changing(3600, 7200)
}

fn half_hour() -> Clock {
    Clock::of(TimeZone::fixed(19_800).expect("a zone"))
}

#[test]
fn a_file_is_rotated_before_it_grows_too_large_and_never_while_empty() {
    let limits = limits(Period::Never, Clock::utc());
    for (size, decision) in [
        (0, Decision::Stay),
        (900, Decision::Stay),
        (901, Decision::Rotate),
        (5000, Decision::Rotate),
    ] {
        assert_eq!(decide(&limits, size, 0, MIDNIGHT), decision, "{size}");
    }
    let huge = Moment { size: 0, began: 0, now: 0, batch: 5000 };
    assert_eq!(limits.decide(huge), Decision::Stay, "a batch larger than the limit goes alone");
    let boundless = RotateLimits { max_size: None, ..limits };
    assert_eq!(decide(&boundless, u64::MAX, 0, MIDNIGHT), Decision::Stay);
}

#[test]
fn a_period_is_rotated_once() {
    use Decision::{Begin, Rotate, Stay};
    use Period::{Daily, Hourly};
    type Row = (&'static str, Period, fn() -> Clock, u64, u64, Decision);
    let utc = Clock::utc;
    let rows: &[Row] = &[
        ("same day", Daily, utc, MIDNIGHT, MIDNIGHT + DAY - 1, Stay),
        ("next day", Daily, utc, MIDNIGHT + DAY - 1, MIDNIGHT + DAY, Rotate),
        ("days later", Daily, utc, MIDNIGHT, MIDNIGHT + 9 * DAY, Rotate),
        ("clock back over midnight", Daily, utc, MIDNIGHT, MIDNIGHT - 1, Stay),
        ("and forward again", Daily, utc, MIDNIGHT, MIDNIGHT + 1, Stay),
        ("two days back", Daily, utc, MIDNIGHT + 2 * DAY, MIDNIGHT, Stay),
        ("a clock that was ten years ahead", Daily, utc, MIDNIGHT + 3650 * DAY, MIDNIGHT, Begin),
        ("local midnight", Daily, half_hour, MIDNIGHT, MIDNIGHT + DAY - 19_800, Rotate),
        ("before it", Daily, half_hour, MIDNIGHT, MIDNIGHT + DAY - 19_801, Stay),
        (
            "the day that is 25 hours",
            Daily,
            autumn,
            MIDNIGHT - 2 * HOUR,
            MIDNIGHT + 22 * HOUR,
            Stay,
        ),
        ("its end", Daily, autumn, MIDNIGHT - 2 * HOUR, MIDNIGHT + 23 * HOUR, Rotate),
        ("the day that is 23 hours", Daily, spring, MIDNIGHT - HOUR, MIDNIGHT + 22 * HOUR, Rotate),
        ("before its end", Daily, spring, MIDNIGHT - HOUR, MIDNIGHT + 22 * HOUR - 1, Stay),
        ("same hour", Hourly, utc, MIDNIGHT, MIDNIGHT + HOUR - 1, Stay),
        ("next hour", Hourly, utc, MIDNIGHT, MIDNIGHT + HOUR, Rotate),
        ("the repeated hour", Hourly, autumn, MIDNIGHT + HOUR - 1, MIDNIGHT + HOUR, Rotate),
        ("within it", Hourly, autumn, MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR - 1, Stay),
        ("the hour left out", Hourly, spring, MIDNIGHT + HOUR - 1, MIDNIGHT + HOUR, Rotate),
        ("half past", Hourly, half_hour, MIDNIGHT, MIDNIGHT + 1800, Rotate),
        ("an hour back", Hourly, utc, MIDNIGHT + HOUR, MIDNIGHT, Stay),
    ];
    for &(what, period, clock, began, now, decision) in rows {
        assert_eq!(decide(&limits(period, clock()), 10, began, now), decision, "{what}");
    }
    let daily = limits(Daily, Clock::utc());
    assert_eq!(decide(&daily, 0, MIDNIGHT, MIDNIGHT + DAY), Begin, "an empty file");
}

fn found(names: &[&str]) -> Vec<Found> {
    let own = Names::new(OsStr::new("log"));
    let found = |name: &&str| Found {
        backup: own.parse(OsStr::new(name.trim_end_matches('/'))).expect("a backup"),
        modified: Duration::from_secs(MIDNIGHT),
        is_regular: !name.ends_with('/'),
        is_linked: false,
    };
    names.iter().map(found).collect()
}

/// What stands there after the moves, or what is in the way.
fn moved(names: &[&str]) -> String {
    let own = Names::new(OsStr::new("log"));
    let shown = |backup| own.backup(backup).into_string().expect("UTF-8");
    match moves(&found(names)) {
        Ok(moves) => {
            moves.into_iter().map(|(from, to)| format!("{}>{} ", shown(from), shown(to))).collect()
        }
        Err(backup) => format!("{} in the way", shown(backup)),
    }
}

#[test]
fn backups_move_up_to_the_first_gap_from_the_oldest_on() {
    for (names, moves) in [
        (&[][..], ""),
        (&["log.1"], "log.1>log.2 "),
        (&["log.1", "log.2.gz", "log.3.gz"], "log.3.gz>log.4.gz log.2.gz>log.3.gz log.1>log.2 "),
        (&["log.1", "log.3"], "log.1>log.2 "),
        (&["log.2", "log.3"], ""),
        (&["log.1", "log.2", "log.2.gz"], "log.2.gz>log.3.gz log.2>log.3 log.1>log.2 "),
        (&["log.1", "log.2.zst", "log.3.gz"], "log.3.gz>log.4.gz log.2.zst>log.3.zst log.1>log.2 "),
        (&["log.1/"], "log.1 in the way"),
        (&["log.1", "log.2/"], "log.2 in the way"),
        (&["log.1", "log.3/"], "log.1>log.2 "),
    ] {
        assert_eq!(moved(names), moves, "{names:?}");
    }
}

#[test]
fn a_backup_with_a_compressed_form_of_the_same_time_is_there_twice() {
    let mut there =
        found(&["log.1", "log.2", "log.2.zst", "log.3", "log.4.gz", "log.5", "log.5.gz/"]);
    let second = Backup { index: 2, packing: None };
    assert_eq!(twins(&there), [second]);
    there[1].modified += Duration::from_nanos(1);
    assert_eq!(twins(&there), []);
}

#[test]
fn what_is_too_many_or_too_old_is_deleted() {
    let mut there = found(&["log.1", "log.2.gz", "log.3", "log.4/", "log.900"]);
    let indexes = |limits: &RotateLimits, there: &[Found], now| {
        let surplus = limits.surplus(there, now);
        surplus.into_iter().map(|backup| backup.index).collect::<Vec<_>>()
    };
    let two = RotateLimits { backups: 2, ..RotateLimits::default() };
    assert_eq!(indexes(&two, &there, MIDNIGHT), [3, 900]);
    let none = RotateLimits { backups: 0, ..RotateLimits::default() };
    assert_eq!(indexes(&none, &there, MIDNIGHT), [1, 2, 3, 900]);
    let week = Some(Duration::from_secs(7 * DAY));
    let week = RotateLimits { max_age: week, backups: 1000, ..RotateLimits::default() };
    there[1].modified -= Duration::from_secs(DAY);
    assert!(indexes(&week, &there, MIDNIGHT + 6 * DAY).is_empty());
    assert_eq!(indexes(&week, &there, MIDNIGHT + 7 * DAY), [2]);
    assert!(indexes(&week, &there, MIDNIGHT - 9 * DAY).is_empty(), "a clock that went back");
}

#[test]
fn the_youngest_backup_from_the_second_on_is_compressed() {
    for (names, index) in [
        (&["log.1"][..], None),
        (&["log.1", "log.2.gz", "log.3", "log.4"], Some(3)),
        (&["log.2", "log.2.gz"], Some(2)),
        (&["log.2", "log.2.zst", "log.3"], Some(3)),
        (&["log.2/"], None),
    ] {
        assert_eq!(unpacked(&found(names)).map(|backup| backup.index), index, "{names:?}");
    }
}

#[test]
fn only_its_own_names_are_backups() {
    let names = Names::new(OsStr::new("log"));
    for other in [
        "log",
        "log.",
        "log.0",
        "log.01",
        "log.+1",
        "log.1.gz.gz",
        "log.1.gz.zst",
        "log.zst",
        "log.gz",
        "log.1x",
        "logs.1",
        "log.4294967295",
        "log.4294967296",
        ".log.pack",
        "log.-1",
        "log.1.GZ",
    ] {
        assert_eq!(names.parse(OsStr::new(other)), None, "{other}");
    }
    for (packing, name) in
        [(None, "log.11"), (Some(Packing::Gzip), "log.11.gz"), (Some(Packing::Zstd), "log.11.zst")]
    {
        let eleven = Backup { index: 11, packing };
        assert_eq!(names.parse(OsStr::new(name)), Some(eleven));
        assert_eq!(names.backup(eleven), name);
    }
}
