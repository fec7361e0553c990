//! What an operator reads when something is wrong, and what wins when it is not.

use std::time::Duration;

use ph_config::{
    Amount, Change, ExtraKeys, LogLevel, LogTarget, Origin, Place, SETTINGS, StopSignal,
    WorkerCount,
};

use crate::Site;

#[test]
fn every_problem_is_in_one_report() {
    let text = "[DEFAULT]\ngraceful_timeout = soon\n\n[web]\nnumber_worker = 3\n\
                daemonize = \x1b[31mmaybe\nstop_signal = KILL\njunk\npidfile = a\n  b\n";
    let report = Site::new(text).set("max_workers", "0").set("nubmer_workers", "3").bad();
    let expected = "\
app.ini:2: [DEFAULT] graceful_timeout: expected a duration, got \"soon\"
    write seconds (3, 0.5), or a unit: 500ms, 10s, 5m, 2h, 1d
app.ini:5: [web] number_worker: expected a known key, got one with the value \"3\"
    did you mean `number_workers`?
app.ini:6: [web] daemonize: expected yes or no, got \"\\u{1b}[31mmaybe\"
    write yes or no (also true/false, on/off, 1/0)
app.ini:7: [web] stop_signal: expected one of TERM, INT, QUIT, HUP, USR1, USR2, WINCH, got \"KILL\"
    to give a worker no time, write graceful_timeout = 0
app.ini:8: expected `key = value`, got \"junk\"
    add `=` and a value; to continue the value above, indent the line
app.ini:9: [web] pidfile: expected one line, got \"a\\nb\"
    an indented line continues the value above it; start the line at the margin
--set nubmer_workers: [web] nubmer_workers: expected a known key, got one with the value \"3\"
    did you mean `number_workers`?
--set max_workers: [web] max_workers: expected a whole number from 1 to 65536, got \"0\"
    write digits only, without sign, point or unit";
    assert_eq!(report, expected);
}

#[test]
fn problems_carry_their_parts() {
    let errors = Site::new("[web]\nbind = 80\n").load().expect_err("no colon");
    let problem = &errors.0[0];
    let origin = Origin::File { path: "app.ini".into(), line: 2 };
    assert_eq!(problem.origin, Place::Value(origin));
    assert_eq!((problem.section.as_deref(), problem.key.as_deref()), (Some("web"), Some("bind")));
    assert_eq!(problem.message, "expected an address (this has \"80\"), got \"80\"");
    assert_eq!(
        problem.mend,
        "write HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH, fd:NUMBER or sd:NAME"
    );
}

#[test]
fn the_last_override_of_a_key_wins() {
    let site = Site::new("[web]\nnumber_workers = 2\n")
        .set("Number_Workers", "3")
        .set("number_workers", "auto")
        .set("reload_surge", "30%")
        .set("log_level", "WARNING");
    let settings = site.good().settings;
    assert_eq!(settings.number_workers, WorkerCount::Auto);
    assert_eq!(settings.origin("NUMBER_WORKERS"), Origin::Flag("--set number_workers".into()));
    assert_eq!(settings.reload_surge, Amount::Percent(30));
    assert_eq!(settings.log_level, LogLevel::Warn);
    assert!(Site::new("[web]").set("app_x", "a\0b").bad().contains("got a NUL character"));
}

#[test]
fn defaults_are_those_of_the_contract() {
    let site = Site::new("[web]\n");
    let settings = site.good().settings;
    assert_eq!(settings.graceful_timeout, Duration::from_secs(30));
    assert_eq!((settings.timeout, settings.boot_timeout), (None, Duration::from_secs(60)));
    assert_eq!(settings.backoff_min, Duration::from_millis(100));
    assert_eq!(settings.reload_surge, Amount::Percent(25));
    assert_eq!(settings.stop_signal, StopSignal::Term);
    assert_eq!(settings.log_file, LogTarget::Stderr);
    assert_eq!(settings.pidfile, site.path("web.pid"));
    assert!(settings.single_instance && !settings.daemonize);
    assert!(settings.command.is_empty() && settings.bind.is_empty());
    assert_eq!(settings.extra_keys, ExtraKeys::Refuse);
    assert!(SETTINGS.iter().all(|row| settings.origin(row.name) == Origin::Default));
}

