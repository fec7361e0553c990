//! A status as a table, for eyes: one line for the service, one for each of its workers.

use std::fmt::Write as _;

use ph_config::Escaped;
use ph_core::control::{ExitReason, LastExit, Service, ServiceState, Worker, WorkerState};

use super::gather::{Condition, Report, Row};

/// The heads of the columns, their least widths, and whether they are flush right.
const COLUMNS: [(&str, usize, bool); 10] = [
    ("SLOT", 4, true),
    ("STATE", 8, false),
    ("PID", 4, true),
    ("GEN", 3, true),
    ("UP", 6, false),
    ("REQUESTS", 8, true),
    ("CPU", 4, true),
    ("MEM", 5, true),
    ("RESTARTS", 8, true),
    ("LAST EXIT", 0, false),
];

/// All services, one below the other.
pub(super) fn tables(reports: &[Report], is_coloured: bool, has_notes: bool) -> String {
    let mut text = String::new();
    for (index, report) in reports.iter().enumerate() {
        if index > 0 && !reports[index - 1].workers.is_empty() {
            text.push('\n');
        }
        table(&mut text, report, is_coloured, has_notes);
    }
    text
}

fn table(text: &mut String, report: &Report, is_coloured: bool, has_notes: bool) {
    let (state, colour) = state_of(report);
    let mut name = report.name.clone();
    if report.instance > 1 {
        // Writing to a String cannot fail.
        let _ = write!(name, "@{}", report.instance);
    }
    let mut words = vec![Escaped(&name).to_string(), painted(state, colour, is_coloured)];
    if let Some(service) = &report.service {
        words.push(format!("{}/{} ready", service.ready, service.target));
        words.push(format!("gen {}", service.generation));
        words.push(format!("master {}", service.master_pid));
        words.push(format!("up {}", span(service.uptime_s)));
    }
    let config = report.config.as_ref().map(|path| path.to_string_lossy().into_owned());
    words.extend(config.map(|path| Escaped(&path).to_string()));
    text.push_str(&words.join("   "));
    text.push('\n');
    if !report.workers.is_empty() {
        rows(text, &report.workers, is_coloured);
    }
    for note in report.service.iter().filter(|_| has_notes).flat_map(notes) {
        let _ = writeln!(text, "! {}", Escaped(&note));
    }
}

fn rows(text: &mut String, workers: &[Row], is_coloured: bool) {
    let cells: Vec<_> = workers.iter().map(cells).collect();
    let mut widths = COLUMNS.map(|(head, least, _)| least.max(head.len()));
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heads = COLUMNS.map(|(head, _, _)| head.to_owned());
    line(text, &heads, &widths, None);
    for (row, cells) in workers.iter().zip(&cells) {
        line(text, cells, &widths, Some(colour(row.worker.state)).filter(|_| is_coloured));
    }
}

/// One line; the colour is that of the state.
fn line(text: &mut String, cells: &[String; 10], widths: &[usize; 10], colour: Option<&str>) {
    let mut line = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let (_, _, is_right) = COLUMNS[index];
        let fill = " ".repeat(width.saturating_sub(cell.chars().count()));
        let cell = painted(cell, colour.unwrap_or(""), index == 1 && colour.is_some());
        let (before, after) = if is_right { (fill, String::new()) } else { (String::new(), fill) };
        let _ = write!(line, "  {before}{cell}{after}");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

fn cells(row: &Row) -> [String; 10] {
    let worker = &row.worker;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        worker.slot.to_string(),
        state_name(worker.state).to_owned(),
        or_dash(worker.pid.map(|pid| pid.to_string())),
        worker.generation.to_string(),
        or_dash(worker.uptime_s.map(span)),
        or_dash(worker.requests.map(grouped)),
        or_dash(row.cpu_percent.map(|percent| format!("{percent:.0}%"))),
        or_dash(row.rss_bytes.map(size)),
        grouped(worker.restarts),
        past(worker),
    ]
}

/// What happened last to the slot, or what is about to.
fn past(worker: &Worker) -> String {
    let last = worker.last_exit.as_ref();
    match (worker.asked_s, worker.kill_in_s, worker.next_in_s) {
        (Some(asked), Some(kill_in), _) => {
            format!("asked {} ago, killed in {}", span(asked), span(kill_in))
        }
        (_, _, Some(next_in)) => {
            let how = last.map_or_else(|| "waiting".to_owned(), |exit| how(exit, worker.recycled));
            format!("{how}, next in {}", span(next_in))
        }
        _ => last.map_or_else(
            || "-".to_owned(),
            |exit| format!("{}, {} ago", how(exit, worker.recycled), span(exit.ago_s)),
        ),
    }
}

