//! TOML files: the same keys, the same rules.

use std::time::Duration;

use ph_config::{Amount, Bind, CpuAffinity};

use crate::Site;

#[test]
fn every_kind_of_value_as_toml_writes_it() {
    let text = r#"
[default]
root = "run"
graceful_timeout = 0.5
restart_window = 90

[web]
number_workers = 4
single_instance = false
reload_surge = "50%"
umask = 0o027
command = ["./serve", "--name", "a b;'c", "--slot=%(slot)s", "%(root)s", ""]
bind = ["127.0.0.1:8000", ":%(port)s"]
port = 8001
pidfile = "%(base_path)s/%(root)s/x.pid"
cpu_affinity = [0, "2-3"]
log_file = "a ; b.log"
rlimit_nofile = 1024

[web.environment]
NAME = 'a "quoted", and % %% %(slot)s'
COUNT = 3

[web.app]
Colour = "%(root)s; red"
"#;
    // A percent sign is doubled in TOML too.
    let site = Site::toml(text.replace("and % %%", "and %% %%"));
    let settings = site.good().settings;
    assert_eq!(settings.command, ["./serve", "--name", "a b;'c", "--slot=%(slot)s", "run", ""]);
    assert_eq!(settings.graceful_timeout, Duration::from_millis(500));
    assert_eq!((settings.workers(), settings.umask, settings.single_instance), (4, 0o27, false));
    assert_eq!(settings.reload_surge, Amount::Percent(50));
    assert_eq!(settings.bind[1], Bind::Tcp { host: None, port: 8001 });
    assert_eq!(settings.cpu_affinity, Some(CpuAffinity::List(vec![0, 2, 3])));
    assert_eq!(settings.pidfile, site.path("run/x.pid"));
    assert_eq!(settings.log_file, ph_config::LogTarget::File(site.path("a ; b.log")));
    let environment = [
        ("NAME".to_owned(), "a \"quoted\", and % % %(slot)s".to_owned()),
        ("COUNT".to_owned(), "3".to_owned()),
    ];
    assert_eq!(settings.environment, environment);
    assert_eq!(settings.app["colour"], "run; red");
    assert_eq!(settings.origin("command").to_string(), "app.toml:12");
    assert_eq!(settings.origin("environment").to_string(), "app.toml:20");
    assert_eq!(settings.origin("app_colour").to_string(), "app.toml:25");
    assert_eq!(settings.origin("restart_window").to_string(), "app.toml:5");
    assert_eq!(site.warnings(), "");
}

#[test]
fn every_problem_is_in_one_report() {
    let text = "[web]\nnumber_workers = -1\ngraceful_timeout = 2020-01-01\nbind = [\"a,b:1\"]\n\
                log_level = [\"info\"]\nnumber_worker = 1\ncommand = \"%(slots)s\"\npidfile = true false\n\
                umask = 0x12\nenvironment = [\"A=1\"]\n[web.app]\nx = \"%(slot)s\"\n[web.user]\n";
    let expected = "\
app.toml:2: [web] number_workers: expected a whole number from 1 to max_workers, or `auto`, got \"-1\"
    write digits only, without sign, point or unit
app.toml:3: [web] graceful_timeout: expected text, a number or a boolean, got datetime
    write the value in quotes
app.toml:4: [web] bind: expected items without a comma (this has \"a,b:1\"), got \"a,b:1\"
    make an item of the list for each
app.toml:5: [web] log_level: expected one value, not a list, got \"info\"
    write one value without brackets
app.toml:6: [web] number_worker: expected a known key, got one with the value \"1\"
    did you mean `number_workers`?
app.toml:7: [web] command: expected names that are set (`%(slots)s` is not), got \"%(slots)s\"
    did you mean `%(slot)s`?
app.toml:8: expected TOML, got a mistake: string values must be quoted, expected literal string
    write `key = value` with quotes around text; https://toml.io has the rules
app.toml:9: [web] umask: expected an octal number, got \"0x12\"
    write it as 0o022, or in quotes as \"022\"
app.toml:10: [web] environment: expected one value, not a list, got \"A=1\"
    write one value without brackets
app.toml:12: [web] app_x: expected a value that all workers share (`%(slot)s` differs), got \"%(slot)s\"
    use it in `command`, `environment`, `ready` or `worker_log_file` only
app.toml:13: [web] user: expected a value, got a table
    only `environment` and `app` are tables; a name with a dot needs quotes";
    assert_eq!(Site::toml(text).bad(), expected);
}

#[test]
fn bytes_and_names() {
    assert!(
        Site::toml(b"[web]\nlog_path = \"\xff\"\n").bad().starts_with("app.toml:2: expected UTF-8")
    );
    assert!(Site::toml("[web]\n\0").bad().starts_with("app.toml:2: expected text, got a NUL byte"));
    let text = "\u{feff}[DEFAULT]\r\nnumber_workers = 2\r\n[\"a.b c\"]\r\nproc_name = 'x'\r\n";
    let site = Site::toml(text);
    assert_eq!(site.sections(), ["a.b c"]);
    assert_eq!(site.good().settings.origin("number_workers").to_string(), "app.toml:2");
    let twice = Site::toml("[web]\napp_a = 1\n[web]\napp_b = 1\n").bad();
    assert!(
        twice.starts_with("app.toml:3: expected TOML, got a mistake: duplicate key"),
        "{twice}"
    );
    assert!(Site::toml("number_workers = 1\n").bad().contains("expected a table"));
}

#[test]
fn numbers_keep_what_may_be_meant_by_them() {
    let text = "[web]\numask = 0o27\nnumber_workers = 0x10\ngraceful_timeout = 1_0.50\n\
                [web.app]\nversion = 1.10\nlarge = 1e3\n[web.environment]\nV = 2.0\nN = 0o17\n";
    let settings = Site::toml(text).good().settings;
    assert_eq!((settings.umask, settings.workers()), (0o27, 16));
    assert_eq!(settings.graceful_timeout, Duration::from_millis(10_500));
    assert_eq!((&*settings.app["version"], &*settings.app["large"]), ("1.10", "1e3"));
    let seen: Vec<&str> = settings.environment.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(seen, ["2.0", "15"]);
    for bad in ["0x1f", "0b11", "+22"] {
        assert!(Site::toml(format!("[web]\numask = {bad}\n")).bad().contains("write it as 0o022"));
    }
}

#[test]
fn a_mistake_does_not_hide_the_section_it_is_in() {
    let text = "[web]\napp_re = \"a[b\"\nnumber_workers = 1\n[job]\nx x\n";
    let bad = Site::toml(text).section("web").bad();
    assert!(bad.starts_with("app.toml:5: expected TOML") && bad.lines().count() == 2, "{bad}");
    // Where nothing can be read, the missing section is not what is wrong.
    let bad = Site::toml("[web]\na = [1,\nb = 2\n").section("web").bad();
    assert!(!bad.contains("expected a section"), "{bad}");
    let deep = format!("[web]\n{}x = 1\n", "a.".repeat(100_000));
    assert!(Site::toml(deep).bad().starts_with("app.toml"));
    assert_eq!(Site::toml("[Default]\n[web]\n").sections(), ["Default", "web"]);
}
