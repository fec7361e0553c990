//! Who workers are and what they get: user, group, mask, limits, CPUs, variables.

use ph_config::{CpuAffinity, EnvFile, Id, KillMode, Origin, Rlimit, SETTINGS, bind_late};

use crate::Site;

fn name(text: &str) -> Id {
    Id::Name(text.to_owned())
}

fn write(site: &Site, file: &str, text: impl AsRef<[u8]>) {
    std::fs::write(site.path(file), text).expect("the folder is writable");
}

fn pairs(variables: &[(String, String)]) -> Vec<(&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[test]
fn defaults_leave_workers_as_they_are() {
    let settings = Site::new("[web]\n").good().settings;
    assert_eq!((&settings.user, &settings.group, settings.umask), (&None, &None, 0o22));
    assert_eq!(
        (settings.nice, settings.oom_score_adj, &settings.cpu_affinity),
        (None, None, &None)
    );
    assert!(!settings.clear_env && settings.environment.is_empty());
    assert!(settings.env_file.is_empty() && settings.file_environment().is_empty());
    assert!(settings.rlimits().is_empty() && settings.effective_group().is_none());
    assert_eq!(settings.kill_mode, KillMode::Tree);
}

#[test]
fn every_key_is_read_and_knows_its_line() {
    let text = "[web]\nuser = www:33 ; the usual one\numask = 0077\nnice = -5\n\
                oom_score_adj = 500\ncpu_affinity = 2-3, 0\n  3\nclear_env = yes\n\
                kill_mode = Group\nrlimit_nofile = 1024:unlimited\nrlimit_core = 0\n\
                rlimit_cpu = 1h:infinity\n";
    let site = Site::new(text).set("rlimit_stack", "8MB");
    let settings = site.good().settings;
    let user = settings.user.as_ref().expect("it is set");
    assert_eq!((&user.user, &user.group), (&name("www"), &Some(Id::Number(33))));
    assert_eq!(settings.effective_group(), Some(&Id::Number(33)));
    assert_eq!(
        (settings.umask, settings.nice, settings.oom_score_adj),
        (0o77, Some(-5), Some(500))
    );
    assert_eq!(settings.cpu_affinity, Some(CpuAffinity::List(vec![0, 2, 3])));
    assert_eq!((settings.clear_env, settings.kill_mode), (true, KillMode::Group));
    let both = |limit| Rlimit { soft: Some(limit), hard: Some(limit) };
    let limits = [
        ("rlimit_core", both(0)),
        ("rlimit_cpu", Rlimit { soft: Some(3600), hard: None }),
        ("rlimit_nofile", Rlimit { soft: Some(1024), hard: None }),
        ("rlimit_stack", both(8 << 20)),
    ];
    assert_eq!(settings.rlimits(), limits);
    assert_eq!(settings.origin("user").to_string(), "app.ini:2");
    assert_eq!(settings.origin("rlimit_nofile").to_string(), "app.ini:10");
    assert_eq!(settings.origin("rlimit_stack"), Origin::Flag("--set rlimit_stack".into()));
    assert_eq!(settings.origin("group"), Origin::Default);
}

#[test]
fn all_limits_of_the_table_are_told() {
    let rows: Vec<&str> =
        SETTINGS.iter().map(|row| row.name).filter(|name| name.starts_with("rlimit_")).collect();
    assert_eq!(rows.len(), 15, "all that Linux looks at: of file locks it does not");
    let site = rows.iter().fold(Site::new("[web]\n"), |site, row| site.set(row, "7"));
    let told: Vec<&str> = site.good().settings.rlimits().iter().map(|(key, _)| *key).collect();
    assert_eq!(told, rows);
}

#[test]
fn the_group_is_named_once() {
    let group = |text: &str| {
        let settings = Site::new(format!("[web]\n{text}")).good().settings;
        settings.effective_group().map(ToString::to_string)
    };
    assert_eq!(group("user = a"), None);
    assert_eq!(group("user = a:b").as_deref(), Some("b"));
    assert_eq!(group("group = c").as_deref(), Some("c"));
    assert_eq!(group("user = a\ngroup = 7").as_deref(), Some("7"));
    assert_eq!(group("user = a:07\ngroup = 7").as_deref(), Some("7"));
    let report = Site::new("[web]\nuser = a:b\n").set("group", "c").bad();
    let expected = "--set group: [web] group: expected one group, got \"b\" in user and \"c\" in \
                    group\n    \
                    name the group once, in user or in group";
    assert_eq!(report, expected);
}

#[test]
fn refusals_say_how_to_mend() {
    let text = "[web]\nuser = a b\ngroup = 4294967295\numask = 0x12\nnice = 20\n\
                cpu_affinity = 3-2\nrlimit_nofile = 9:8\nrlimit_as = 1.5GB\nrlimit_cpu = 0.5\n\
                kill_mode = control-group\nenvironment = PH_SLOT=1\nrlimit_nofiles = 1\n";
    let expected = "\
app.ini:2: [web] user: expected the name or the id of a user (this has \"a b\"), got \"a b\"
    use 1 to 256 bytes without colon, white space and control characters, and no `-` at the start
app.ini:3: [web] group: expected a group id from 0 to 4294967294, got \"4294967295\"
    write the name, or the number that `id` shows
app.ini:4: [web] umask: expected an octal number from 0 to 777, got \"0x12\"
    write octal digits (0 to 7), for example 022 or 0o077
app.ini:5: [web] nice: expected a whole number from -20 to 19, got \"20\"
    write digits only, with `-` before them if it is negative
app.ini:6: [web] cpu_affinity: expected ranges from low to high (this has \"3-2\"), got \"3-2\"
    write 2-3
app.ini:7: [web] rlimit_nofile: expected a soft limit that is not above the hard one, got \"9:8\"
    write SOFT:HARD with the smaller one first, or one value for both
app.ini:8: [web] rlimit_as: expected a size, unlimited, or SOFT:HARD, got \"1.5GB\"
    write bytes (65536), or a unit: 64KB, 10MB, 1GB
app.ini:9: [web] rlimit_cpu: expected a duration of whole seconds, unlimited, or SOFT:HARD, got \"0.5\"
    the kernel counts whole seconds; write for example 10 or 5m
app.ini:10: [web] kill_mode: expected one of tree, group, process, got \"control-group\"
    write one of these words
app.ini:11: [web] environment: expected a variable that is not the master's (this has \"PH_SLOT\"), got \"PH_SLOT=1\"
    take it out: the master sets these itself
app.ini:12: [web] rlimit_nofiles: expected a known key, got one with the value \"1\"
    did you mean `rlimit_nofile`?";
    assert_eq!(Site::new(text).bad(), expected);
}

#[test]
fn variables_keep_late_names_and_semicolons() {
    let text = "[web]\nroot = /srv ; kept\nenvironment = PORT=80%(slot)s, PATH=\"/a:/b, c\" ,\n  \
                ROOT=%(root)s\n  # a comment line\n  SHARE=5%%,G='%(generation)s'\n";
    let site = Site::new(text);
    let settings = site.good().settings;
    let expected = [
        ("PORT", "80%(slot)s"),
        ("PATH", "/a:/b, c"),
        ("ROOT", "/srv ; kept"),
        ("SHARE", "5%"),
        ("G", "%(generation)s"),
    ];
    assert_eq!(pairs(&settings.environment), expected);
    assert_eq!(bind_late(&settings.environment[0].1, 3, 1), "803");
    assert_eq!(site.warnings(), "");
    let escaped = Site::new("[web]\nenvironment = A=%%(slot)s\n").bad();
    assert!(escaped.contains("as names, not as text"), "{escaped}");
    let elsewhere = Site::new("[web]\numask = %(slot)s\n").bad();
    assert!(
        elsewhere.contains("use it in `command`, `environment`, `ready` or `worker_log_file` only"),
        "{elsewhere}"
    );
    let inherited = "[DEFAULT]\nenvironment = A=1\n[web]\nenvironment =\n";
    assert!(Site::new(inherited).good().settings.environment.is_empty());
}

#[test]
fn variables_of_files() {
    let site = Site::new(
        "[web]\nbase_path = etc\nenv_file = a.env, -gone.env ; may be missing\n  -../b.env\n",
    );
    std::fs::create_dir(site.path("etc")).expect("the folder is writable");
    write(
        &site,
        "etc/a.env",
        "\u{feff}# first\r\nexport A=1\r\n\r\nB=\"two, \\\"2\\\"\"\r\nA=1b\r\n",
    );
    write(&site, "b.env", "; second\nC='%(slot)s'\nB=3\n");
    let loaded = site.good();
    let settings = loaded.settings;
    assert_eq!(pairs(settings.file_environment()), [("A", "1b"), ("B", "3"), ("C", "%(slot)s")]);
    let optional = EnvFile { path: site.path("etc/gone.env"), optional: true };
    assert_eq!((settings.env_file.len(), &settings.env_file[1]), (3, &optional));
    assert_eq!(settings.origin("env_file").to_string(), "app.ini:3");
    assert_eq!(loaded.warnings.len(), 1);
    // What the files hold counts as a change of the key.
    assert!(settings.diff(&site.good().settings).is_empty());
    write(&site, "b.env", "C='%(slot)s'\nB=4\n");
    let changes = settings.diff(&site.good().settings);
    assert_eq!(changes.iter().map(|change| &change.key).collect::<Vec<_>>(), ["env_file"]);
    // Their values are secrets, so only the list of files is told.
    let files = site.path("etc/a.env").display().to_string()
        + &format!(
            ", -{}, -{}",
            site.path("etc/gone.env").display(),
            site.path("etc/../b.env").display()
        );
    assert_eq!((&changes[0].from, &changes[0].to), (&files, &files));
}

#[test]
fn every_problem_of_every_env_file_is_in_the_report() {
    let text = "[web]\nnumber_workers = 0\nenv_file = b.env, a.env, gone.env, fifo, ., -/dev/null\n\
                \n\n\n\nnice = x\n";
    let site = Site::new(text);
    nix::unistd::mkfifo(&site.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    write(&site, "b.env", "A=1\n\nLISTEN_FDS=3\nnonsense\nB='open\n");
    write(&site, "a.env", b"A=1\nB=\xff\n");
    // `.` is no file name, so the list itself is refused and no file is read.
    let whole = site.bad();
    assert!(whole.contains("[web] env_file: expected the path of a file"), "{whole}");
    assert!(!whole.contains("b.env:"), "{whole}");
    let list = "b.env, a.env, gone.env, fifo, -/dev/null, -long.env";
    let site = site.set("env_file", list);
    write(&site, "long.env", "#".repeat(1024 * 1024 + 1));
    let folder = site.path("").to_str().expect("UTF-8").to_owned();
    let expected = "\
app.ini:2: [web] number_workers: expected a whole number from 1 to max_workers, or `auto`, got \"0\"
    write digits only, without sign, point or unit
app.ini:8: [web] nice: expected a whole number from -20 to 19, got \"x\"
    write digits only, with `-` before them if it is negative
b.env:3: expected a variable that is not the master's, got \"LISTEN_FDS\"
    take it out: the master sets these itself
b.env:4: expected NAME=value, got a line without `=`
    write NAME=value on one line; a comment begins with `#`
b.env:5: expected a closing quote on the same line, got none in \"B\"
    close the quote; within double quotes \\\" is a quote
a.env:2: expected UTF-8, got bytes of another encoding
    save the file as UTF-8
--set env_file: [web] env_file: \"gone.env\": cannot read the variables: No such file or directory (os error 2)
    check the path, or put `-` before it if the file may be missing
--set env_file: [web] env_file: \"fifo\": expected a regular file, got a FIFO
    name a file with lines of NAME=value
--set env_file: [web] env_file: \"/dev/null\": expected a regular file, got a device or socket
    name a file with lines of NAME=value
--set env_file: [web] env_file: \"long.env\": expected at most 1048576 bytes, got more
    check that this file holds variables and not data";
    assert_eq!(site.bad().replace(&folder, ""), expected);
}

#[test]
fn variables_of_files_are_bounded() {
    let site = Site::new("[web]\nenv_file = a.env, b.env\n");
    let lines = |numbers: std::ops::Range<usize>| {
        numbers.map(|n| format!("A{n}={n}\n")).collect::<String>()
    };
    write(&site, "a.env", lines(0..1000));
    write(&site, "b.env", lines(0..1024));
    assert_eq!(site.good().settings.file_environment().len(), 1024);
    write(&site, "b.env", lines(0..50_000));
    let report = site.bad();
    assert!(
        report.contains("b.env:1025: expected at most 1024 variables in all files"),
        "{report}"
    );
    assert!(report.ends_with("more problems are not listed\n    mend these first"), "{report}");
}
