//! The three classes of forked workers, by a program that has all of them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::deaths::address;
use crate::support::{Stage, eventually, let_pass};

pub(crate) const CLASSES: [&str; 3] = ["sync", "thread", "async"];

pub(crate) fn stage_of(class: &str) -> Stage {
    let mut stage = Stage::of(env!("CARGO_BIN_EXE_classes"), "classes");
    stage.variable("CLASS", class);
    stage
}

/// A client that says nothing yet.
pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream
}

/// A request that was sent.
pub(crate) struct Sent(BufReader<TcpStream>);

impl Sent {
    pub(crate) fn to(address: &str, line: &str) -> Self {
        Self::over(connect(address), line)
    }

    pub(crate) fn over(mut stream: TcpStream, line: &str) -> Self {
        writeln!(stream, "{line}").expect("a request");
        Self(BufReader::new(stream))
    }

    /// The answer; `None` if the connection ends without one.
    pub(crate) fn answer(mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).unwrap_or(0);
        (length > 0).then(|| line.trim_end().to_owned())
    }

    /// Whether there is neither an answer nor an end.
    pub(crate) fn waits(&mut self) -> bool {
        let stream = self.0.get_mut();
        stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
        let read = stream.read(&mut [0]);
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

pub(crate) fn ask(address: &str, line: &str) -> Option<String> {
    Sent::to(address, line).answer()
}

/// Of the only worker, as `ph status --json` says it.
fn number_of(stage: &Stage, key: &str) -> u64 {
    let status = stage.launch(&[], &["status", "-c", "config.ini", "--json"]);
    let number = stage.starts() - 1;
    assert_eq!(status.wait(), 0);
    let text = stage.read(&format!("stdout.{number}"));
    let (_, rest) = text.split_once(&format!("\"{key}\":")).expect("the key");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[test]
fn a_request_that_panics_or_fails_costs_its_connection_and_nothing_else() {
    for class in CLASSES {
        let stage = stage_of(class);
        for expected in ["panicked at", "a request of 127.0.0.1"] {
            stage.expect_error(expected);
        }
        let master = stage.start(&["bind=127.0.0.1:0"]);
        stage.log().wait_ready(1);
        let address = address(&stage.log());
        let worker = ask(&address, "pid");
        assert_eq!(ask(&address, "panic"), None, "{class}");
        assert_eq!(ask(&address, "fail"), None, "{class}");
        assert_eq!(ask(&address, "pid"), worker, "{class}");
        let panic = stage.log().wait_for("panicked at");
        assert!(panic.message.contains("as it was asked for"), "{}", panic.message);
        let frames = panic.message.matches("bin/classes.rs:").count();
        assert!(frames > 2, "a backtrace: {}", panic.message);
        eventually("the count", || (number_of(&stage, "requests") == 4).then_some(()));
        assert_eq!(number_of(&stage, "panics"), 1, "{class}");
        assert_eq!(master.stop(), 0);
    }
}

#[test]
fn what_is_queued_at_the_stop_is_answered() {
    for class in CLASSES {
        let stage = stage_of(class);
        let master = stage.start(&["bind=127.0.0.1:0", "threads=1", "worker_connections=1"]);
        stage.log().wait_ready(1);
        let address = address(&stage.log());
        assert!(ask(&address, "pid").is_some(), "{class}");
        let mut sent = vec![Sent::to(&address, "sleep 2000")];
        sent.extend((0..20).map(|_| Sent::to(&address, "sleep 20")));
        master.send(Signal::SIGTERM);
        for sent in sent {
            assert!(sent.answer().is_some(), "{class}");
        }
        assert_eq!(master.wait(), 0);
    }
}

#[test]
fn what_is_preloaded_once_is_there_in_every_worker() {
    for class in CLASSES {
        let stage = stage_of(class);
        let settings = ["bind=127.0.0.1:0", "number_workers=2", "min_uptime=0"];
        let master = stage.start(&[&settings[..], &["preload=true"]].concat());
        stage.log().wait_ready(2);
        let address = address(&stage.log());
        let by = master.process.0.to_string();
        assert_eq!(ask(&address, "preloaded").as_ref(), Some(&by), "{class}");
        master.send(Signal::SIGHUP);
        stage.log().wait_for("all workers are of generation 2");
        assert_eq!(ask(&address, "preloaded").as_ref(), Some(&by), "{class}");
        assert_eq!(master.stop(), 0);
        let stage = stage_of(class);
        let master = stage.start(&settings);
        stage.log().wait_ready(2);
        let address = crate::deaths::address(&stage.log());
        assert_eq!(ask(&address, "preloaded").as_deref(), Some("none"), "{class}");
        assert_eq!(master.stop(), 0);
    }
}

#[test]
fn what_cannot_be_preloaded_starts_nothing() {
    for (trouble, told) in [
        ("fail", "preload: as it was asked for"),
        ("panic", "preload: it panicked"),
        ("thread", "preload: it has started threads"),
    ] {
        let stage = stage_of("sync");
        stage.allow_error("panicked at");
        let trouble = format!("app_preload={trouble}");
        let master = stage.start(&["bind=127.0.0.1:0", "preload=true", &trouble]);
        let (code, stderr) = master.wait_with_stderr();
        assert!(code == 3 && stderr.contains(told), "{code} {stderr}");
        assert!(stderr.contains("set by --set preload"), "{stderr}");
        assert!(stage.log().with("master started").is_empty());
    }
}

#[test]
fn each_class_has_as_many_requests_at_a_time_as_it_is_for() {
    for (class, settings, at_a_time) in [
        ("sync", "number_workers=1", 1),
        ("thread", "threads=3", 3),
        ("async", "worker_connections=4", 4),
    ] {
        let stage = stage_of(class);
        let master = stage.start(&["bind=127.0.0.1:0", settings]);
        stage.log().wait_ready(1);
        let address = address(&stage.log());
        let mut long: Vec<_> = (1..at_a_time).map(|_| Sent::to(&address, "sleep 3000")).collect();
        assert!(ask(&address, "pid").is_some(), "{class}: there is room for one more");
        assert!(long.iter_mut().all(Sent::waits), "{class}: and these go on");
        long.push(Sent::to(&address, "sleep 3000"));
        let mut beyond = Sent::to(&address, "pid");
        let_pass(Duration::from_millis(500));
        assert!(beyond.waits(), "{class}: there is no room for more");
        assert!(beyond.answer().is_some(), "{class}: it comes in its turn");
        assert!(long.into_iter().all(|sent| sent.answer().is_some()), "{class}");
        assert_eq!(master.stop(), 0);
    }
}

#[test]
fn a_stop_finishes_what_runs() {
    for class in CLASSES {
        let stage = stage_of(class);
        let master = stage.start(&["bind=127.0.0.1:0", "threads=2"]);
        stage.log().wait_ready(1);
        let address = address(&stage.log());
        let mut running = Sent::to(&address, "sleep 1500");
        // It is not in the queue any more when it has been waited for.
        let_pass(Duration::from_millis(500));
        assert!(running.waits(), "{class}");
        master.send(Signal::SIGTERM);
        assert!(running.answer().is_some(), "{class}: it was cut off");
        assert_eq!(master.wait(), 0);
        assert!(stage.log().with("killing").is_empty(), "{class}");
        let stops =
            stage.log().with("stopped").into_iter().filter(|line| line.message == "stopped");
        assert_eq!(stops.count(), 1, "{class}: stop is called at last");
    }
}

/// The other thread is lively all the time, and has no heartbeat for the stuck one.
#[test]
fn who_is_stuck_is_seen_however_lively_others_are() {
    for class in CLASSES {
        let stage = stage_of(class);
        stage.expect_error("is stuck");
        let settings = ["bind=127.0.0.1:0", "threads=2", "timeout=1", "graceful_timeout=1"];
        let master = stage.start(&settings);
        stage.log().wait_ready(1);
        let address = address(&stage.log());
        let before = master.wait_workers(1)[0];
        let mut stuck = Sent::to(&address, "hang");
        eventually("its end", || {
            if class == "thread" && stage.log().with("is stuck").is_empty() {
                let _ = ask(&address, "pid");
            }
            (!stuck.waits()).then_some(())
        });
        stage.log().wait_for("is stuck");
        master.wait_replaced(before);
        assert!(ask(&address, "pid").is_some(), "{class}");
        assert_eq!(master.stop(), 0);
    }
}

/// With a beat between two waits, nobody that only waits counts as stuck.
#[test]
fn who_rests_or_waits_is_not_stuck() {
    for class in ["thread", "async"] {
        let stage = stage_of(class);
        let master = stage.start(&["bind=127.0.0.1:0", "threads=3", "timeout=1"]);
        stage.log().wait_ready(1);
        let address = address(&stage.log());
        let before = master.wait_workers(1);
        // On a runtime waiting is no work.
        let long = (class == "async").then(|| Sent::to(&address, "sleep 4000"));
        let_pass(Duration::from_secs(4));
        assert!(long.is_none_or(|sent| sent.answer().is_some()));
        assert_eq!(master.workers(), before, "{class}");
        assert_eq!(master.stop(), 0);
    }
}

#[test]
fn a_job_loop_without_a_socket_runs_in_all_of_them() {
    for class in CLASSES {
        let stage = stage_of(class);
        let master = stage.start(&["number_workers=2", "threads=2", "max_requests=20"]);
        stage.log().wait_for_count("turn", 8);
        stage.log().wait_for("served its share: replacing it");
        assert_eq!(master.stop(), 0);
    }
}

#[test]
fn a_class_that_the_program_has_not_is_refused() {
    for (class, wanted) in [("sync", "thread"), ("thread", "async"), ("async", "sync")] {
        let stage = stage_of(class);
        let setting = format!("worker_class={wanted}");
        let (code, stderr) = stage.start(&[&setting]).wait_with_stderr();
        assert_eq!(code, 6, "{stderr}");
        assert!(stderr.contains(&format!("the workers are of the class {class}")), "{stderr}");
        assert!(stderr.contains(&format!("try: worker_class = {class}")), "{stderr}");
    }
    // One thread is what `sync` is.
    let stage = stage_of("thread");
    let master = stage.start(&["worker_class=sync", "threads=4", "bind=127.0.0.1:0"]);
    stage.log().wait_ready(1);
    assert_eq!(
        master.wait_workers(1)[0].process.status_number("Threads"),
        1,
        "no thread is started"
    );
    assert!(!stage.log().with("threads has no effect").is_empty());
    assert_eq!(master.stop(), 0);
}
