//! One writer of a log: `bench-log WAY WRITER LINES FOLDER BATCH MAX_SIZE STEP`.
//!
//! It opens the log, stamps that it is ready, waits for the end of its input, writes so many numbered
//! lines of a hundred bytes into `log` of the folder, and ends. `BATCH` is the most bytes of a write,
//! 1 for a line a write. Lines that get a head are shorter by that.
//!
//! | way | the lines go |
//! |---|---|
//! | `plain` | into a file in append mode, which nobody rotates |
//! | `rotating` | into a `ph_log::RotatingFile`; with a `STEP` the process kills itself at that step of a rotation |
//! | `tracing` | through `tracing` and `ph_log`, as in a worker |
//! | `appender` | through `tracing` and `tracing_appender`, whose file is written to directly |
//! | `print` | to the standard output |
//! | `stay` | the same; at their end it stamps once more and waits for a signal |

#![expect(clippy::print_stderr, reason = "that is how it fails")]

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, raise};
use ph_log::{
    Format, Level, LogOptions, RotateLimits, RotateOptions, RotatingFile, Step, Target, Written,
};
use xtask::{NumberedLine, Stamp, open_stamps};

/// Bytes of a line with its head and its end.
const LENGTH: usize = 100;
/// `2026-11-23T08:00:00.123Z INFO bench[12345] worker 3 gen 1: `.
const HEAD: usize = 59;

static REOPEN: AtomicU32 = AtomicU32::new(0);
/// The step at which this process is to die, by its place in `STEPS`.
static DEADLY: AtomicU32 = AtomicU32::new(u32::MAX);

const STEPS: [Step; 7] = [
    Step::Make,
    Step::Declare,
    Step::Shift,
    Step::Retire,
    Step::Install,
    Step::Prune,
    Step::Settle,
];

struct Job {
    way: String,
    writer: usize,
    lines: usize,
    folder: PathBuf,
    batch: usize,
    max_size: u64,
    step: u32,
}

fn main() -> ExitCode {
    let Some(job) = Job::read() else {
        eprintln!("bench-log: expected WAY WRITER LINES FOLDER BATCH MAX_SIZE STEP");
        return ExitCode::from(2);
    };
    match job.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-log {} {}: {error}", job.way, job.writer);
            ExitCode::FAILURE
        }
    }
}

impl Job {
    fn read() -> Option<Job> {
        let mut arguments = std::env::args().skip(1);
        let mut next = || arguments.next();
        Some(Job {
            way: next()?,
            writer: next()?.parse().ok()?,
            lines: next()?.parse().ok()?,
            folder: next()?.into(),
            batch: next()?.parse().ok()?,
            max_size: next()?.parse().ok()?,
            step: next()?.parse().ok()?,
        })
    }

    fn run(&self) -> io::Result<()> {
        let log = self.folder.join("log");
        match self.way.as_str() {
            "plain" => {
                let mut file = OpenOptions::new().append(true).create(true).open(log)?;
                self.write(LENGTH, |batch| file.write_all(batch))
            }
            "rotating" => {
                let mut log = RotatingFile::open(self.options(log))?;
                DEADLY.store(self.step, Ordering::Relaxed);
                self.write(LENGTH, |batch| match log.write_batch(batch) {
                    Written { lost: 0, .. } => Ok(()),
                    Written { lost, .. } => Err(io::Error::other(format!("{lost} lines lost"))),
                })
            }
            "tracing" => self.trace(log),
            "appender" => {
                let appender = tracing_appender::rolling::hourly(&self.folder, "log");
                tracing_subscriber::fmt().with_ansi(false).with_writer(appender).init();
                self.log()
            }
            "print" => self.write(LENGTH, |batch| io::stdout().write_all(batch)),
            "stay" => {
                self.write(LENGTH - HEAD, |batch| io::stdout().write_all(batch))?;
                Stamp::now().write(&open_stamps()?)?;
                loop {
                    nix::unistd::pause();
                }
            }
            way => Err(io::Error::other(format!("no such way: {way}"))),
        }
    }

    fn options(&self, log: PathBuf) -> RotateOptions {
        RotateOptions::new(log, self.limits()).after_step(die)
    }

    fn limits(&self) -> RotateLimits {
        let max_size = Some(self.max_size);
        RotateLimits { max_size, backups: 1_000_000, ..RotateLimits::default() }
    }

    /// As a worker does after its fork; that the process was not forked makes no difference to it.
    fn trace(&self, log: PathBuf) -> io::Result<()> {
        let log = ph_log::init(LogOptions {
            name: "bench".to_owned(),
            target: Target::File(log),
            limits: self.limits(),
            worker_path: None,
            also_stderr: false,
            level: Level::Info,
            format: Format::Text,
            reopen: &REOPEN,
            pid: ph_core::wiped_by_fork(),
        })?;
        log.enter_worker(u32::try_from(self.writer).unwrap_or(0), 1);
        self.log()?;
        log.flush();
        match log.dropped() {
            0 => Ok(()),
            lost => Err(io::Error::other(format!("{lost} lines lost"))),
        }
    }

    fn log(&self) -> io::Result<()> {
        let mut lines = NumberedLine::new(self.writer, LENGTH - HEAD - 1);
        self.wait()?;
        for number in 0..self.lines {
            tracing::info!("{}", lines.numbered(number));
        }
        Ok(())
    }

    /// Writes all lines in batches of whole lines.
    fn write(&self, length: usize, mut put: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut lines = NumberedLine::new(self.writer, length - 1);
        let mut batch = Vec::with_capacity(self.batch.max(length));
        self.wait()?;
        for number in 0..self.lines {
            batch.extend_from_slice(lines.numbered(number).as_bytes());
            batch.push(b'\n');
            if batch.len() + length > self.batch {
                put(&batch)?;
                batch.clear();
            }
        }
        if batch.is_empty() { Ok(()) } else { put(&batch) }
    }

    /// Says that this writer is ready, and waits until all are to begin.
    fn wait(&self) -> io::Result<()> {
        Stamp::now().write(&open_stamps()?)?;
        io::stdin().read_to_end(&mut Vec::new()).map(drop)
    }
}

fn die(step: Step) {
    let deadly = DEADLY.load(Ordering::Relaxed);
    if usize::try_from(deadly).ok().and_then(|at| STEPS.get(at)) == Some(&step) {
        // It ends here: nothing can fail about that.
        let _ = raise(Signal::SIGKILL);
    }
}
