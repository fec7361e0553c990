//! The dialect against Python's own `configparser`: thousands of generated files, one answer each.
//!
//! `differential.py` reads the same bytes and says what Python makes of them. For every file either
//! both refuse it or the sections agree, and for every section either both refuse a value or all
//! texts agree. What is meant to differ is in [`differences`], and each row is asserted, so that a
//! difference that no longer exists fails too.
//!
//! Every run draws new files. A failure names its seed; `DIALECT_SEED=K` draws the same ones again.
//! A run that cannot ask Python fails, because a check that did not happen must not look like one
//! that passed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use serde_json::Value;

use crate::Site;
use crate::generated::file;

const FILES: u32 = 4000;
/// Far more than the slowest file takes; without it a Python that hangs would hang the tests.
const PATIENCE: Duration = Duration::from_secs(60);
const NEEDS: &str = "this test asks Python's configparser: install python3, 3.8 or newer";

/// The application's keys of one section, or why it was refused.
type Texts = Result<BTreeMap<String, String>, String>;
/// The sections of one file in their order, or why it was refused.
type Answer = Result<Vec<(String, Texts)>, String>;

/// A Python that answers file after file.
struct Python {
    process: Child,
    questions: ChildStdin,
    answers: Receiver<Value>,
}

impl Python {
    fn start() -> Python {
        let mut process = Command::new("python3")
            .args(["-I", "-c", include_str!("differential.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{NEEDS} (cannot start it: {error})"));
        let questions = process.stdin.take().expect("it was asked for");
        let lines = BufReader::new(process.stdout.take().expect("it was asked for")).lines();
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in lines {
                let line = line.expect("Python writes ASCII");
                let answer = serde_json::from_str(&line).expect("Python writes JSON");
                if sender.send(answer).is_err() {
                    return;
                }
            }
        });
        let mut python = Python { process, questions, answers };
        let version = python.answer();
        let part = |index: usize| version[index].as_u64().expect("a version has numbers");
        assert!((part(0), part(1)) >= (3, 8), "{NEEDS} (this one is {version})");
        python
    }

    fn ask(&mut self, file: &[u8]) -> Answer {
        let length = u32::try_from(file.len()).expect("files are short").to_be_bytes();
        self.questions.write_all(&length).expect("Python reads");
        self.questions.write_all(file).expect("Python reads");
        let answer = self.answer();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        if let Some(reason) = answer.get("refused") {
            return Err(text(reason));
        }
        let section = |pair: &Value| {
            let texts = match pair[1].get("refused") {
                Some(reason) => Err(text(reason)),
                None => {
                    let values = pair[1]["values"].as_object().expect("values by their keys");
                    Ok(values.iter().map(|(key, value)| (key.clone(), text(value))).collect())
                }
            };
            (text(&pair[0]), texts)
        };
        Ok(answer["sections"].as_array().expect("a list of sections").iter().map(section).collect())
    }

    fn answer(&mut self) -> Value {
        self.answers.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            let state = self.process.try_wait();
            panic!("{NEEDS} (it gives no answer: {error}; its state is {state:?})")
        })
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It may have ended already; either way no process is left behind.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The same question to this crate.
fn ask(file: &[u8]) -> Answer {
    let mut site = Site::new(file).set("extra_keys", "allow");
    // What the name of a section must not decide here: whether it is fit for `ps` and for a file.
    site = site.set("proc_name", "p").set("pidfile", "p.pid");
    site = site.environment(&[("COLOUR", "red")]);
    let names = site.read().and_then(|read| read.syntax().map(|_| read.sections().to_vec()));
    match names {
        Err(errors) => {
            let loaded = site.load();
            assert!(loaded.is_err(), "`syntax` refuses what `load` accepts: {errors}");
            Err(errors.to_string())
        }
        Ok(names) => {
            let mut answers = Vec::new();
            for name in names {
                site = site.section(name.as_str());
                let texts = site.load().map(|loaded| loaded.settings.app);
                answers.push((name, texts.map_err(|errors| errors.to_string())));
            }
            Ok(answers)
        }
    }
}

/// The bytes Python is asked about: it takes a byte order mark for text, see [`differences`].
fn without_mark(file: &[u8]) -> &[u8] {
    file.strip_prefix("\u{feff}".as_bytes()).unwrap_or(file)
}

