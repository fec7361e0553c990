//! A folder, a configuration and a program, and the proof that nothing is left of them.
//!
//! Every process started on a stage carries the stage's mark in its environment, and hands it on to
//! whatever it starts. At the end of a test that went well there must be no such process, no
//! pidfile, lock or socket, and no ERROR in the log that was not expected; after one that failed
//! they are ended, and log and stderr are shown.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::log::Log;
use super::master::Master;
use super::process::Process;
use super::wait::eventually;

const MARK: &str = "E2E_MARK";

/// Lines of the log that are shown when a test fails.
const SHOWN: usize = 60;

/// Starts what follows it where there is no cgroup of version 2: all mounts of that kind are taken
/// away, in a mount namespace of its own.
pub(crate) const WITHOUT_CGROUPS: [&str; 6] = [
    "unshare",
    "-m",
    "sh",
    "-c",
    "sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \\([^ ]*\\) .* - cgroup2 .*/\\1/p' /proc/self/mountinfo \
     | while read -r point; do umount \"$(printf %b \"$point\")\" || exit 1; done && exec \"$@\"",
    "sh",
];

/// Where one test plays.
pub(crate) struct Stage {
    folder: TempDir,
    program: PathBuf,
    section: String,
    mark: String,
    environment: Vec<(String, String)>,
    starts: Cell<u32>,
    expected_errors: RefCell<Vec<String>>,
    allowed_errors: RefCell<Vec<String>>,
}

impl Stage {
    /// A stage for a program, whose services are configured in the section of this name.
    pub(crate) fn of(program: &str, section: &str) -> Self {
        static STAGES: AtomicU32 = AtomicU32::new(0);
        let number = STAGES.fetch_add(1, Ordering::Relaxed);
        let stage = Self {
            folder: tempfile::Builder::new().prefix("e2e-").tempdir().expect("a folder"),
            program: program.into(),
            section: section.to_owned(),
            mark: format!("{}-{number}", std::process::id()),
            environment: Vec::new(),
            starts: Cell::new(0),
            expected_errors: RefCell::new(Vec::new()),
            allowed_errors: RefCell::new(Vec::new()),
        };
        stage.configure("");
        stage
    }

    /// Writes the configuration: these lines in the section, over what all tests have in common.
    pub(crate) fn configure(&self, lines: &str) {
        let section = &self.section;
        let text = format!(
            "[DEFAULT]\ngraceful_timeout = 10\nlog_file = ph.log\npidfile = ph.pid\n\n\
             [{section}]\n{lines}\n"
        );
        std::fs::write(self.path("config.ini"), text).expect("a configuration");
    }

    /// A variable for everything that is started from now on.
    pub(crate) fn variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// An ERROR whose text holds this is no surprise, and has to come.
    pub(crate) fn expect_error(&self, text: &str) {
        self.expected_errors.borrow_mut().push(text.to_owned());
    }

    /// An ERROR whose text holds this is no surprise, and need not come.
    pub(crate) fn allow_error(&self, text: &str) {
        self.allowed_errors.borrow_mut().push(text.to_owned());
    }

