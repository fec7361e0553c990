//! The canonical text of any value parses as the same value, for every kind.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;

/// Writes, trims as a load does, reads.
fn check<T: Debug + PartialEq>(kinds: &[Kind<T>], value: &T) -> Result<(), TestCaseError> {
    for kind in kinds {
        let text = (kind.write)(value);
        let read = (kind.parse)(text.trim(), &Folders::default());
        prop_assert_eq!(read.as_ref(), Ok(value), "{}: {:?}", kind.name, text);
    }
    Ok(())
}

fn duration() -> impl Strategy<Value = Duration> {
    let unit = proptest::sample::select(vec![1, 1_000_000, 1_000_000_000, 60_000_000_000]);
    (0_u64..100_000, unit).prop_map(|(count, nanos)| Duration::from_nanos(count * nanos))
}

/// An absolute path without the commas that lists cannot hold.
fn path() -> impl Strategy<Value = PathBuf> {
    vec("[^/,\0\r\n]{0,5}[^/,\\s\0\\.]", 1..4).prop_map(|names| {
        let text = names.iter().map(|name| format!("/{name}")).collect::<String>();
        clean(text.as_ref())
    })
}

fn id() -> impl Strategy<Value = Id> {
    let number = (0..u32::MAX).prop_map(Id::Number);
    prop_oneof![number, "[a-zé_$\\\\][a-z0-9é_$-]{0,9}".prop_map(Id::Name)]
}

fn limit(most: u64) -> impl Strategy<Value = Option<Rlimit>> {
    let part = move || {
        let round = (0_u64..1 << 20, 0_u32..44).prop_map(move |(n, shift)| (n << shift).min(most));
        prop::option::of(prop_oneof![0..=most, round])
    };
    let limit = (part(), part()).prop_map(|(one, other)| {
        // None is above every number, and a soft limit not above its hard one.
        let above = one.unwrap_or(u64::MAX) > other.unwrap_or(u64::MAX);
        let (soft, hard) = if above { (other, one) } else { (one, other) };
        Rlimit { soft, hard }
    });
    prop::option::of(limit)
}