fn same(ours: &Answer, python: &Answer) -> bool {
    let same_texts = |ours: &Texts, python: &Texts| match (ours, python) {
        (Ok(ours), Ok(python)) => ours == python,
        (ours, python) => ours.is_err() && python.is_err(),
    };
    match (ours, python) {
        (Ok(ours), Ok(python)) => {
            ours.len() == python.len()
                && ours.iter().zip(python).all(|(a, b)| a.0 == b.0 && same_texts(&a.1, &b.1))
        }
        (ours, python) => ours.is_err() && python.is_err(),
    }
}

/// How often each outcome was seen: files that are all refused would compare nothing.
#[derive(Debug, Default)]
struct Seen {
    refused_files: Cell<u32>,
    refused_sections: Cell<u32>,
    sections: Cell<u32>,
    texts: Cell<u32>,
}

impl Seen {
    fn count(&self, answer: &Answer) {
        let add = |cell: &Cell<u32>| cell.set(cell.get() + 1);
        let Ok(sections) = answer else { return add(&self.refused_files) };
        for (_, texts) in sections {
            match texts {
                Ok(texts) => {
                    add(&self.sections);
                    texts.values().filter(|text| !text.is_empty()).for_each(|_| add(&self.texts));
                }
                Err(_) => add(&self.refused_sections),
            }
        }
    }

    /// That no part of the comparison was empty.
    fn assert_enough(&self) {
        let Seen { refused_files, refused_sections, sections, texts } = self;
        for (cell, share) in [(refused_files, 8), (refused_sections, 8), (sections, 3), (texts, 1)]
        {
            assert!(cell.get() >= FILES / share, "the generator draws too few of a kind: {self:?}");
        }
    }
}

#[test]
fn generated_files_mean_what_they_mean_to_python() {
    let seed = std::env::var("DIALECT_SEED").map_or_else(
        |_| {
            let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::from(clock.subsec_nanos())
        },
        |seed| seed.parse().expect("DIALECT_SEED is a number"),
    );
    let mut config = Config::with_cases(FILES);
    config.failure_persistence = None;
    config.max_shrink_time = 30_000;
    config.rng_seed = RngSeed::Fixed(seed);
    let python = RefCell::new(Python::start());
    let seen = Seen::default();
    let outcome = TestRunner::new(config).run(&file(), |file| {
        let (ours, theirs) = (ask(&file), python.borrow_mut().ask(without_mark(&file)));
        if !same(&ours, &theirs) {
            return Err(TestCaseError::fail(format!("here:   {ours:#?}\nPython: {theirs:#?}")));
        }
        seen.count(&ours);
        Ok(())
    });
    match outcome {
        Ok(()) => seen.assert_enough(),
        Err(TestError::Fail(reason, file)) => {
            let file = String::from_utf8_lossy(&file);
            panic!("DIALECT_SEED={seed} repeats this.\nfile: {file:?}\n{reason}");
        }
        Err(error) => panic!("DIALECT_SEED={seed} repeats this: {error}"),
    }
}