#[test]
fn changes_are_told_by_value() {
    let text = "[web]\nlog_file = -\nnumber_workers = 1\nbase_path = /srv\n\
                app_b = 1\napp_c = 1\ncommand = a\n";
    let before = Site::new(text).good().settings;
    let text = "[web]\n\nnumber_workers = auto\nbase_path = /\napp_c = 1\napp_a = 5%%\n\
                graceful_timeout = 0.5m\nboot_timeout = 120\n";
    let changes = before.diff(&Site::new(text).good().settings);
    let seen: Vec<String> = changes
        .iter()
        .map(|change| {
            let Change { key, apply, from, to } = change;
            format!("{} {key}: {from} -> {to}", apply.as_str())
        })
        .collect();
    let expected = [
        "restart base_path: /srv -> /",
        "restart log_path: /srv -> /",
        "restart pidfile: /srv/web.pid -> /web.pid",
        "live number_workers: 1 -> auto",
        "roll command: a -> ",
        "live boot_timeout: 1m -> 2m",
        "roll app_a:  -> 5%",
        "roll app_b: 1 -> ",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn nothing_takes_back_what_is_inherited() {
    let text =
        "[DEFAULT]\ntimeout = 5\nbind = :80\ncommand = x\n[web]\ntimeout =\nbind =\ncommand=\n";
    let settings = Site::new(text).good().settings;
    assert_eq!((settings.timeout, settings.bind.len(), settings.command.len()), (None, 0, 0));
    let refused = Site::new("[web]\nmax_requests =\n").bad();
    assert!(refused.contains("got nothing"), "{refused}");
}

#[test]
fn unknown_keys() {
    let text = "[DEFAULT]\nroot = /srv\ndepot = x\n[web]\npidfile = %(root)s/%(leaf)s\nleaf = w\n\
                app_Key = V\n[job]\nlog_file = %(depot)s/%(leaf)s\nleaf = l\nspare = %(spare2)s\n\
                spare2 = 1\n";
    let web = Site::new(text).section("web").good();
    assert_eq!(web.settings.app.iter().collect::<Vec<_>>(), [(&"key".into(), &"V".into())]);
    // Hiding the value that uses a helper does not make the helper a mistake.
    Site::new(text).section("web").set("pidfile", "/x").good();
    let job = Site::new(text).section("job").bad();
    assert!(job.starts_with("app.ini:11: [job] spare: expected a known key"), "{job}");
    assert!(job.contains("a key for the application itself is called `app_spare`"), "{job}");
    let lax = Site::new(text).section("job").set("extra_keys", "allow");
    assert_eq!(lax.good().warnings.len(), 2);
    assert!(Site::new("[web]\napp_ = 1\n").bad().contains("app_: expected a known key"));
}

#[test]
fn settings_that_do_not_fit_together() {
    let text = "[web]\nbackoff_min = 40\nnumber_workers = 8\nmax_workers = 4\nmin_uptime = 2m\n\
                log_file = x\npidfile = x\nunix_socket = y\nbind = unix:./y\nreload_surge = 0\n";
    let report = Site::new(text).bad();
    for expected in [
        "app.ini:2: [web] backoff_min: expected backoff_min <= backoff_max, got 40s and 30s",
        "app.ini:3: [web] number_workers: expected number_workers <= max_workers, got 8 and 4",
        "app.ini:5: [web] min_uptime: expected min_uptime < boot_timeout, got 120s and 60s",
        "/x\" for pidfile and log_file",
        "/y\" for unix_socket and bind",
        "app.ini:10: [web] reload_surge: expected one worker more or one fewer in a roll",
    ] {
        assert!(report.contains(expected), "{expected}\n---\n{report}");
    }
    let flag = Site::new("[web]\nbackoff_min = 2\n").set("backoff_max", "1").bad();
    assert!(
        flag.starts_with("--set backoff_max: [web] backoff_max: expected backoff_min"),
        "{flag}"
    );
}

/// Whoever answers at an address that all share, it need not be the worker that was asked.
#[test]
fn a_probe_is_of_an_address_that_only_one_worker_has() {
    for (bind, ready) in [
        (":80", "tcp:localhost:80"),
        ("0.0.0.0:80", "http://10.0.0.1/"),
        ("127.0.0.1:80", "tcp:localhost:80"),
        ("[::1]:81, a.b:80", "http://A.B:80/healthz"),
        (":803", "tcp:a:80%(slot)s"),
    ] {
        let text = format!("[web]\nnumber_workers = 4\nbind = {bind}\nready = {ready}\n");
        let report = Site::new(&text).bad();
        let expected = "expected an address of each worker's own to probe";
        assert!(report.contains(expected), "{text}{report}");
    }
    for (bind, ready) in [
        (":80", "tcp:localhost:81"),
        ("127.0.0.1:80", "tcp:10.0.0.1:80"),
        ("unix:a.sock", "tcp:localhost:80"),
        (":0", "tcp:localhost:80%(slot)s"),
        (":80", "notify"),
    ] {
        Site::new(format!("[web]\nbind = {bind}\nready = {ready}\n")).good();
    }
}

#[test]
fn a_default_that_does_not_fit_says_what_to_set() {
    let report = Site::new("[my/app]\n").bad();
    assert!(report.contains("default: [my/app] proc_name: expected a name"), "{report}");
    assert!(report.contains("does not fit here: set `proc_name`"), "{report}");
    let report = Site::new("[my/app]\nproc_name = a\n").bad();
    assert!(report.contains("expected a file name in the section"), "{report}");
}

#[test]
fn a_flood_of_problems_is_bounded() {
    let mut text = String::from("[web]\n");
    (0..5000).for_each(|n| text += &format!("unknown{n} = 1\n"));
    let errors = Site::new(text).load().expect_err("no key is known");
    assert_eq!(errors.0.len(), 101);
    assert_eq!(errors.0[100].message, "more problems are not listed");
}
