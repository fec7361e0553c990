//! What `ph config` and `ph init` say when something is wrong, to people and to programs.

use std::os::unix::fs::PermissionsExt as _;

use crate::ph;
use crate::support::Stage;

/// Runs `ph` to its end: exit code, stdout, stderr.
fn ask(stage: &Stage, text: &[u8], arguments: &[&str]) -> (i32, String, String) {
    std::fs::write(stage.path("config.ini"), text).expect("the folder is writable");
    let number = stage.starts();
    let (code, stderr) = stage.launch(&[], arguments).wait_with_stderr();
    (code, stage.read(&format!("stdout.{number}")), stderr)
}

#[test]
fn all_sections_are_judged_in_one_report() {
    let stage = ph();
    let text = b"[DEFAULT]\numask = 9\n[a]\nnice = x\n[b]\nnice = y\n[c]\n";
    let (code, stdout, stderr) = ask(&stage, text, &["config", "show"]);
    assert_eq!((code, stdout.as_str()), (6, ""));
    for part in ["config.ini:2: [DEFAULT] umask", "config.ini:4: [a]", "config.ini:6: [b]"] {
        assert_eq!(stderr.matches(part).count(), 1, "{part}: {stderr}");
    }
    let text = b"[a]\n[b]\n[c]\n";
    let (code, stdout, _) = ask(&stage, text, &["config", "show", "c", "-s", "a", "-s", "c"]);
    let headers: Vec<&str> = stdout.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!((code, headers), (0, vec!["[c]", "[a]"]));
}

#[test]
fn a_file_that_is_not_understood_is_bad_and_lacks_no_section() {
    let stage = ph();
    let (code, _, stderr) = ask(&stage, b"[web\n", &["config", "get", "nice", "web"]);
    assert_eq!(code, 6, "{stderr}");
    assert!(!stderr.contains("expected a section \"web\""), "{stderr}");
    assert_eq!(ask(&stage, b"[web]\n", &["config", "get", "nice", "wbe"]).0, 5);
}

#[test]
fn programs_read_failures_as_json_too() {
    let stage = ph();
    for (arguments, code, part) in [
        (&["config", "show", "--json", "-c", "gone.ini"][..], 6, "gone.ini: cannot read"),
        (&["config", "get", "nicer", "--json"], 1, "\"remedy\":\"nice"),
        (&["config", "get", "nice", "wbe", "--json"], 5, "did you mean"),
        (&["config", "set", "nice", "x", "--json"], 6, "expected a whole number"),
        (&["init", "config.ini", "--json"], 1, "nothing is overwritten"),
    ] {
        let (found, stdout, stderr) = ask(&stage, b"[web]\n", arguments);
        assert_eq!((found, stderr.as_str()), (code, ""), "{arguments:?}");
        let start = format!("{{\"error\":{{\"code\":{code},");
        assert!(stdout.starts_with(&start) && stdout.contains(part), "{arguments:?}: {stdout}");
        assert!(stdout.ends_with("\"schema\":1}\n") && stdout.lines().count() == 1, "{stdout}");
    }
    let (_, stdout, _) = ask(&stage, b"", &["init", "--toml", "--json"]);
    assert!(stdout.starts_with("{\"file\":null,\"schema\":1,\"text\":\"#"), "{stdout}");
}