fn how(exit: &LastExit, recycled: u64) -> String {
    let way = match (&exit.signal, exit.code) {
        (Some(signal), _) => signal.clone(),
        (None, Some(code)) => format!("exit {code}"),
        (None, None) => "not started".to_owned(),
    };
    let why = match exit.reason {
        ExitReason::Recycled if recycled > 1 => {
            return format!("{way} (recycled, {} times)", grouped(recycled));
        }
        ExitReason::Stuck => " (stuck)",
        ExitReason::BootTimeout => " (did not boot)",
        ExitReason::Recycled => " (recycled)",
        ExitReason::Reloaded => " (reloaded)",
        ExitReason::RolledBack => " (rolled back)",
        ExitReason::Drained => " (drained)",
        ExitReason::ScaleDown => " (scaled down)",
        ExitReason::Exited
        | ExitReason::Crashed
        | ExitReason::NotStarted
        | ExitReason::Shutdown
        | ExitReason::Other => "",
    };
    format!("{way}{why}")
}

/// What somebody should know at a look.
fn notes(service: &Service) -> Vec<String> {
    let mut notes = Vec::new();
    if service.crash_loop {
        notes.push("workers keep dying and are started more and more slowly".to_owned());
    }
    notes.extend(service.last_error.clone().map(|error| format!("last error: {error}")));
    notes
}

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";

fn state_of(report: &Report) -> (&'static str, &'static str) {
    match report.condition {
        Condition::Ready => ("running", GREEN),
        Condition::Degraded => match report.service.as_ref().map(|it| it.state) {
            Some(ServiceState::Stopping) => ("stopping", YELLOW),
            Some(ServiceState::Drained) => ("drained until the next reload", YELLOW),
            Some(ServiceState::Running) | None => ("running", YELLOW),
        },
        Condition::NotRunning => ("not running", ""),
        Condition::Dead => ("dead", RED),
        Condition::DeadLocked => ("dead, its lock is held", RED),
        Condition::Unknown => ("unknown", RED),
    }
}

fn state_name(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Booting => "booting",
        WorkerState::Ready => "ready",
        WorkerState::Stopping => "stopping",
        WorkerState::Killed => "killed",
        WorkerState::Backoff => "backoff",
        WorkerState::Failed => "failed",
        WorkerState::Finished => "finished",
    }
}

fn colour(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Ready => GREEN,
        WorkerState::Booting | WorkerState::Stopping => YELLOW,
        WorkerState::Killed | WorkerState::Backoff | WorkerState::Failed => RED,
        WorkerState::Finished => "",
    }
}

