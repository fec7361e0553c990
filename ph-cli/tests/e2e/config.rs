//! `ph config` and `ph init`: what people and programs read, and what is written.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

use crate::ph;
use crate::snapshot::assert_snapshot;
use crate::support::Stage;

const TEXT: &str = "\
# For all.
[DEFAULT]
graceful_timeout = 3   ; seconds
root             = run
base_path        = /srv

[web]
command        = ./serve --name 'a b'
number_workers = 2
log_file       = %(root)s/web.log
app_colour     = light blue

[job]
command = ./job
";

/// A stage with that file.
fn stage() -> Stage {
    let stage = ph();
    stage.write("config.ini", TEXT);
    stage
}

impl Stage {
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the folder is writable");
    }
}

/// Runs `ph` to its end: exit code, stdout, stderr.
fn ask(stage: &Stage, arguments: &[&str]) -> (i32, String, String) {
    let number = stage.starts();
    let (code, stderr) = stage.launch(&[], arguments).wait_with_stderr();
    (code, stage.read(&format!("stdout.{number}")), stderr)
}

fn good(stage: &Stage, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = ask(stage, arguments);
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
    stdout
}

#[test]
fn every_value_is_shown_with_its_origin() {
    let mut stage = stage();
    stage.variable("PH_WEB__NUMBER_WORKERS", "3");
    let set = ["config", "show", "web", "--set", "nice=5"];
    let (code, shown, stderr) = ask(&stage, &set);
    assert_eq!(code, 0);
    assert_snapshot("config-show.txt", &stage, &shown);
    assert!(stderr.starts_with("warning: config.ini:3: [DEFAULT] graceful_timeout: "), "{stderr}");
    let (_, shown, _) = ask(&stage, &["config", "show", "--set-only", "-v", "--color", "always"]);
    assert_snapshot("config-show-verbose.txt", &stage, &shown.replace('\x1b', "ESC"));
    let (_, json, _) = ask(&stage, &["config", "show", "--json"]);
    for part in [
        "{\"schema\":1,\"files\":[\"config.ini\"],\"services\":[{\"name\":\"web\",\"settings\":[",
        "{\"key\":\"number_workers\",\"value\":\"3\",\"apply\":\"live\",\
         \"origin\":{\"kind\":\"variable\",\"name\":\"PH_WEB__NUMBER_WORKERS\"},\
         \"overridden\":[{\"value\":\"2\",\"origin\":{\"kind\":\"file\",\"file\":\"config.ini\",\"line\":9}}",
        "{\"key\":\"app_colour\",\"value\":\"light blue\",\"origin\":",
        "{\"name\":\"job\"",
    ] {
        assert!(json.contains(part), "{part}\n{json}");
    }
}

#[test]
fn one_value_is_printed_alone() {
    let stage = stage();
    stage.write("config.ini", &TEXT.replace("   ; seconds", ""));
    assert_eq!(good(&stage, &["config", "get", "Graceful_Timeout", "web"]), "3s\n");
    assert_eq!(good(&stage, &["config", "get", "command", "-s", "web"]), "./serve --name 'a b'\n");
    assert_eq!(good(&stage, &["config", "get", "app_colour", "web"]), "light blue\n");
    assert_eq!(good(&stage, &["config", "get", "log_file", "web"]), "/srv/run/web.log\n");
    let json = good(&stage, &["config", "get", "nice", "web", "--json"]);
    assert!(json.starts_with("{\"schema\":1,\"service\":\"web\",\"key\":\"nice\",\"value\":\"\""));
    for (arguments, wanted, text) in [
        (&["config", "get", "pid_file", "web"][..], 1, "try: pidfile"),
        (&["config", "get", "pidfile", "webb"], 5, "did you mean \"web\"?"),
        (&["config", "get", "pidfile"], 6, "expected one section or a choice"),
        (&["config", "get", "pidfile", "-c", "gone.ini"], 6, "gone.ini: cannot read"),
        (&["config", "get"], 2, "<KEY>"),
    ] {
        let (code, stdout, stderr) = ask(&stage, arguments);
        assert_eq!((code, stdout.as_str()), (wanted, ""), "{stderr}");
        assert!(stderr.contains(text), "{stderr}");
    }
}