    /// A file of the stage's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn log(&self) -> Log {
        Log(self.path("ph.log"))
    }

    /// What a file holds.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Starts `run` with the configuration of the stage and these settings on top.
    pub(crate) fn start(&self, settings: &[&str]) -> Master {
        self.start_through(&[], settings)
    }

    /// The same through a program that prepares the process and then executes its arguments.
    pub(crate) fn start_through(&self, wrapper: &[&str], settings: &[&str]) -> Master {
        let set = settings.iter().flat_map(|setting| ["--set", setting]);
        let arguments: Vec<_> = ["run", "-c", "config.ini"].into_iter().chain(set).collect();
        self.launch(wrapper, &arguments)
    }

    /// Starts the program with these arguments.
    pub(crate) fn launch(&self, wrapper: &[&str], arguments: &[&str]) -> Master {
        let program = self.program.to_str().expect("a path in UTF-8");
        self.launch_program(&[wrapper, &[program], arguments].concat())
    }

    /// Starts another program, which starts that of the stage.
    pub(crate) fn launch_program(&self, words: &[&str]) -> Master {
        let start = self.starts.replace(self.starts.get() + 1);
        let stderr = self.path(&format!("stderr.{start}"));
        let output = |path: &Path| Stdio::from(File::create(path).expect("an output file"));
        let mut words = words.iter().copied();
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).current_dir(self.folder()).env_clear();
        command.envs(self.variables());
        command.stdin(Stdio::null()).stderr(output(&stderr));
        command.stdout(output(&self.path(&format!("stdout.{start}"))));
        Master::new(command.spawn().expect("the program"), stderr)
    }

    /// How many programs were started so far: the number of the next one's `stdout.N`.
    pub(crate) fn starts(&self) -> u32 {
        self.starts.get()
    }

    /// The whole environment of what is started here.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let path = std::env::var("PATH").expect("PATH");
        let own = [("PATH".to_owned(), path), (MARK.to_owned(), self.mark.clone())];
        own.into_iter().chain(self.environment.iter().cloned()).collect()
    }

    /// Everything that lives of what was started here, grandchildren and strays included.
    pub(crate) fn processes(&self) -> Vec<Process> {
        Process::with_variable(MARK, &self.mark)
    }

    /// Those of them with this title.
    pub(crate) fn titled(&self, title: &str) -> Vec<Process> {
        let mut found = self.processes();
        found.retain(|process| process.title() == title);
        found
    }

    /// Waits until there are exactly so many with this title.
    pub(crate) fn wait_titled(&self, title: &str, count: usize) -> Vec<Process> {
        eventually(&format!("{count} of {title:?}"), || {
            Some(self.titled(title)).filter(|found| found.len() == count)
        })
    }

    /// Waits until nothing lives of what was started here.
    pub(crate) fn wait_empty(&self) {
        eventually("nobody is left", || self.processes().is_empty().then_some(()));
    }

    /// The names of the files that are there, less those a stage makes itself, and less the files
    /// by which the writers of a log take turns: those stay as long as the log does.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder()).expect("the folder");
        let names = entries.map(|it| it.expect("an entry").file_name().into_string());
        let own = ["config.ini", "stdout.", "stderr."];
        let mut files: Vec<_> = names
            .map(|name| name.expect("a name in UTF-8"))
            .filter(|name| !own.iter().any(|own| name.starts_with(own)))
            .filter(|name| !(name.starts_with('.') && name.ends_with(".log.lock")))
            .collect();
        files.sort();
        files
    }

    /// What must hold at the end of every test.
    fn check(&self) {
        self.wait_empty();
        let left: Vec<_> = self.files().into_iter().filter(|name| is_run_file(name)).collect();
        assert!(left.is_empty(), "files were left behind: {left:?}");
        let expected = self.expected_errors.borrow();
        let errors = self.log().lines().into_iter().filter(|line| line.level == "ERROR");
        let errors: Vec<_> = errors.map(|line| line.message).collect();
        let allowed = self.allowed_errors.borrow();
        let is_surprise = |error: &&String| {
            !expected.iter().chain(&*allowed).any(|text| error.contains(text.as_str()))
        };
        assert_eq!(errors.iter().find(is_surprise), None, "an ERROR nobody expected");
        for text in &*expected {
            assert!(errors.iter().any(|error| error.contains(text)), "no ERROR with {text:?}");
        }
    }

    /// For people, after a failure.
    #[expect(clippy::print_stderr, reason = "the test harness shows it")]
    fn show(&self) {
        for name in self.files().into_iter().filter(|name| name.contains("log")) {
            let bytes = std::fs::read(self.path(&name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<_> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(SHOWN)..];
            eprintln!("--- the last lines of {name}:\n{}", last.join("\n"));
        }
        for start in 0..self.starts.get().min(3) {
            let stderr = std::fs::read_to_string(self.path(&format!("stderr.{start}")));
            eprintln!("--- stderr of start {start}:\n{}", stderr.unwrap_or_default());
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let was_panicking = std::thread::panicking();
        let checked =
            if was_panicking { Ok(()) } else { catch_unwind(AssertUnwindSafe(|| self.check())) };
        if !was_panicking && checked.is_ok() {
            return;
        }
        self.show();
        for process in self.processes() {
            // Gone meanwhile is as good.
            let _ = kill(Pid::from_raw(process.0), Signal::SIGKILL);
        }
        if let Err(why) = checked {
            resume_unwind(why);
        }
    }
}

/// A file of a running master.
fn is_run_file(name: &str) -> bool {
    name.starts_with('.') || [".pid", ".lock", ".sock"].iter().any(|end| name.ends_with(end))
}