fn painted(text: &str, colour: &str, is_coloured: bool) -> String {
    match is_coloured && !colour.is_empty() {
        true => format!("{colour}{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

/// Two units at most: `3d 04h`.
fn span(seconds: f64) -> String {
    let seconds = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, minutes) => format!("{hours}h {:02}m", minutes % 60),
        (days, hours, _) => format!("{days}d {:02}h", hours % 24),
    }
}

/// Thousands apart: `80 211`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let parts: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    let parts: Vec<_> = parts.into_iter().map(|part| String::from_utf8_lossy(part)).collect();
    parts.join(" ")
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{}K", bytes >> 10),
        1_048_576..10_737_418_240 => format!("{}M", bytes >> 20),
        _ => format!("{}G", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(slot: u32, pid: Option<u32>, state: WorkerState) -> Worker {
        Worker {
            slot,
            pid,
            state,
            generation: 3,
            uptime_s: pid.map(|_| 12.0),
            requests: pid.map(|_| 48),
            panics: None,
            restarts: 0,
            recycled: 0,
            last_exit: None,
            asked_s: None,
            kill_in_s: None,
            next_in_s: None,
            crash_loop: false,
        }
    }

    fn report() -> Report {
        let exit = LastExit {
            code: None,
            signal: Some("SIGSEGV".to_owned()),
            core: false,
            uptime_s: 9.0,
            ago_s: 301.0,
            reason: ExitReason::Crashed,
        };
        let first = worker(0, Some(9001), WorkerState::Ready);
        let first = Worker { restarts: 2, last_exit: Some(exit.clone()), ..first };
        let second = Worker {
            uptime_s: Some(273_601.0),
            requests: Some(80_211),
            asked_s: Some(2.0),
            kill_in_s: Some(28.0),
            ..worker(1, Some(4130), WorkerState::Stopping)
        };
        let exit = LastExit { signal: None, code: Some(3), ..exit };
        let third = Worker {
            next_in_s: Some(4.2),
            last_exit: Some(exit),
            restarts: 1234,
            ..worker(2, None, WorkerState::Backoff)
        };
        let service = Service {
            name: "jobexecute".to_owned(),
            instance: 1,
            state: ServiceState::Running,
            target: 3,
            ready: 1,
            generation: 3,
            master_pid: 4121,
            uptime_s: 273_600.1,
            crash_loop: true,
            last_error: Some("worker 2 is in a crash loop\x1b".to_owned()),
            listeners: vec!["tcp://0.0.0.0:8000".to_owned()],
            reloads: ph_core::control::Reloads::default(),
            log: None,
            made_from: None,
        };
        let row = |worker, cpu, mem| Row { worker, cpu_percent: cpu, rss_bytes: mem };
        Report {
            name: "jobexecute".to_owned(),
            instance: 1,
            config: Some("conf/config.ini".into()),
            condition: Condition::Degraded,
            why: None,
            service: Some(service),
            workers: vec![
                row(first, Some(3.1), Some(42_991_616)),
                row(second, Some(0.0), Some(92_274_688)),
                row(third, None, None),
            ],
        }
    }

    #[test]
    fn a_slot_that_is_recycled_again_and_again_is_seen() {
        let exit = LastExit {
            code: Some(0),
            signal: None,
            core: false,
            uptime_s: 1.0,
            ago_s: 2.0,
            reason: ExitReason::Recycled,
        };
        let once =
            Worker { recycled: 1, last_exit: Some(exit), ..worker(0, None, WorkerState::Ready) };
        assert_eq!(past(&once), "exit 0 (recycled), 2s ago");
        let often = Worker { recycled: 1200, ..once };
        assert_eq!(past(&often), "exit 0 (recycled, 1 200 times), 2s ago");
    }

    #[test]
    fn a_table_reads_as_in_the_manual() {
        let table = tables(&[report()], false, false);
        let wanted = "\
jobexecute   running   1/3 ready   gen 3   master 4121   up 3d 04h   conf/config.ini
  SLOT  STATE      PID  GEN  UP      REQUESTS   CPU    MEM  RESTARTS  LAST EXIT
     0  ready     9001    3  12s           48    3%    41M         2  SIGSEGV, 5m ago
     1  stopping  4130    3  3d 04h    80 211    0%    88M         0  asked 2s ago, killed in 28s
     2  backoff      -    3  -              -     -      -     1 234  exit 3, next in 4s
";
        assert_eq!(table, wanted);
    }

    #[test]
    fn colours_and_notes_are_for_terminals() {
        let table = tables(&[report()], true, true);
        assert!(table.contains("   \x1b[33mrunning\x1b[0m   1/3"), "{table}");
        assert!(table.contains("  \x1b[32mready\x1b[0m     9001"), "{table}");
        assert!(table.contains("\n! last error: worker 2 is in a crash loop\\u{1b}\n"), "{table}");
    }

    #[test]
    fn a_service_without_a_master_is_one_line() {
        let report = || Report {
            condition: Condition::NotRunning,
            service: None,
            workers: Vec::new(),
            instance: 2,
            ..report()
        };
        let table = tables(&[report(), report()], false, true);
        assert_eq!(table, "jobexecute@2   not running   conf/config.ini\n".repeat(2));
    }

    #[test]
    fn the_json_has_the_keys_of_the_manual() {
        let json = super::super::json::services(&[report()]);
        let service = &json["services"][0];
        for key in [
            "name",
            "state",
            "target",
            "ready",
            "generation",
            "master_pid",
            "uptime_s",
            "config",
            "crash_loop",
            "last_error",
            "listeners",
            "reloads",
            "log",
            "workers",
        ] {
            assert!(service.get(key).is_some(), "{key}");
        }
        let worker = &service["workers"][0];
        for key in [
            "slot",
            "pid",
            "state",
            "generation",
            "uptime_s",
            "requests",
            "cpu_percent",
            "rss_bytes",
            "restarts",
            "last_exit",
        ] {
            assert!(worker.get(key).is_some(), "{key}");
        }
        assert_eq!(json["schema"], 1);
        assert_eq!(worker["last_exit"]["signal"], "SIGSEGV");
        assert_eq!(worker["last_exit"]["reason"], "crashed");
        assert_eq!(worker["state"], "ready");
    }

    #[test]
    fn spans_and_sizes_are_short() {
        let spans = [0.4, 59.9, 61.0, 7260.0, 90_000.0, -1.0].map(span);
        assert_eq!(spans, ["0s", "59s", "1m", "2h 01m", "1d 01h", "0s"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
        assert_eq!([1024, 43 << 20, 99 << 30].map(size), ["1K", "43M", "99G"]);
    }
}
