//! How listening sockets are made.

use std::fmt;
use std::time::Duration;

use super::identity::octal;
use super::number::{DURATION, parse_duration, whole};
use super::{Folders, Kind, Schema, Shape, ValueError, parse_boolean};

/// What the kernel takes as a number of connections.
const MAX_BACKLOG: u64 = i32::MAX as u64;
/// The longest idle time that the kernel takes, in seconds.
const MAX_IDLE: u64 = 32_767;

pub(crate) const BACKLOG: Kind<u32> = Kind {
    name: "whole number from 1",
    shape: Shape::Line,
    schema: Schema::Integer { least: 1, most: MAX_BACKLOG, word: None },
    parse: |text, _| whole(text, 1, MAX_BACKLOG).map(|it| u32::try_from(it).unwrap_or(u32::MAX)),
    write: u32::to_string,
};

pub(crate) const SOCKET_MODE: Kind<u32> = Kind {
    name: "octal number from 0 to 777",
    shape: Shape::Line,
    schema: Schema::Octal { most: 0o777 },
    parse: |text, _| octal(text, "0660 or 0o660"),
    write: |mode| format!("{mode:04o}"),
};

pub(crate) const KEEPALIVE: Kind<KeepAlive> = Kind {
    name: "on, off or duration from 1s",
    shape: Shape::Line,
    schema: Schema::SwitchOrDuration,
    parse: keepalive,
    write: KeepAlive::to_string,
};

/// When an idle TCP connection is asked whether the client is still there: `keepalive`.
///
/// Prints in the form it is written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// Never.
    Off,
    /// After the time the system has for it.
    On,
    /// After this time, of whole seconds.
    After(Duration),
}

impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::On => f.write_str("on"),
            Self::After(idle) => f.write_str(&(DURATION.write)(idle)),
        }
    }
}

/// A bare number is seconds here, also 0 and 1, and so is no switch; but never asking is what 0 says.
fn keepalive(text: &str, _: &Folders) -> Result<KeepAlive, ValueError> {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphabetic());
    if let Ok(is_on) = parse_boolean(text)
        && is_word
    {
        return Ok(if is_on { KeepAlive::On } else { KeepAlive::Off });
    }
    match parse_duration(text) {
        Ok(Duration::ZERO) => Ok(KeepAlive::Off),
        Ok(idle) if idle.subsec_nanos() == 0 && idle.as_secs() <= MAX_IDLE => {
            Ok(KeepAlive::After(idle))
        }
        Ok(_) | Err(_) => Err(ValueError::new(
            format!("on, off or whole seconds from 1 to {MAX_IDLE}"),
            "write on for the system's own time, or for example 60s",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalive_is_a_switch_or_a_time() {
        let read = |text| keepalive(text, &Folders::default());
        let after = |seconds| Ok(KeepAlive::After(Duration::from_secs(seconds)));
        for (text, wanted) in [
            ("off", Ok(KeepAlive::Off)),
            ("False", Ok(KeepAlive::Off)),
            ("0", Ok(KeepAlive::Off)),
            ("on", Ok(KeepAlive::On)),
            ("true", Ok(KeepAlive::On)),
            ("1", after(1)),
            ("2m", after(120)),
            ("32767", after(32_767)),
        ] {
            assert_eq!(read(text), wanted, "{text}");
        }
        for bad in ["", "1.5", "500ms", "32768", "often", "-1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_queue_has_a_place() {
        let read = |text| (BACKLOG.parse)(text, &Folders::default());
        assert_eq!(read("2048"), Ok(2048));
        assert_eq!(read("2147483647"), Ok(2_147_483_647));
        assert!(read("0").is_err() && read("2147483648").is_err());
    }

    #[test]
    fn modes_are_octal() {
        let read = |text| (SOCKET_MODE.parse)(text, &Folders::default());
        assert_eq!(read("660"), Ok(0o660));
        assert_eq!((SOCKET_MODE.write)(&0o66), "0066");
        assert!(read("1777").is_err() && read("0888").is_err());
    }
}