#[test]
fn a_value_is_written_in_place_and_nothing_else_changes() {
    let stage = stage();
    let path = stage.path("config.ini");
    std::fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("chmod");
    chown(&path, Some(0), Some(12)).expect("chown");
    let done = good(&stage, &["config", "set", "number_workers", "4", "web"]);
    assert_eq!(done, "config.ini:9: [web] number_workers = 4 (was 2); applies: live\n");
    let done = good(&stage, &["config", "set", "graceful_timeout", "5s", "DEFAULT"]);
    // The comment stays in the file, and is no part of the value.
    let expected = "config.ini:3: [DEFAULT] graceful_timeout = 5s (was 3); applies";
    assert!(done.starts_with(expected), "{done}");
    good(&stage, &["config", "set", "nice", "-5", "-s", "job"]);
    good(&stage, &["config", "unset", "app_colour", "web"]);
    let expected = TEXT
        .replace("number_workers = 2", "number_workers = 4")
        .replace("= 3   ;", "= 5s   ;")
        .replace("app_colour     = light blue\n", "")
        + "nice = -5\n";
    assert_eq!(stage.read("config.ini"), expected);
    let metadata = path.metadata().expect("it is there");
    assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o640, 12));
    assert_eq!(stage.files(), [""; 0]);
}

#[test]
fn what_would_not_hold_is_not_written() {
    let stage = stage();
    for (arguments, wanted, text) in [
        (&["number_worker", "4", "web"][..], 6, "did you mean `number_workers`?"),
        (&["number_workers", "many", "web"], 6, "expected a whole number"),
        (&["number_workers", "5000", "web"], 6, "expected number_workers <= max_workers"),
        (&["log_file", "%(rot)s", "web"], 6, "did you mean `%(root)s`?"),
        (&["root", "%(log_file)s", "DEFAULT"], 6, "no circle"),
        (&["pidfile", "a\n[x]", "web"], 6, ""),
        (&["include", "x.ini", "web"], 6, "move it into [DEFAULT]"),
        (&["nice", "1", "wbe"], 5, "did you mean \"web\"?"),
        (&["nice", "1"], 6, "expected one section or a choice"),
    ] {
        let (code, stdout, stderr) = ask(&stage, &[&["config", "set"], arguments].concat());
        assert_eq!((code, stdout.as_str()), (wanted, ""), "{stderr}");
        assert!(stderr.contains(text), "{text}: {stderr}");
        assert_eq!(stage.read("config.ini"), TEXT);
    }
    let (code, _, stderr) = ask(&stage, &["config", "unset", "nice", "web"]);
    assert_eq!(code, 1, "{stderr}");
    // A file with two problems can be mended one by one.
    stage.write("config.ini", "[web]\nnice = x\numask = 9\n");
    good(&stage, &["config", "set", "nice", "1"]);
    good(&stage, &["config", "set", "umask", "077"]);
    assert_eq!(stage.read("config.ini"), "[web]\nnice = 1\numask = 077\n");
}

#[test]
fn what_wins_over_the_file_is_said() {
    let mut stage = stage();
    stage.variable("PH_WEB__NUMBER_WORKERS", "3");
    let (code, _, stderr) = ask(&stage, &["config", "set", "number_workers", "4", "web"]);
    assert_eq!(code, 0);
    let expected = "warning: [web] still has the value of $PH_WEB__NUMBER_WORKERS\n";
    assert_eq!(stderr, expected);
}

#[test]
fn variables_and_keys_of_the_application_are_written_by_their_names() {
    let stage = ph();
    stage.write("ph.toml", "[DEFAULT]\ninclude = [\"more.toml\"]\n[web]\ncommand = [\"a\"]\n");
    stage.write("more.toml", "[web.environment]\n# where\nHome = \"/a\"\n");
    let done = good(&stage, &["config", "set", "environment.Home", "/b"]);
    assert_eq!(done, "more.toml:3: [web] environment.Home = /b (was /a); applies: roll\n");
    let done = good(&stage, &["config", "set", " Environment.PATH ", "/bin"]);
    assert_eq!(done, "more.toml:4: [web] environment.PATH = /bin (was not set); applies: roll\n");
    let expected = "[web.environment]\n# where\nHome = \"/b\"\nPATH = \"/bin\"\n";
    assert_eq!(stage.read("more.toml"), expected);
    let done = good(&stage, &["config", "unset", "environment.Home", "--json"]);
    let expected = "{\"schema\":1,\"file\":\"more.toml\",\"line\":null,\"section\":\"web\",\
                    \"key\":\"environment.Home\",\"value\":null,\"was\":\"/b\",\"now\":null,\
                    \"apply\":\"roll\",\"overridden_by\":[]}\n";
    assert_eq!(done, expected);
    assert_eq!(stage.read("more.toml"), "[web.environment]\n# where\nPATH = \"/bin\"\n");
    let done = good(&stage, &["config", "set", "App.Colour", "red"]);
    assert_eq!(done, "ph.toml:7: [web] app_colour = red (was not set)\n");
    let done = good(&stage, &["config", "set", "app_Colour", "blue"]);
    assert_eq!(done, "ph.toml:7: [web] app_colour = blue (was red)\n");
    assert_eq!(ask(&stage, &["config", "set", "environment.1", "x"]).0, 6);

    let stage = ph();
    stage.write("config.ini", "[web]\ncommand = ./a\napp_colour = red\n");
    let done = good(&stage, &["config", "set", "app.Colour", "blue"]);
    assert_eq!(done, "config.ini:3: [web] app_colour = blue (was red)\n");
    let (code, _, stderr) = ask(&stage, &["config", "set", "environment.PATH", "/bin"]);
    assert_eq!(code, 6);
    assert!(stderr.contains("set `environment`, which holds all of them"), "{stderr}");
}