/// What becomes of `app_x` in section `s`.
#[derive(Debug, PartialEq)]
enum Outcome {
    Refused,
    Text(&'static str),
    /// Some text that depends on the machine, or is long.
    Something,
}

use Outcome::{Refused, Something, Text};

impl Outcome {
    fn holds(&self, answer: &Answer) -> bool {
        let sections = answer.as_ref().map(Vec::as_slice).unwrap_or_default();
        let found = sections.iter().find(|(name, _)| name == "s");
        let text = found.and_then(|(_, texts)| texts.as_ref().ok()?.get("x"));
        match self {
            Refused => text.is_none(),
            Text(expected) => text.is_some_and(|text| text == expected),
            Something => text.is_some_and(|text| !text.is_empty()),
        }
    }
}

/// One place where this crate is not like Python.
struct Difference {
    reason: &'static str,
    file: String,
    python: Outcome,
    ours: Outcome,
    /// What this crate warns of; where both give the same text, the warning is the difference.
    warning: &'static str,
}

fn difference(
    reason: &'static str,
    file: impl Into<String>,
    python: Outcome,
    ours: Outcome,
) -> Difference {
    Difference { reason, file: file.into(), python, ours, warning: "" }
}

/// All differences that are meant. Three more do not show in this table: unknown keys are refused
/// (the comparison sets `extra_keys`), so is a section whose name makes no `proc_name` or `pidfile`
/// (it sets both), and `%(slot)s` and `%(generation)s` stand for themselves in `command` and
/// `environment`; elsewhere they are names that nobody set, to both.
fn differences() -> Vec<Difference> {
    let built_in = "a name that no key has may be a built-in one";
    let typed = "a `;` after white space ends a typed value, as it did in Python 2";
    let bounded = "a hostile file must not fill the memory of a master that reloads";
    let long_name = "n".repeat(257);
    let many = "%(k1)s".repeat(50);
    let fan = format!("{}\nk2 = {}\nk3 = ", "%(k2)s".repeat(50), "%(k3)s%%".repeat(50));
    let mut rows = vec![
        difference(built_in, "[s]\napp_x = %(here)s", Refused, Something),
        difference(built_in, "[s]\napp_x = %(section)s", Refused, Text("s")),
        difference(built_in, "[s]\napp_x = %(host_name)s", Refused, Something),
        difference(built_in, "[s]\napp_x = %(ENV_COLOUR)s", Refused, Text("red")),
        difference(
            "what nobody set has the default of the table",
            "[s]\napp_x = %(number_workers)s",
            Refused,
            Text("1"),
        ),
        difference(
            "base_path is the folder itself, absolute",
            "[s]\nbase_path = run\napp_x = %(base_path)s/y",
            Text("run/y"),
            Something,
        ),
        difference(
            "a setting has a type, also where only another value uses it",
            "[s]\nnumber_workers = many\napp_x = %(number_workers)s",
            Text("many"),
            Refused,
        ),
        difference(
            "no value can reach the environment of a worker with a NUL in it",
            "[s]\napp_x = a\0b",
            Text("a\0b"),
            Refused,
        ),
        difference(
            "editors of some systems put a byte order mark before the text",
            "\u{feff}[s]\napp_x = 1",
            Refused,
            Text("1"),
        ),
        difference(
            bounded,
            format!("[s]\napp_x = 1\n{}", "#".repeat(1024 * 1024)),
            Text("1"),
            Refused,
        ),
        difference(
            bounded,
            format!("[s]\napp_x = %({long_name})s\n{long_name} = 1"),
            Text("1"),
            Refused,
        ),
        difference(bounded, format!("[s]\napp_x = 1\n[{long_name}]"), Text("1"), Refused),
        difference(bounded, format!("[s]\napp_x = {many}\nk1 = {fan}"), Something, Refused),
        difference(
            bounded,
            format!("[s]\napp_x = {many}\nk1 = {}", "y".repeat(100_000)),
            Something,
            Refused,
        ),
    ];
    rows.push(Difference {
        warning: "counts as a comment",
        ..difference(
            typed,
            "[s]\nnumber_workers = 3 ; three\napp_x = %(number_workers)s",
            Text("3 ; three"),
            Text("3"),
        )
    });
    rows.push(Difference {
        warning: "which no section inherits",
        ..difference(
            "`[default]` inherits to nobody, which is hardly meant",
            "[s]\napp_x = 1\n[default]\napp_x = 2",
            Text("1"),
            Text("1"),
        )
    });
    rows
}

#[test]
fn every_difference_that_is_meant_exists() {
    let mut python = Python::start();
    for Difference { reason, file, python: theirs, ours, warning } in differences() {
        assert!(theirs != ours || !warning.is_empty(), "no difference at all: {reason}");
        let start: String = file.chars().take(200).collect();
        let answer = python.ask(file.as_bytes());
        assert!(theirs.holds(&answer), "{reason}: {start:?}: Python does not say {theirs:?}");
        let answer = ask(file.as_bytes());
        assert!(ours.holds(&answer), "{reason}: {start:?}: expected {ours:?}, got {answer:?}");
        if !warning.is_empty() {
            let warnings = Site::new(file).section("s").set("extra_keys", "allow").warnings();
            assert!(warnings.contains(warning), "{reason}: {warnings}");
        }
    }
}
