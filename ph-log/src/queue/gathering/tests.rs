//! The order of lines, the sleep of the thread and the bound, step by step.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread;

use super::*;

/// A gathering and the messages that were sent.
#[derive(Default)]
struct Stage {
    gathering: Gathering,
    sent: RefCell<Vec<Vec<u8>>>,
}

impl Stage {
    fn push(&self, line: &[u8]) {
        let sent = self.gathering.push(line, |lines| {
            self.sent.borrow_mut().push(lines.to_vec());
            true
        });
        assert_eq!(sent, Ok(()));
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        self.sent.take()
    }

    fn taken(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.gathering.take(&mut bytes).then_some(bytes)
    }
}

#[test]
fn a_line_wakes_the_thread_and_those_behind_it_are_fetched() {
    let stage = Stage::default();
    stage.push(b"1\n");
    assert_eq!(stage.sent(), [b"1\n"]);
    stage.push(b"2\n");
    stage.push(b"3\n");
    assert!(stage.sent().is_empty(), "the thread comes by itself");
    assert_eq!(stage.taken(), None, "a message is before them");
    stage.push(b"4\n");
    assert!(stage.sent().is_empty(), "nor did it go to sleep over that");
    stage.gathering.receive();
    assert_eq!(stage.taken().as_deref(), Some(b"2\n3\n4\n".as_slice()));
    stage.push(b"5\n");
    assert!(stage.sent().is_empty());
    assert_eq!(stage.taken().as_deref(), Some(b"5\n".as_slice()));
    assert_eq!(stage.taken(), None);
    stage.push(b"6\n");
    assert_eq!(stage.sent(), [b"6\n"], "it had said that it sleeps");
}

#[test]
fn what_does_not_fit_sends_what_has_gathered() {
    let stage = Stage::default();
    stage.push(b"1\n");
    stage.gathering.receive();
    stage.sent();
    let line = vec![b'x'; BATCH_LIMIT / 2];
    stage.push(&line);
    stage.push(&line);
    assert!(stage.sent().is_empty(), "exactly a batch");
    stage.push(b"2\n");
    assert_eq!(stage.sent(), [[line.as_slice(), &line].concat()]);
    stage.gathering.receive();
    assert_eq!(stage.taken().as_deref(), Some(b"2\n".as_slice()));
}

#[test]
fn one_line_more_than_the_limit_waits_until_half_of_them_are_written() {
    let gathering = Arc::<Gathering>::default();
    for _ in 0..LINES_LIMIT {
        gathering.push(b"\n", |_| true).expect("taken");
    }
    let waiting = {
        let gathering = Arc::clone(&gathering);
        thread::spawn(move || gathering.push(b"last\n", |_| true))
    };
    while lock(&gathering.state).waiting == 0 {
        thread::yield_now();
    }
    gathering.settle(LINES_LIMIT - LINES_TO_GO_ON - 1);
    assert_eq!(lock(&gathering.state).waiting, 1);
    gathering.settle(1);
    assert_eq!(waiting.join().expect("no panic"), Ok(()));
    assert!(lock(&gathering.state).bytes.ends_with(b"last\n"));
}

#[test]
fn without_the_thread_nobody_waits_and_lines_are_given_back() {
    let gathering = Arc::<Gathering>::default();
    gathering.push(b"sent\n", |_| true).expect("taken");
    for _ in 1..LINES_LIMIT {
        gathering.push(b"\n", |_| true).expect("taken");
    }
    let waiting = {
        let gathering = Arc::clone(&gathering);
        thread::spawn(move || gathering.push(b"last\n", |_| true))
    };
    while lock(&gathering.state).waiting == 0 {
        thread::yield_now();
    }
    gathering.leave();
    let back = waiting.join().expect("no panic").expect_err("gone");
    assert_eq!(back.len() as u64, LINES_LIMIT - 1 + 5);
    assert!(back.ends_with(b"\nlast\n"));
    assert_eq!(gathering.push(b"2\n", |_| true), Err(b"2\n".to_vec()));
    // A message that cannot be sent tells it too.
    let gathering = Gathering::default();
    assert_eq!(gathering.push(b"1\n", |_| false), Err(b"1\n".to_vec()));
    assert_eq!(gathering.push(b"2\n", |_| true), Err(b"2\n".to_vec()));
}
