//! Files of full size that are made to be slow or to become large.
//!
//! A file may be 1 MiB, and a master loads it while workers wait for it, so no load may take time
//! or memory that grows faster than the file. Time that grows with the square would show here as
//! minutes; the bound is loose, because a debug build on a busy machine is slow. Memory is
//! measured in a process of its own, where nothing else runs. More such files, of
//! interpolation, are in `names.rs`.

use std::process::Command;
use std::time::Duration;

use ph_config::Format;

use crate::properties;

const SIZE: usize = 1024 * 1024;
/// Of the processor, which a busy machine does not change; for one file, through each of its first
/// sections and an edit.
const TIME: Duration = Duration::from_secs(30);
/// For a process that loads all of them one after the other, in KiB.
const MEMORY: u64 = 512 * 1024;

/// As many lines as a file may hold, from one for each number.
fn full(head: &str, line: impl Fn(usize) -> String) -> String {
    let mut text = head.to_owned();
    for number in 0.. {
        let line = line(number);
        if text.len() + line.len() > SIZE {
            break;
        }
        text += &line;
    }
    text
}

fn files() -> Vec<(&'static str, String)> {
    let half = "n".repeat(SIZE / 2);
    let long = "n".repeat(SIZE / 16);
    vec![
        ("keys", full("[s]\n", |n| format!("app_{n} = {n}\n"))),
        ("unknown keys", full("[s]\n", |n| format!("{n} = {n}\n"))),
        ("one continued value", full("[s]\napp_x =\n", |_| " y\n".to_owned())),
        ("blank lines in a value", full("[s]\napp_x = 1\n", |_| "\n".to_owned())),
        ("comments", full("[s]\n", |_| ";\n".to_owned())),
        ("comments after a typed value", full("[s]\nbind = :80\n", |_| " ;\n".to_owned())),
        ("comments in one line", full("[s]\nnumber_workers = 3", |_| " ;".to_owned())),
        ("lines without a key", full("[s]\n", |_| "x\n".to_owned())),
        ("lines without a header", full("", |_| "x\n".to_owned())),
        ("broken headers", full("", |_| "[\n".to_owned())),
        ("one line of [", full("", |_| "[".to_owned())),
        ("one line of ]", full("[", |_| "]".to_owned())),
        ("sections", full("", |n| format!("[{n}]\n"))),
        ("one section again and again", full("", |_| "[s]\n".to_owned())),
        ("one key again and again", full("[s]\n", |_| "x=\n".to_owned())),
        ("DEFAULT again and again", full("[s]\napp_x = 1\n", |_| "[DEFAULT]\n".to_owned())),
        ("carriage returns", full("[s]\napp_x = 1", |_| "\r".to_owned())),
        ("percent signs", full("[s]\napp_x = ", |_| "%%".to_owned())),
        ("names that nobody set", full("[s]\napp_x = ", |n| format!("%(k{n})s"))),
        ("a chain", full("[s]\n", |n| format!("app_{n} = %(app_{})s\n", n + 1))),
        ("a circle", full("[s]\nk = %(k)s\n", |n| format!("app_{n} = %(k)s\n"))),
        (
            "a deep chain",
            full("[s]\n", |n| format!("{}app_{n}=%(app_{})s\n", "%%".repeat(n % 9), n / 2)),
        ),
        ("a long name of a section", full(&format!("[{half}]\n"), |n| format!("app_{n} = %\n"))),
        ("a long key again and again", full("[s]\n", |_| format!("{long} = 1\n"))),
        ("a long section again and again", full("", |_| format!("[{long}]\n"))),
        (
            "a long key in a circle",
            full(&format!("[s]\napp_{long} = %(x)s\nx = %(y)s\ny = %(x)s\n"), |n| {
                format!("app_{n} = %(x)s\n")
            }),
        ),
        ("long names", full("[s]\n", |n| format!("app_{n}{} = %({n}{0})s\n", "é".repeat(127)))),
        ("words", full("[s]\ncommand = ", |n| format!("{n} "))),
        ("an open quote", full("[s]\ncommand = '", |n| format!("{n} "))),
        ("variables", full("[s]\nenvironment = ", |n| format!("A{n}=\"b\","))),
        ("variables of one name", full("[s]\nenvironment = ", |_| "A=1,".to_owned())),
        ("env files", full("[s]\nenv_file = ", |n| format!("-/nowhere/{n}\n "))),
        ("one long number", full("[s]\nnumber_workers = ", |_| "9".to_owned())),
        ("a long duration", full("[s]\ntimeout = 0.", |_| "9".to_owned())),
        ("CPUs", full("[s]\ncpu_affinity = ", |n| format!("{n},"))),
        ("a long path", full("[s]\nlog_file = ", |_| "/..".to_owned())),
    ]
}

