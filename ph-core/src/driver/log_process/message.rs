//! What master and log process say to each other, byte by byte. Both are the same program, so there is
//! no version: a successor has a log process of its own.

use std::os::fd::OwnedFd;

use super::LogOrder;
use crate::worker::{LogOrigin, LogSource, OutputStream};

/// The most numbers of sources in one message of the log process.
pub(super) const ENDED_MAX: usize = 64;

/// The longest name of a helper that is passed on, in bytes.
const NAME_LIMIT: usize = 64;

// The first byte of a message.
const SOURCE: u8 = b's';
pub(super) const REOPEN: u8 = b'r';
pub(super) const FINISH: u8 = b'f';
pub(super) const RENEW: u8 = b'n';

/// A source: what, whose, which output, and the numbers in their order; a helper's name follows.
const SOURCE_LENGTH: usize = 3 + 8 + 3 * 4;

pub(super) const MESSAGE_LIMIT: usize = SOURCE_LENGTH + NAME_LIMIT;

pub(super) fn message_of(source: &LogSource) -> Vec<u8> {
    let code = |stream| match stream {
        OutputStream::Stdout => 1,
        OutputStream::Stderr => 2,
        OutputStream::Records => 3,
    };
    let (whose, stream, numbers, name) = match &source.origin {
        LogOrigin::Master => (b'm', 0, [0; 3], ""),
        LogOrigin::Worker { slot, generation, pid, stream } => {
            (b'w', code(*stream), [*slot, *generation, *pid], "")
        }
        LogOrigin::Helper { name, pid, stream } => (b'h', code(*stream), [0, 0, *pid], &**name),
    };
    let mut message = vec![SOURCE, whose, stream];
    message.extend(source.id.to_le_bytes());
    message.extend(numbers.map(u32::to_le_bytes).as_flattened());
    message.extend(&name.as_bytes()[..name.floor_char_boundary(NAME_LIMIT)]);
    message
}

/// Whether it is about a source.
pub(super) fn is_source(message: &[u8]) -> bool {
    message.first() == Some(&SOURCE)
}

/// `None` for what no master of this program sends.
pub(super) fn parse(message: &[u8], pipe: Option<OwnedFd>) -> Option<LogOrder> {
    match message {
        [REOPEN] => return Some(LogOrder::Reopen),
        [FINISH] => return Some(LogOrder::Finish),
        [RENEW] => return Some(LogOrder::Renew),
        _ => {}
    }
    let (head, name) = message.split_at_checked(SOURCE_LENGTH)?;
    let [SOURCE, whose, stream, numbers @ ..] = head else { return None };
    let stream = match stream {
        2 => OutputStream::Stderr,
        3 => OutputStream::Records,
        _ => OutputStream::Stdout,
    };
    let (id, numbers) = numbers.split_first_chunk::<8>()?;
    let (numbers, _) = numbers.as_chunks::<4>();
    let [slot, generation, pid] = numbers else { return None };
    let number = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
    let (slot, generation, pid) = (number(slot), number(generation), number(pid));
    let origin = match whose {
        b'm' => LogOrigin::Master,
        b'w' => LogOrigin::Worker { slot, generation, pid, stream },
        _ => LogOrigin::Helper { name: String::from_utf8_lossy(name).into_owned(), pid, stream },
    };
    Some(LogOrder::Source(LogSource { id: u64::from_le_bytes(*id), pipe: pipe?, origin }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fds;

    fn source(id: u64, origin: LogOrigin) -> LogSource {
        LogSource { id, pipe: fds::dev_null().unwrap(), origin }
    }

    #[test]
    fn a_source_arrives_as_it_was_sent() {
        let (slot, generation, pid) = (3, 2, u32::MAX);
        let name = "é".repeat(NAME_LIMIT);
        for stream in [OutputStream::Stdout, OutputStream::Stderr, OutputStream::Records] {
            let worker = LogOrigin::Worker { slot, generation, pid, stream };
            let helper = LogOrigin::Helper { name: "probe".to_owned(), pid, stream };
            for origin in [LogOrigin::Master, worker, helper] {
                let sent = source(u64::MAX, origin.clone());
                let order = parse(&message_of(&sent), Some(fds::dev_null().unwrap()));
                let Some(LogOrder::Source(came)) = order else { panic!("a source") };
                assert_eq!((came.id, came.origin), (u64::MAX, origin));
            }
            let long = source(1, LogOrigin::Helper { name: name.clone(), pid, stream });
            assert!(message_of(&long).len() <= MESSAGE_LIMIT);
        }
        assert!(parse(b"s", None).is_none() && parse(b"", None).is_none());
    }
}