#[test]
fn a_value_is_judged_where_another_one_wins() {
    let refused = |stage: &Stage, arguments: &[&str], text: &str| {
        let before = stage.read("config.ini");
        let (code, stdout, stderr) = ask(stage, &[&["config", "set"], arguments].concat());
        assert_eq!((code, stdout.as_str()), (6, ""), "{arguments:?} {stderr}");
        assert!(stderr.contains(text), "{text}: {stderr}");
        assert_eq!(stage.read("config.ini"), before);
    };
    let mut stage = stage();
    stage.variable("PH_NUMBER_WORKERS", "3");
    stage.variable("WEB_CONCURRENCY", "many");
    refused(&stage, &["number_workers", "abc", "web"], "got \"abc\"");
    // All sections have one of their own, or there is none.
    refused(&stage, &["command", "'", "DEFAULT"], "config.ini:6: [DEFAULT] command: ");
    refused(&stage, &["command", "%(rot)s", "DEFAULT"], "did you mean `%(root)s`?");
    stage.write("config.ini", "[DEFAULT]\nnice = 3\n");
    refused(&stage, &["nice", "abc", "DEFAULT"], "got \"abc\"");
    refused(&stage, &["number_worker", "4", "DEFAULT"], "did you mean `number_workers`?");
    refused(&stage, &["include", "[", "DEFAULT"], "config.ini:3: [DEFAULT] include: ");
    good(&stage, &["config", "set", "nice", "4", "DEFAULT"]);
    // A file that is stronger.
    stage.write("config.ini", "[DEFAULT]\ninclude = more.ini\n[web]\nnice = 1\n");
    stage.write("more.ini", "[DEFAULT]\nnice = 2\n");
    let (code, _, stderr) = ask(&stage, &["config", "set", "nice", "abc", "DEFAULT"]);
    assert_eq!(code, 6, "{stderr}");
    assert!(stderr.starts_with("ph: more.ini:2: [DEFAULT] nice: "), "{stderr}");
    // What only some sections can take is right for those.
    stage.write("config.ini", "[DEFAULT]\n[web]\nprog = a\n[job]\ncommand = b\n");
    let (code, _, stderr) = ask(&stage, &["config", "set", "command", "%(prog)s", "DEFAULT"]);
    let expected = "warning: [job] still has the value of config.ini:6\n";
    assert_eq!((code, stderr.as_str()), (0, expected));
}

#[test]
fn a_new_problem_shows_among_any_number_of_old_ones() {
    let stage = ph();
    let old: String = (0..300).map(|number| format!("key_{number} = 1\n")).collect();
    stage.write("config.ini", &format!("[web]\ncommand = ./a\n{old}"));
    let (code, _, stderr) = ask(&stage, &["config", "set", "number_workers", "abc"]);
    assert_eq!(code, 6, "{stderr}");
    assert!(stderr.contains("got \"abc\""), "{stderr}");
    let (code, _, stderr) = ask(&stage, &["config", "set", "key_500", "abc"]);
    assert_eq!((code, stderr.lines().count()), (6, 3), "{stderr}");
    good(&stage, &["config", "set", "number_workers", "4"]);
}