/// The same in TOML.
fn toml_files() -> Vec<(&'static str, String)> {
    let half = "n".repeat(SIZE / 2);
    vec![
        ("keys", full("[s]\n", |n| format!("app_{n} = {n}\n"))),
        ("unknown keys", full("[s]\n", |n| format!("k{n} = {n}\n"))),
        ("mistakes", full("[s]\n", |_| "x\n".to_owned())),
        ("values without quotes", full("[s]\n", |n| format!("app_{n} = x\n"))),
        ("sections", full("", |n| format!("[s{n}]\n"))),
        ("one section again and again", full("", |_| "[s]\n".to_owned())),
        ("one key again and again", full("[s]\n", |_| "x=1\n".to_owned())),
        (
            "keys that differ in case",
            full("[s]\n", |n| format!("app_{n:b}A=1\n").replace('0', "a")),
        ),
        ("tables in tables", full("[s", |_| ".a".to_owned()) + "]\n"),
        ("lists in lists", full("[s]\ncommand = ", |_| "[".to_owned())),
        ("a table of tables", full("[s]\nx = ", |_| "{a=".to_owned())),
        ("a list of tables", full("", |_| "[[s]]\n".to_owned())),
        ("words", full("[s]\ncommand = [", |n| format!("'{n}',")) + "]\n"),
        ("addresses", full("[s]\nbind = [", |n| format!("':{n}',")) + "]\n"),
        ("variables", full("[s.environment]\n", |n| format!("A{n} = 'b'\n"))),
        ("an open text", full("[s]\ncommand = \"\"\"\n", |n| format!("{n}\n"))),
        ("escapes", full("[s]\napp_x = \"", |_| "\\u0041".to_owned()) + "\"\n"),
        ("a long name of a section", full(&format!("[{half}]\n"), |n| format!("app_{n} = 1\n"))),
        ("names that nobody set", full("[s]\napp_x = \"", |n| format!("%(k{n})s")) + "\"\n"),
        ("comments", full("[s]\n", |_| "#\n".to_owned())),
    ]
}

#[test]
fn files_of_full_size_take_bounded_time_and_memory() {
    let output = Command::new(std::env::current_exe().expect("the test knows itself"))
        .args(["--exact", "hostile::measured_alone", "--ignored", "--nocapture"])
        .output()
        .expect("the test can start itself");
    let shown = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && shown.contains(" KiB at most\n"), "{shown}{errors}");
}

#[test]
#[ignore = "the test above runs it, in a process of its own"]
fn measured_alone() {
    let ini = files().into_iter().map(|(name, text)| (name, text, Format::Ini));
    let toml = toml_files().into_iter().map(|(name, text)| (name, text, Format::Toml));
    for (name, text, format) in ini.chain(toml) {
        assert!(text.len() <= SIZE + 3 && text.len() > SIZE / 2, "{name}: {} bytes", text.len());
        let before = processor_time();
        match format {
            Format::Ini => properties::ini(text.as_bytes()),
            Format::Toml => properties::toml(text.as_bytes()),
        }
        // Of a larger file an edit is refused, and less is tried.
        let shorter = text[..text.floor_char_boundary(SIZE - 4096)].to_owned();
        properties::edit(format, &format!("s\napp_x\n7\n{shorter}"));
        let took = processor_time().saturating_sub(before);
        println!("{format:?} {name}: {took:?}, {} KiB", peak_memory());
        assert!(took < TIME, "{name} took {took:?}");
    }
    let peak = peak_memory();
    println!("{peak} KiB at most");
    assert!(peak < MEMORY, "{peak} KiB in use at some time");
}

/// What this process has used of the processor: fields 14 and 15 of proc(5), in hundredths.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc is mounted");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| {
        let ticks: u64 = field.parse().expect("a number of ticks");
        ticks
    });
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// The most memory this process ever had, in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("VmHWM is a number of kB")
}
