//! The clock by which days and hours of a log begin: UTC, or the local time of the machine.
//!
//! The zone is read once. A process that does not end for years therefore keeps to the rules it
//! was started under, and no write ever waits for a file of the system.

use std::env;
use std::error::Error;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use nix::fcntl::OFlag;
use tz::TimeZone;
use tz::timezone::{LocalTimeType, TimeZoneSettings, Transition};

const LOCAL: &str = "/etc/localtime";

/// No description of a zone is longer; the longest that is known has a few KiB.
const LENGTH_LIMIT: u64 = 1 << 20;

/// The clock of a rotation for age.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// None for UTC.
    zone: Option<Arc<TimeZone>>,
}

/// Why the local time is not known.
#[derive(Debug, thiserror::Error)]
#[error("cannot find out the local time from {origin}: {why}")]
pub struct ClockError {
    origin: String,
    why: String,
}

impl Clock {
    /// UTC, which knows no summer time.
    #[must_use]
    pub fn utc() -> Clock {
        Clock::default()
    }

    /// The local time: that of the variable TZ, or of `/etc/localtime` without it. As in the C
    /// library, an empty TZ is UTC, and so is a machine that has neither.
    ///
    /// # Errors
    ///
    /// The zone is unknown here, or its description cannot be read. Where that must not keep a
    /// program from running, [`Clock::utc`] is what the C library would take.
    ///
    /// # Examples
    ///
    /// ```
    /// let clock = ph_log::Clock::local().unwrap_or_else(|error| {
    ///     tracing::warn!("{error}; logs are rotated by UTC");
    ///     ph_log::Clock::utc()
    /// });
    /// # let _ = clock;
    /// ```
    pub fn local() -> Result<Clock, ClockError> {
        let Some(name) = env::var_os("TZ") else {
            return Clock::of_machine();
        };
        let name = name.to_str().ok_or_else(|| ClockError {
            origin: format!("TZ={name:?}"),
            why: "it is not UTF-8".to_owned(),
        })?;
        Clock::named(name)
    }

    fn of_machine() -> Result<Clock, ClockError> {
        let failed = |why: String| ClockError { origin: LOCAL.to_owned(), why };
        match read_bounded(LOCAL) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Clock::utc()),
            Err(error) => Err(failed(error.to_string())),
            Ok(bytes) => match TimeZone::from_tz_data(&bytes) {
                Ok(zone) => Ok(Clock::of(zone)),
                Err(error) => Err(failed(error.to_string())),
            },
        }
    }

    /// The clock a value of TZ names.
    fn named(name: &str) -> Result<Clock, ClockError> {
        let bare = name.strip_prefix(':').unwrap_or(name);
        if bare.is_empty() {
            return Ok(Clock::utc());
        }
        let settings = TimeZoneSettings::new(TimeZoneSettings::DEFAULT_DIRECTORIES, read_zone);
        let zone = settings.parse_posix_tz(name);
        zone.map(Clock::of)
            .map_err(|error| ClockError { origin: format!("TZ={name:?}"), why: error.to_string() })
    }

    pub(crate) fn of(zone: TimeZone) -> Clock {
        Clock { zone: Some(Arc::new(zone)) }
    }

    /// Seconds east of UTC at a moment, which is in seconds since 1970.
    pub(crate) fn offset(&self, at: u64) -> i32 {
        let Some(zone) = &self.zone else { return 0 };
        match zone.find_local_time_type(at.cast_signed()) {
            Ok(found) => found.ut_offset(),
            // Old descriptions end in 2037 and say of no rule for later: the last one stays.
            Err(_) => {
                let zone = zone.as_ref().as_ref();
                let last = zone.transitions().last();
                let last = last.map_or(0, Transition::local_time_type_index);
                zone.local_time_types().get(last).map_or(0, LocalTimeType::ut_offset)
            }
        }
    }
}

fn read_zone(path: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    Ok(read_bounded(path)?)
}

/// Reads a file that TZ may name: whatever stands there, it neither waits nor takes all memory.
fn read_bounded(path: &str) -> io::Result<Vec<u8>> {
    let how = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(how).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LENGTH_LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JANUARY: u64 = 1_768_000_000;
    const JULY: u64 = 1_784_000_000;

    fn offsets(name: &str) -> (i32, i32) {
        let clock = Clock::named(name).expect("a zone");
        (clock.offset(JANUARY), clock.offset(JULY))
    }

    #[test]
    fn a_zone_is_named_by_a_rule_a_file_or_nothing() {
        assert_eq!(offsets(""), (0, 0));
        assert_eq!(offsets(":"), (0, 0));
        assert_eq!(offsets("IST-5:30"), (19_800, 19_800));
        assert_eq!(offsets("CET-1CEST,M3.5.0,M10.5.0/3"), (3600, 7200));
        // A description of the first version ends with its last change, and so knows no rule.
        let bytes = [
            b"TZif\0".as_slice(),
            &[0; 15],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4],
            &1_000_000_i32.to_be_bytes(),
            &[0],
            &7200_i32.to_be_bytes(),
            &[0, 0],
            b"ABC\0",
        ]
        .concat();
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("a file");
        let path = file.path().to_str().expect("UTF-8").to_owned();
        assert_eq!(offsets(&path), (7200, 7200));
        assert_eq!(offsets(&format!(":{path}")), (7200, 7200));
    }

    #[test]
    fn what_is_no_zone_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let fifo = format!(":{}", fifo.display());
        for name in ["Nowhere/Atlantis", ":/dev/zero", "/", "5", &fifo] {
            let error = Clock::named(name).expect_err(name).to_string();
            assert!(error.contains(&format!("TZ={name:?}: ")), "{error}");
        }
    }
}