#[test]
fn the_shell_of_an_edit_neither_forbids_nor_permits_it() {
    let mut stage = stage();
    stage.variable("PH_NUMBER_WORKERS", "abc");
    stage.variable("PH_WEB__NICE", "abc");
    good(&stage, &["config", "set", "umask", "077", "web"]);
    // It may be set where the service starts.
    let (code, _, stderr) = ask(&stage, &["config", "set", "nice", "%(ENV_PH_TEST_NICE)s", "web"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.starts_with("warning: config.ini:13: [web] nice: expected"), "{stderr}");
    stage.variable("NICE_OF_IT", "abc");
    let (code, _, stderr) = ask(&stage, &["config", "set", "nice", "%(ENV_NICE_OF_IT)s", "web"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("got \"abc\""), "{stderr}");
}

#[test]
fn what_holds_instead_of_a_value_that_was_taken_out_is_told() {
    let stage = ph();
    stage.write(
        "m.ini",
        "[DEFAULT]\ninclude = conf.d/*.ini\n\n[web]\nnumber_workers = 2 ; two\nnice = 5\n",
    );
    std::fs::create_dir(stage.path("conf.d")).expect("a folder");
    stage.write("conf.d/a.ini", "[web]\nnumber_workers = 3 ; three\n");
    let m = ["-c", "m.ini"];
    let done = good(&stage, &[&["config", "unset", "number_workers"], &m[..]].concat());
    let expected =
        "conf.d/a.ini: [web] number_workers taken out (was 3); m.ini:5 now says 2; applies: live\n";
    assert_eq!(done, expected);
    assert_eq!(stage.read("conf.d/a.ini"), "[web]\n; three\n");
    stage.write("conf.d/a.ini", "[web]\nnumber_workers = 3\n");
    let done = good(&stage, &[&["config", "unset", "number_workers", "--json"], &m[..]].concat());
    let expected = "\"line\":null,\"section\":\"web\",\"key\":\"number_workers\",\"value\":null,\
                    \"was\":\"3\",\"now\":{\"value\":\"2\",\"origin\":\"m.ini:5\"},";
    assert!(done.contains(expected), "{done}");
    let done = good(&stage, &[&["config", "unset", "number_workers", "--json"], &m[..]].concat());
    let expected = "\"was\":\"2\",\"now\":{\"value\":\"1\",\"origin\":\"default\"},";
    assert!(done.contains(expected), "{done}");
    good(&stage, &[&["config", "set", "number_workers", "2"], &m[..]].concat());
    let done = good(&stage, &[&["config", "unset", "number_workers"], &m[..]].concat());
    assert!(done.contains(" taken out (was 2); now the default holds, 1; applies"), "{done}");
    let done = good(&stage, &[&["config", "unset", "nice"], &m[..]].concat());
    assert!(done.contains(" nice taken out (was 5); now it is not set; applies"), "{done}");
}

#[test]
fn comments_after_helpers_of_typed_settings_stay_and_are_no_value() {
    let stage = ph();
    stage.write(
        "config.ini",
        "[web]\ncommand = ./a\nstore = /a ; where\nlog_file = %(store)s/b\nnumber_workers = 2 ; two\n",
    );
    let (code, done, stderr) = ask(&stage, &["config", "set", "store", "/c", "--json"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(done.contains("\"value\":\"/c\",\"was\":\"/a\""), "{done}");
    let done = good(&stage, &["config", "unset", "number_workers"]);
    assert!(done.contains(" taken out (was 2);"), "{done}");
    assert_eq!(
        stage.read("config.ini"),
        "[web]\ncommand = ./a\nstore = /c ; where\nlog_file = %(store)s/b\n; two\n"
    );
    // What a command uses may hold any character.
    stage.write("config.ini", "[web]\ncommand = ./a %(store)s\nstore = /a ; where\n");
    let done = good(&stage, &["config", "set", "store", "/b"]);
    assert!(done.contains("store = /b (was /a ; where)"), "{done}");
}

#[test]
fn an_edit_that_cannot_be_made_now_or_by_this_user_has_a_code_of_its_own() {
    let stage = stage();
    let path = stage.path("config.ini");
    let file = std::fs::File::open(&path).expect("it is there");
    file.lock().expect("nobody else has the lock");
    let (code, _, stderr) = ask(&stage, &["config", "set", "nice", "1", "web"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.starts_with("ph: config.ini: expected to be the only one"), "{stderr}");
    drop(file);
    std::fs::hard_link(&path, stage.path("other.ini")).expect("a hard link");
    let (code, _, stderr) = ask(&stage, &["config", "set", "nice", "1", "web"]);
    assert_eq!(code, 6, "{stderr}");
    assert!(stderr.starts_with("ph: config.ini: expected a file with one name"), "{stderr}");
    assert_eq!(stage.read("config.ini"), TEXT);
}

#[test]
fn nothing_that_is_printed_steers_the_terminal() {
    let stage = ph();
    stage.write("config.ini", "[w\u{9b}b]\ncommand = ./a\napp_\u{9b} = \u{1b}[2J\n");
    let (code, done, stderr) = ask(&stage, &["config", "set", "app_\u{9b}", "\u{7}\u{1b}[1m"]);
    assert_eq!(code, 0, "{stderr}");
    let expected = "config.ini:3: [w\\u{9b}b] app_\\u{9b} = \\u{7}\\u{1b}[1m (was \\u{1b}[2J)\n";
    assert_eq!(done, expected);
    for arguments in [&["unset", "x\u{1b}"][..], &["set", "x\u{1b}", "\u{9b}"]] {
        let (code, stdout, stderr) = ask(&stage, &[&["config"], arguments].concat());
        assert_ne!(code, 0);
        assert!(!(stdout + &stderr).contains(['\u{1b}', '\u{9b}']), "{stderr}");
    }
}

#[test]
fn included_and_toml_files_are_written_where_the_value_is() {
    let stage = ph();
    stage.write("ph.toml", "[DEFAULT]\ninclude = [\"more.toml\"]\n[web]\ncommand = [\"a\"] # it\n");
    stage.write("more.toml", "[web]\nnumber_workers = 2 # two\n");
    // The first of the usual names is taken, so `config.ini` does not count.
    good(&stage, &["config", "set", "number_workers", "3"]);
    good(&stage, &["config", "set", "command", "b 'c d'"]);
    assert_eq!(stage.read("more.toml"), "[web]\nnumber_workers = 3 # two\n");
    assert!(stage.read("ph.toml").ends_with("command = [\"b\", \"c d\"] # it\n"));
    let json = good(&stage, &["config", "set", "umask", "077", "--json"]);
    let start =
        "{\"schema\":1,\"file\":\"ph.toml\",\"line\":5,\"section\":\"web\",\"key\":\"umask\"";
    assert!(json.starts_with(start), "{json}");
}

#[test]
fn a_template_is_printed_or_written_and_holds() {
    let stage = ph();
    let printed = good(&stage, &["init"]);
    assert!(printed.contains("\n;number_workers = 1\n") && printed.contains("\n[web]\n"));
    for file in ["made.ini", "made.toml"] {
        let (code, stdout, stderr) = ask(&stage, &["init", file]);
        assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
        assert_eq!(good(&stage, &["config", "get", "number_workers", "-c", file]), "2\n");
        let (code, _, stderr) = ask(&stage, &["init", file]);
        assert_eq!(code, 1);
        assert!(stderr.contains("nothing is overwritten"), "{stderr}");
    }
    assert_eq!(stage.read("made.ini"), printed);
    assert_eq!(stage.read("made.toml"), good(&stage, &["init", "--toml"]));
    assert_eq!(ask(&stage, &["init", "--toml", "x.ini"]).0, 2);
}

#[test]
fn a_master_takes_variables_and_toml_and_workers_do_not_see_them() {
    let mut stage = ph();
    stage.write(
        "ph.toml",
        "[DEFAULT]\nlog_file = \"ph.log\"\npidfile = \"ph.pid\"\n[web]\n\
         command = [\"sh\", \"-c\", \"env > env.%(slot)s; exec sleep 1000\"]\nmin_uptime = 0.1\n",
    );
    stage.variable("PH_WEB__NUMBER_WORKERS", "2");
    stage.variable("PH_GRACEFUL_TIMEOUT", "9");
    stage.variable("PH_NUMBER_WORKER", "5");
    let master = stage.launch(&[], &["run"]);
    stage.log().wait_ready(2);
    let warned = stage.log().with("did you mean PH_NUMBER_WORKERS?");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert_eq!(master.stop(), 0);
    for slot in 0..2 {
        let seen = stage.read(&format!("env.{slot}"));
        let names = seen.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
        let mut own: Vec<_> = names.filter(|name| name.starts_with("PH_")).collect();
        own.sort_unstable();
        let expected =
            ["PH_GENERATION", "PH_INSTANCE", "PH_MASTER_PID", "PH_NAME", "PH_SLOT", "PH_WORKER_ID"];
        assert_eq!(own, expected);
    }
    let mut adhoc = ph();
    adhoc.variable("WEB_CONCURRENCY", "3");
    let set = ["--set", "base_path=.", "--set", "log_file=ph.log", "--set", "min_uptime=0.1"];
    let arguments = [&["run"], &set[..], &["--", "sleep", "1000"]].concat();
    let master = adhoc.launch(&[], &arguments);
    adhoc.log().wait_ready(3);
    assert_eq!(master.stop(), 0);
}
