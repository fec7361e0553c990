//! `cargo xtask tidy`: the rules of the repository that no compiler holds.
//!
//! Rust files are read as tokens, so that a word in a comment or a string is not taken for code. All
//! exceptions are in the tables below, nowhere else.

use std::fmt::Display;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use proc_macro2::{TokenStream, TokenTree};

use crate::shell::Workspace;

/// The members of the workspace: six crates and no more, sorted.
const MEMBERS: [&str; 6] = ["ph-cli", "ph-config", "ph-core", "ph-examples", "ph-log", "xtask"];

/// A longer file wants to be two.
const LINES_AT_MOST: usize = 450;

/// Tables, which may be longer.
const TABLES: [&str; 0] = [];

/// Where unsafe code may be: in ring 3. And, outside of what is shipped: the bench's bare fork and its
/// worker without a runtime, and the test that forks to see what becomes of a log.
const UNSAFE_ALLOWED: [&str; 4] = [
    "ph-core/src/sys/",
    "xtask/src/bin/bench_floor/fork.rs",
    "xtask/src/bin/bench_worker.rs",
    "ph-log/tests/it/stage.rs",
];

/// Ring 1, and crates that would bring the outside world into it.
const PURE: &str = "ph-core/src/arbiter/";
const OUTSIDE: [&str; 6] = ["std", "nix", "libc", "tracing", "signal_hook", "socket2"];

/// What of other processes is in their memory: a hostile one can hold up whoever reads it, so nothing
/// in the core does.
const CORE: &str = "ph-core/src/";
const MEMORY_OF_OTHERS: [&str; 2] = ["}/environ", "}/cmdline"];

/// Kept to the byte as others wrote them.
const VERBATIM: [&str; 1] = ["examples/conf/config.ini"];

/// Words nobody may leave behind, and folders of somebody's own machine. Cut in two, because this
/// file is checked too.
const LEFTOVERS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
const PRIVATE_FOLDERS: [&str; 3] =
    [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/")];

/// Checks every file of the repository and reports all that is wrong.
pub(crate) fn tidy() -> Result<()> {
    let workspace = Workspace::enter()?;
    let mut problems = Problems::default();
    let mut members: Vec<_> = workspace.packages.iter().map(|it| it.name.as_str()).collect();
    members.sort_unstable();
    if members != MEMBERS {
        problems.add("Cargo.toml", format!("the members are {members:?}, not {MEMBERS:?}"));
    }
    let files = workspace.files()?;
    let here = own_folder(&workspace.root);
    for file in &files {
        let bytes = std::fs::read(file).with_context(|| format!("read {file}"))?;
        // What is not text is none of this task's business.
        let Ok(text) = String::from_utf8(bytes) else { continue };
        check_text(file, &text, here.as_deref(), &mut problems);
        if Path::new(file).extension().is_some_and(|extension| extension == "rs") {
            check_rust(file, &text, &mut problems);
        }
    }
    check_faults(&files, &mut problems)?;
    for problem in &problems.0 {
        println!("{problem}");
    }
    match problems.0.len() {
        0 => {
            println!("{} files are tidy", files.len());
            Ok(())
        }
        count => bail!("untidy places: {count}"),
    }
}

#[derive(Debug, Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, place: impl Display, what: impl Display) {
        self.0.push(format!("{place}: {what}"));
    }
}

/// The folder this checkout is in, if its path is long enough to be nobody else's.
fn own_folder(root: &Path) -> Option<String> {
    (root.components().count() > 2).then(|| format!("{}/", root.display()))
}

