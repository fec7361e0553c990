//! `ph check` of programs: whatever the kernel would refuse to execute is found, and nothing else is.
//!
//! Each case is judged twice: by the check, and by the kernel, which is asked to execute the program.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::ph;
use crate::support::{Stage, require};

fn write(stage: &Stage, name: &str, content: &[u8]) {
    std::fs::write(stage.path(name), content).expect("a file");
    std::fs::set_permissions(stage.path(name), Permissions::from_mode(0o755)).expect("a mode");
}

/// The errors of a check of this program, as one text; nothing if there are none.
fn check(stage: &Stage, lines: &str) -> String {
    stage.configure(lines);
    let (code, stderr) = stage.launch(&[], &["check", "-c", "config.ini"]).wait_with_stderr();
    assert_eq!(code == 0, stderr.is_empty(), "{code}: {stderr}");
    stderr
}

/// Whether the kernel executes the program, and it ends well.
fn runs(stage: &Stage) -> bool {
    let mut command = Command::new(stage.path("p"));
    command.current_dir(stage.folder()).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn a_first_line_is_judged_as_the_kernel_judges_it() {
    let stage = ph();
    write(&stage, "empty", b"");
    write(&stage, "text", b"hello");
    write(&stage, "missing", b"#!/no/such\n");
    let mut before = "/bin/sh".to_owned();
    for number in 1..=6 {
        let name = format!("nested-{number}");
        write(&stage, &name, format!("#!{before}\nexit 0\n").as_bytes());
        before = stage.path(&name).display().to_string();
    }
    let folder = stage.folder().display().to_string();
    let (blanks, long) = (" ".repeat(300), "x".repeat(300));
    for (line, wanted) in [
        ("/bin/sh", ""),
        (" /bin/sh -e", ""),
        ("/bin/sh\0zzz", ""),
        (&format!("/bin/sh -e{blanks}"), ""),
        ("/usr/bin/env sh", ""),
        ("/usr/bin/env -S sh -e", ""),
        (&format!("{folder}/nested-4"), ""),
        (&format!("{folder}/nested-5"), "ELOOP"),
        (&format!("{folder}/p"), "ELOOP"),
        ("/usr/bin", "its interpreter /usr/bin: Permission denied"),
        (&format!("{folder}/empty"), "ENOEXEC"),
        (&format!("{folder}/text"), "ENOEXEC"),
        (&format!("{folder}/missing"), "its interpreter /no/such: No such file"),
        ("/bin/sh\r", "carriage return"),
        ("/usr/bin/env sh\r", "carriage return"),
        ("/usr/bin/env -S no-such-program -e", "its interpreter no-such-program"),
        ("/usr/bin/env no-such-program", "its interpreter no-such-program"),
        ("/usr/bin/env sh -e", "`env -S`"),
        (&format!("/{long}"), "256 bytes"),
        ("", "names no interpreter"),
    ] {
        write(&stage, "p", format!("#!{line}\nexit 0\n").as_bytes());
        let said = check(&stage, "command = ./p");
        assert!(said.contains(wanted), "{line:?}: {said}");
        assert_eq!(said.is_empty(), wanted.is_empty(), "{line:?}: {said}");
        assert_eq!(runs(&stage), wanted.is_empty(), "the kernel: {line:?}");
    }
}

#[test]
fn a_binary_is_judged_by_its_machine_and_its_dynamic_linker() {
    let stage = ph();
    let binary = std::fs::read("/bin/true").expect("a binary");
    write(&stage, "p", &binary);
    assert_eq!(check(&stage, "command = ./p"), "");
    assert!(runs(&stage));
    // No machine has this number.
    let mut other = binary.clone();
    other[18..20].copy_from_slice(&[0x7f, 0x7f]);
    write(&stage, "p", &other);
    assert!(check(&stage, "command = ./p").contains("another machine"));
    assert!(!runs(&stage));
    write(&stage, "p", b"\x7fELF");
    assert!(check(&stage, "command = ./p").contains("ENOEXEC"));
    write(&stage, "p", &binary[..80]);
    assert!(check(&stage, "command = ./p").contains("ENOEXEC"));
    assert!(!runs(&stage));
    let linker = b"/ld-linux";
    let at = binary.windows(linker.len()).position(|it| it == linker).expect("a dynamic linker");
    let mut other = binary;
    other[at + 1] = b'x';
    write(&stage, "p", &other);
    let said = check(&stage, "command = ./p");
    assert!(said.contains("/xd-linux") && said.contains("ENOENT"), "{said}");
    assert!(!runs(&stage));
}

#[test]
fn what_interpreters_need_is_tried_as_the_workers_user() {
    require(&[]);
    let stage = ph();
    std::fs::set_permissions(stage.folder(), Permissions::from_mode(0o755)).expect("a mode");
    std::fs::create_dir(stage.path("private")).expect("a folder");
    write(&stage, "private/tool", b"#!/bin/sh\n");
    let mode = |name: &str, mode| {
        std::fs::set_permissions(stage.path(name), Permissions::from_mode(mode)).expect("a mode");
    };
    mode("private", 0o700);
    write(&stage, "p", b"#!/usr/bin/env tool\n");
    let path = format!("PATH={}:/usr/bin:/bin", stage.path("private").display());
    let lines = format!("command = ./p\nenvironment = {path}");
    assert_eq!(check(&stage, &lines), "");
    let said = check(&stage, &format!("{lines}\nuser = nobody"));
    assert!(said.contains("its interpreter tool: Permission denied"), "{said}");
    write(&stage, "p", b"#!/bin/sh\n");
    mode("p", 0o711);
    assert_eq!(check(&stage, "command = ./p"), "");
    let said = check(&stage, "command = ./p\nuser = nobody");
    assert!(said.contains("read ") && said.contains("as the workers' user"), "{said}");
}

#[test]
fn strings_that_no_program_can_be_given_are_found_before() {
    let stage = ph();
    let most = "x".repeat(32 * 4096 - 1);
    assert_eq!(check(&stage, &format!("command = /bin/true {most}")), "");
    let said = check(&stage, &format!("command = /bin/true {most}x"));
    assert!(said.contains("E2BIG"), "{said:.300}");
    let words = "x".repeat(1000);
    let many = format!("{words} ").repeat(200);
    assert_eq!(check(&stage, &format!("command = /bin/true {many}\nrlimit_stack = 8388608")), "");
    let said = check(&stage, &format!("command = /bin/true {many}\nrlimit_stack = 65536"));
    assert!(said.contains("stack limit") && said.contains("E2BIG"), "{said:.300}");
}

/// An old pidfile is replaced, whatever it says; what is too long to be one is somebody's.
#[test]
fn what_is_no_pidfile_is_refused_by_check_and_run_alike() {
    let stage = ph();
    stage.configure("command = sleep 1000");
    let text = "what nobody may lose\n".repeat(10);
    std::fs::write(stage.path("ph.pid"), &text).expect("a file");
    let (_, by_check) = stage.launch(&[], &["check", "-c", "config.ini"]).wait_with_stderr();
    let (code, by_run) = stage.launch(&[], &["run", "-c", "config.ini"]).wait_with_stderr();
    assert_eq!((code, &by_run), (1, &by_check));
    assert!(by_run.contains("210 bytes"), "{by_run}");
    assert_eq!(stage.read("ph.pid"), text);
    std::fs::remove_file(stage.path("ph.pid")).expect("the file");
}

#[test]
fn the_program_of_a_probe_is_looked_for_too() {
    let stage = ph();
    let said = check(&stage, "command = sleep 1\nready = exec:./missing --quick");
    assert!(said.contains("the probe of readiness: "), "{said}");
    assert!(said.contains("set by config.ini:8 ready\n    try: "), "{said}");
    write(&stage, "there", b"#!/bin/sh\n");
    assert_eq!(check(&stage, "command = sleep 1\nready = exec:./there --quick"), "");
}