fn bind() -> impl Strategy<Value = Bind> {
    let host = prop_oneof!["[a-z0-9._-]{1,9}", Just("::1".into()), Just("fe80::1%eth0".into())];
    let tcp = (prop::option::of(host), any::<u16>());
    prop_oneof![
        tcp.prop_map(|(host, port)| Bind::Tcp { host, port }),
        path().prop_map(Bind::Unix),
        (3..65_536_u32).prop_map(Bind::Descriptor),
        "[a-z0-9._-]{1,9}".prop_map(Bind::Named),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn durations(time in duration()) {
        check(&[DURATION], &time)?;
        check(&[OPTIONAL_DURATION], &Some(time))?;
        if !time.is_zero() {
            check(&[DURATION_ABOVE_ZERO], &time)?;
        }
    }

    #[test]
    fn numbers(
        (switch, small, large, workers) in (any::<bool>(), any::<u32>(), any::<u64>(), 1..65_537_u32),
        (nice, score, mask, share) in (-20..20, -1000..1001, 0..0o1000_u32, 0..101_u8),
    ) {
        check(&[BOOLEAN], &switch)?;
        check(&[OPTIONAL_BOOLEAN], &Some(switch))?;
        check(&[SIZE], &large)?;
        check(&[LINE_SIZE], &(256 + u64::from(share) * 640))?;
        check(&[COUNT], &small)?;
        check(&[COUNT_U64], &large)?;
        check(&[WORKER_LIMIT], &workers)?;
        check(&[WORKER_COUNT], &WorkerCount::Fixed(workers))?;
        check(&[AMOUNT], &Amount::Count(small))?;
        check(&[AMOUNT], &Amount::Percent(share))?;
        check(&[NICE], &Some(nice))?;
        check(&[OOM_SCORE], &Some(score))?;
        check(&[UMASK, SOCKET_MODE], &mask)?;
        check(&[BACKLOG], &(small / 2).max(1))?;
        check(&[KEEPALIVE], &KeepAlive::After(Duration::from_secs(u64::from(mask) + 1)))?;
    }

    #[test]
    fn sizes(number in any::<u64>(), shift in 0..64_u32) {
        for bytes in [number, number << shift] {
            prop_assert_eq!(parse_size(&number::write_size(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn limits(
        any in limit(u64::MAX - 1),
        seconds in limit(86_400 * 365_000),
        nice in limit(40),
        priority in limit(99),
    ) {
        check(&[LIMIT_SIZE, LIMIT_COUNT, LIMIT_MICROSECONDS], &any)?;
        check(&[LIMIT_SECONDS], &seconds)?;
        check(&[LIMIT_NICE], &nice)?;
        check(&[LIMIT_PRIORITY], &priority)?;
    }

    #[test]
    fn cpus(cpus in btree_set(0..1024_u16, 1..20), run in 0..1020_u16) {
        let list = |cpus: Vec<u16>| Some(CpuAffinity::List(cpus));
        check(&[CPUS], &list(cpus.into_iter().collect()))?;
        check(&[CPUS], &list((run..run + 4).collect()))?;
    }

    #[test]
    fn paths(path in path()) {
        check(&[BASE_PATH, FOLDER, FILE], &path)?;
        check(&[OPTIONAL_FOLDER, OPTIONAL_FILE], &Some(path.clone()))?;
        check(&[LOG_TARGET], &LogTarget::File(path.clone()))?;
        check(&[CONTROL_SOCKET], &ControlTarget::File(path))?;
    }

    #[test]
    fn identities(user in id(), group in prop::option::of(id())) {
        check(&[GROUP], &group)?;
        let allowed = group.iter().cloned().map(Allow::Group).chain([Allow::User(user.clone())]);
        check(&[ALLOWED], &allowed.filter(|it| !it.to_string().contains(',')).collect())?;
        check(&[USER], &Some(UserSpec { user, group }))?;
    }

    #[test]
    fn lists(
        binds in vec(bind(), 0..5),
        files in vec((path(), any::<bool>()), 0..5),
        name in "[A-Za-z0-9._-]{1,64}",
    ) {
        let mut different: Vec<Bind> = Vec::new();
        for bind in binds {
            if !different.contains(&bind) {
                different.push(bind);
            }
        }
        check(&[ADDRESSES], &different)?;
        let files = files.into_iter().map(|(path, optional)| EnvFile { path, optional });
        check(&[ENV_FILES], &files.collect())?;
        check(&[NAME], &name)?;
        check(&[SECTIONS], &vec![name.clone()])?;
    }

    #[test]
    fn commands(words in vec("([^\0]|[%'\"\\\\ #\n;()]){1,8}", 0..5)) {
        check(&[COMMAND], &words)?;
    }

    #[test]
    fn variables(all in btree_map("[A-Z_][A-Z0-9_]{0,5}", "([^\0]|[,='\"\\\\ #\n;%]){0,8}", 0..5)) {
        let reserved = |name: &str| check_variable(name, "").is_err();
        check(&[ENVIRONMENT], &all.into_iter().filter(|(name, _)| !reserved(name)).collect())?;
    }
}

#[test]
fn words_and_what_is_not_set() {
    let all = || -> Result<(), TestCaseError> {
        StopSignal::ALL.iter().try_for_each(|word| check(&[STOP_SIGNAL], word))?;
        AbortSignal::ALL.iter().try_for_each(|word| check(&[ABORT_SIGNAL], word))?;
        KillMode::ALL.iter().try_for_each(|word| check(&[KILL_MODE], word))?;
        LogLevel::ALL.iter().try_for_each(|word| check(&[LOG_LEVEL], word))?;
        ExtraKeys::ALL.iter().try_for_each(|word| check(&[EXTRA_KEYS], word))?;
        LogFormat::ALL.iter().try_for_each(|word| check(&[LOG_FORMAT], word))?;
        LogRotate::ALL.iter().try_for_each(|word| check(&[LOG_ROTATE], word))?;
        LogCompress::ALL.iter().try_for_each(|word| check(&[LOG_COMPRESS], word))?;
        LogOverflow::ALL.iter().try_for_each(|word| check(&[LOG_OVERFLOW], word))?;
        check(&[OPTIONAL_BOOLEAN], &None)?;
        check(&[KEEPALIVE], &KeepAlive::On)?;
        check(&[KEEPALIVE], &KeepAlive::Off)?;
        check(&[WORKER_COUNT], &WorkerCount::Auto)?;
        check(&[CPUS], &Some(CpuAffinity::Spread))?;
        check(&[LOG_TARGET], &LogTarget::Stderr)?;
        check(&[CONTROL_SOCKET], &ControlTarget::BesidePidfile)?;
        check(&[CONTROL_SOCKET], &ControlTarget::Off)?;
        check(&[OPTIONAL_DURATION], &None)?;
        check(&[NICE, OOM_SCORE], &None)?;
        check(&[OPTIONAL_FOLDER, OPTIONAL_FILE], &None)?;
        check(&[CPUS], &None)?;
        check(&[USER], &None)
    };
    all().expect("each comes back");
}

#[test]
fn canonical_texts() {
    let text = |text: &str| {
        let time = parse_duration(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        (DURATION.write)(&time)
    };
    for (given, canonical) in [
        ("0", "0s"),
        ("30", "30s"),
        ("0.5", "500ms"),
        ("90", "90s"),
        ("1.5m", "90s"),
        ("60s", "1m"),
        ("3600", "1h"),
        ("86400000ms", "1d"),
        ("1.5ms", "0.0015s"),
        ("0.000000001", "0.000000001s"),
    ] {
        assert_eq!(text(given), canonical, "{given}");
    }
    let sizes = [0, 1, 1023, 1024, 1536, 50 << 20, 3 << 30, 1 << 50].map(number::write_size);
    assert_eq!(sizes, ["0", "1", "1023", "1KB", "1536", "50MB", "3GB", "1024TB"]);
}