#[test]
fn no_text_of_a_file_or_a_name_steers_the_terminal() {
    let stage = ph();
    let text = b"[web]\napp_\x1b[31mred = \x1b[2J\n";
    let (code, stdout, _) = ask(&stage, text, &["config", "show", "--set-only"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("app_\\u{1b}[31mred  \\u{1b}[2J"), "{stdout:?}");
    for file in ["a\x1b[31m.ini", "a\x1b[31m.ini"] {
        let (_, _, stderr) = ask(&stage, text, &["init", file]);
        assert!(stderr.contains("a\\u{1b}[31m.ini") && !stderr.contains('\x1b'), "{stderr:?}");
    }
}

#[test]
fn a_usual_name_that_leads_nowhere_is_not_passed_over() {
    let stage = ph();
    std::os::unix::fs::symlink("missing", stage.path("ph.ini")).expect("a link");
    let (code, _, stderr) = ask(&stage, b"[web]\n", &["config", "get", "nice"]);
    assert_eq!(code, 6);
    assert!(stderr.starts_with("ph: ph.ini: cannot read the configuration"), "{stderr}");
}

#[test]
fn root_takes_no_configuration_that_others_may_write() {
    let stage = ph();
    let text = b"[web]\ncommand = sleep 1\n";
    std::fs::write(stage.path("config.ini"), text).expect("the folder is writable");
    let open = std::fs::Permissions::from_mode(0o646);
    std::fs::set_permissions(stage.path("config.ini"), open).expect("chmod");
    for verb in [&["run"][..], &["check"], &["config", "show"], &["config", "set", "nice", "1"]] {
        let (code, stdout, stderr) = ask(&stage, text, &[verb, &["-c", "config.ini"]].concat());
        assert_eq!((code, stdout.as_str()), (6, ""), "{verb:?}");
        assert!(stderr.starts_with("ph: config.ini: expected a file that only root"), "{stderr}");
        assert!(stderr.contains("chmod o-w ") && stderr.contains("--allow-writable"), "{stderr}");
    }
    let (code, _, stderr) = ask(&stage, text, &["config", "show", "--allow-writable"]);
    assert_eq!(code, 0);
    assert!(stderr.starts_with("warning: config.ini: expected a file that only root"), "{stderr}");
}

#[test]
fn one_variable_is_a_value_too() {
    let stage = ph();
    let text = b"[web]\nenvironment = Path=/bin, B=\"x, y\"\napp_Foo = 1\n";
    for (key, wanted) in
        [("environment.Path", "/bin\n"), ("environment.B", "x, y\n"), ("app.Foo", "1\n")]
    {
        assert_eq!(ask(&stage, text, &["config", "get", key]).1, wanted);
    }
    let (code, _, stderr) = ask(&stage, text, &["config", "get", "environment.path"]);
    assert_eq!(code, 1, "{stderr}");
    let (_, json, _) = ask(&stage, text, &["config", "get", "environment.B", "--json"]);
    assert!(
        json.contains("\"key\":\"environment.B\",\"value\":\"x, y\",\"apply\":\"roll\""),
        "{json}"
    );
}

#[test]
fn a_log_that_is_the_program_or_the_configuration_by_another_name_is_refused() {
    let stage = ph();
    std::fs::copy("/bin/sleep", stage.path("serve")).expect("a program");
    std::fs::hard_link(stage.path("serve"), stage.path("linked")).expect("a link");
    let text = b"[web]\ncommand = ./serve 100\nlog_file = linked\n";
    for verb in ["check", "run"] {
        let (code, _, stderr) = ask(&stage, text, &[verb, "-c", "config.ini"]);
        assert_eq!(code, 6, "{stderr}");
        assert!(stderr.contains("set by config.ini:3 log_file"), "{stderr}");
    }
    std::fs::hard_link(stage.path("config.ini"), stage.path("again")).expect("a link");
    let text = b"[web]\ncommand = sleep 100\nlog_file = again\n";
    assert_eq!(ask(&stage, text, &["run", "-c", "config.ini"]).0, 6);
}

#[test]
fn a_program_of_a_group_is_the_business_of_its_user() {
    let stage = ph();
    std::fs::copy("/bin/sleep", stage.path("serve")).expect("a program");
    std::os::unix::fs::chown(stage.path("serve"), Some(1000), Some(33)).expect("chown");
    let mode = std::fs::Permissions::from_mode(0o775);
    std::fs::set_permissions(stage.path("serve"), mode).expect("chmod");
    let everyone = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(stage.folder(), everyone).expect("chmod");
    let as_root = b"[web]\ncommand = ./serve 100\n";
    assert_eq!(ask(&stage, as_root, &["check"]).0, 6);
    let as_user = b"[web]\ncommand = ./serve 100\nuser = nobody\n";
    let (code, _, stderr) = ask(&stage, as_user, &["check"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("group 33 may write"), "{stderr}");
}

#[test]
fn a_variable_that_wins_is_told_of_even_if_it_is_bad() {
    let mut stage = ph();
    stage.variable("PH_NUMBER_WORKERS", "x");
    let text = b"[web]\ncommand = sleep 1\nnumber_workers = 5\n";
    let warning = "warning: [web] still has the value of $PH_NUMBER_WORKERS\n";
    let (code, stdout, stderr) = ask(&stage, text, &["config", "unset", "number_workers"]);
    assert_eq!((code, stderr.as_str()), (0, warning));
    assert!(!stdout.contains("now the default"), "{stdout}");
    let (code, _, stderr) = ask(&stage, text, &["config", "set", "number_workers", "2"]);
    assert_eq!((code, stderr.as_str()), (0, warning));
    // A file that is not understood is bad, whatever is to be done to it.
    let (code, _, stderr) = ask(&stage, b"[web]\nx\n", &["config", "unset", "nice"]);
    assert_eq!(code, 6, "{stderr}");
    assert_eq!(ask(&stage, b"[web]\n", &["config", "unset", "nice"]).0, 1);
}

/// Whatever people read of what is wrong, programs get one by one.
#[test]
fn programs_are_told_each_problem() {
    let stage = ph();
    let text = b"[DEFAULT]\numask = 9\n[web]\nwhat is this\nnice = high\n";
    for verb in ["start", "restart", "rotate"] {
        let (code, stdout, stderr) = ask(&stage, text, &[verb, "--json"]);
        assert_eq!((code, stderr.as_str()), (6, ""));
        let json: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
        let problems = json["error"]["problems"].as_array().expect("a list");
        let places: Vec<_> =
            problems.iter().map(|it| format!("{} {}", it["line"], it["key"])).collect();
        assert_eq!(places, ["2 \"umask\"", "4 null", "5 \"nice\""], "{json}");
        for problem in problems {
            assert_eq!(problem["file"], "config.ini", "{json}");
            let is_told = |part| problem[part].as_str().is_some_and(|text| !text.is_empty());
            assert!(["message", "remedy", "origin"].into_iter().all(is_told), "{json}");
        }
        for part in ["origin", "remedy", "key", "file", "line"] {
            assert_eq!(json["error"][part], problems[0][part], "{json}");
        }
    }
}