fn check_text(file: &str, text: &str, here: Option<&str>, problems: &mut Problems) {
    if VERBATIM.contains(&file) {
        return;
    }
    for (number, line) in (1..).zip(text.lines()) {
        let place = format!("{file}:{number}");
        if line.ends_with([' ', '\t', '\r']) {
            problems.add(&place, "white space at the end");
        }
        for word in LEFTOVERS.iter().filter(|word| line.contains(**word)) {
            problems.add(&place, format!("{word}: do it, or write a test or a note"));
        }
        let is_core = file.starts_with(CORE);
        for path in MEMORY_OF_OTHERS.iter().filter(|path| is_core && line.contains(**path)) {
            problems.add(&place, format!("{path} is in the memory of another process"));
        }
        for folder in PRIVATE_FOLDERS.into_iter().chain(here).filter(|it| line.contains(it)) {
            problems.add(&place, format!("{folder} is a folder of somebody's own machine"));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        problems.add(file, "no line end at the end");
    }
}

fn check_rust(file: &str, text: &str, problems: &mut Problems) {
    if file.contains("/src/") && !text.starts_with("//!") {
        problems.add(file, "does not begin with a `//!` essay");
    }
    let lines = text.lines().count();
    if lines > LINES_AT_MOST && !TABLES.contains(&file) {
        problems.add(file, format!("{lines} lines, more than {LINES_AT_MOST}"));
    }
    match text.parse::<TokenStream>() {
        Ok(tokens) => check_tokens(file, tokens, problems),
        Err(error) => problems.add(file, error),
    }
}

fn check_tokens(file: &str, tokens: TokenStream, problems: &mut Problems) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let TokenTree::Ident(word) = token else {
            if let TokenTree::Group(group) = token {
                check_tokens(file, group.stream(), problems);
            }
            continue;
        };
        let next = match tokens.peek() {
            Some(TokenTree::Punct(punct)) => Some(punct.as_char()),
            _ => None,
        };
        let place = format!("{file}:{}", word.span().start().line);
        let word = word.to_string();
        match word.as_str() {
            "unsafe" if !UNSAFE_ALLOWED.iter().any(|allowed| file.starts_with(allowed)) => {
                problems.add(place, "unsafe code outside of ph-core/src/sys");
            }
            "todo" | "unimplemented" if next == Some('!') => {
                problems.add(place, format!("{word}!"));
            }
            // A path begins here: the word, then `::`.
            outside
                if OUTSIDE.contains(&outside) && file.starts_with(PURE) && next == Some(':') =>
            {
                problems.add(place, format!("the arbiter names `{outside}`"));
            }
            _ => {}
        }
    }
}

/// The list of faults, and where the tests it names are.
const FAULTS: &str = "docs/faults.md";
const TESTS: &str = "/tests/e2e/";

/// Every test that the list of faults names exists; `…` stands for the rest of a name.
fn check_faults(files: &[String], problems: &mut Problems) -> Result<()> {
    let list = std::fs::read_to_string(FAULTS).with_context(|| format!("read {FAULTS}"))?;
    for (number, line) in (1..).zip(list.lines().filter(|line| line.starts_with("| "))) {
        for named in line.split('`').skip(1).step_by(2).filter(|it| it.contains("::")) {
            let (file, name) = named.split_once("::").unwrap_or_default();
            let function = match name.strip_suffix('…') {
                Some(beginning) => format!("fn {beginning}"),
                None => format!("fn {name}("),
            };
            let of_tests = files.iter().filter(|it| it.ends_with(&format!("{TESTS}{file}.rs")));
            let exists = of_tests
                .filter_map(|file| std::fs::read_to_string(file).ok())
                .any(|text| text.contains(&function));
            if !exists {
                problems.add(format!("{FAULTS} row {number}"), format!("no test {named}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(file: &str, text: &str) -> Vec<String> {
        let mut problems = Problems::default();
        check_text(file, text, Some("/srv/build/ph/"), &mut problems);
        check_rust(file, text, &mut problems);
        problems.0
    }

    #[test]
    fn each_rule_finds_its_fault() {
        let faults = [
            ("a/src/a.rs", "fn a() {}\n"),
            ("a/src/a.rs", "//! A.\nfn a() { unsafe { b() } }\n"),
            ("a/src/a.rs", "//! A.\nfn a() { todo!() }\n"),
            ("a/src/a.rs", "//! A.\nfn a() {} \n"),
            ("a/src/a.rs", "//! A."),
            ("a/src/a.rs", concat!("//! A.\n// TO", "DO b\n")),
            ("a/src/a.rs", concat!("//! Lives in /ho", "me/me.\n")),
            ("a/src/a.rs", "//! Lives in /srv/build/ph/target.\n"),
            ("ph-core/src/sys/a.rs", "//! A.\nconst A: &str = \"/proc/{pid}/environ\";\n"),
            ("ph-core/src/arbiter/a.rs", "//! A.\nuse std::time::Instant;\n"),
            ("ph-core/src/arbiter/a.rs", "//! A.\nfn a() { nix::b() }\n"),
        ];
        for (file, text) in faults {
            assert_eq!(problems_of(file, text).len(), 1, "{text:?}: {:?}", problems_of(file, text));
        }
        assert_eq!(problems_of("a/src/a.rs", &format!("//! A.\n{}", "\n".repeat(450))).len(), 1);
    }

    #[test]
    fn words_in_comments_and_strings_are_not_code() {
        let text = "//! The unsafe code of std::fs.\nconst A: &str = \"unsafe { todo!() }\";\n";
        assert_eq!(problems_of("ph-core/src/arbiter/a.rs", text), [""; 0]);
        let text = "//! A.\nfn a() { unsafe { b() } }\n";
        assert_eq!(problems_of("ph-core/src/sys/a.rs", text), [""; 0]);
    }
}
