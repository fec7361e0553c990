//! The conditions commands run under: user and groups, limits, priority, CPUs, environment. Numbers are
//! those of docs/faults.md.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::ph;
use crate::snapshot::assert_snapshot;
use crate::support::{Master, Process, Stage, require};

/// Two `sleep`s under these conditions.
fn sleeping(stage: &Stage, wrapper: &[&str], lines: &str) -> (Master, [Process; 2]) {
    stage
        .configure(&format!("command = sleep 1000\nnumber_workers = 2\nmin_uptime = 0.1\n{lines}"));
    let master = stage.launch(wrapper, &["run", "-c", "config.ini"]);
    stage.log().wait_ready(2);
    let [one, other] = master.wait_workers(2)[..] else { panic!("two workers") };
    (master, [one.process, other.process])
}

#[test]
fn fault_66_a_user_brings_its_own_groups_and_keeps_none_of_the_callers() {
    require(&["setpriv"]);
    let stage = ph();
    // The caller has groups that nobody must not have.
    let wrapper = ["setpriv", "--groups", "0,4,42"];
    let (master, workers) = sleeping(&stage, &wrapper, "user = nobody");
    assert_eq!(master.process.status("Groups"), "0 4 42");
    for worker in workers {
        let ids =
            |name| worker.status(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(ids("Uid"), ["65534"; 4]);
        assert_eq!(ids("Gid"), ["65534"; 4]);
        assert_eq!(ids("Groups"), ["65534"]);
        for capabilities in ["CapEff", "CapPrm", "CapAmb"] {
            assert_eq!(u64::from_str_radix(&worker.status(capabilities), 16), Ok(0));
        }
    }
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_group_may_be_named_beside_the_user_or_alone_and_ids_need_no_entry() {
    require(&["setpriv"]);
    for (lines, uid, gid, groups) in [
        ("user = nobody:daemon", "65534", "1", "1"),
        ("group = daemon", "0", "1", "1"),
        ("user = 12345:54321", "12345", "54321", "54321"),
    ] {
        let stage = ph();
        let (master, [worker, _]) = sleeping(&stage, &[], lines);
        let first = |name| worker.status(name).split_whitespace().next().unwrap_or("").to_owned();
        assert_eq!((first("Uid"), first("Gid")), (uid.to_owned(), gid.to_owned()), "{lines}");
        assert_eq!(worker.status("Groups"), groups, "{lines}");
        assert_eq!(master.stop(), 0);
    }
}

#[test]
fn fault_68_what_was_given_up_cannot_be_had_again() {
    require(&["setpriv"]);
    let stage = ph();
    stage.configure("user = nobody\nmin_uptime = 0.1");
    let script = "for take in --reuid=0 --regid=0 --groups=0; do \
                  setpriv $take true && echo \"$take worked\" || echo \"$take refused\"; \
                  done; echo tried; exec sleep 1000";
    let master = stage.launch(&[], &["run", "-c", "config.ini", "--", "sh", "-c", script]);
    stage.log().wait_for("tried");
    stage.log().wait_ready(1);
    for take in ["--reuid=0", "--regid=0", "--groups=0"] {
        assert_eq!(stage.log().with(&format!("{take} refused")).len(), 1, "{take}");
    }
    assert_eq!(master.stop(), 0);
}

/// The master dies with nobody's help; the kernel forgets the death signal when the user changes.
#[test]
fn a_worker_of_another_user_dies_with_its_master_too() {
    require(&["setpriv"]);
    let stage = ph();
    let lines = "user = nobody\nkill_mode = process";
    let (master, workers) = sleeping(&stage, &[], lines);
    master.send(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(master.wait(), -9);
    stage.wait_empty();
    assert!(workers.iter().all(|worker| !worker.is_alive()));
    let (next, _) = sleeping(&stage, &[], lines);
    assert_eq!(next.stop(), 0);
}

#[test]
fn limits_priority_umask_and_cpus_are_what_was_set() {
    require(&["setpriv"]);
    let stage = ph();
    let (master, workers) = sleeping(
        &stage,
        &[],
        "rlimit_nofile = 100:200\nrlimit_core = 0\nrlimit_as = 1GB:unlimited\nnice = 5\n\
         oom_score_adj = 300\numask = 027\ncpu_affinity = spread",
    );
    let allowed = cpus(&master.process.status("Cpus_allowed_list"));
    for (slot, worker) in workers.into_iter().enumerate() {
        assert_eq!(limit(worker, "Max open files"), ["100", "200"]);
        assert_eq!(limit(worker, "Max core file size"), ["0", "0"]);
        assert_eq!(limit(worker, "Max address space"), ["1073741824", "unlimited"]);
        assert_eq!(worker.stat(19).as_deref(), Some("5"), "nice");
        assert_eq!(worker.read("oom_score_adj").as_deref(), Some("300\n"));
        assert_eq!(worker.status("Umask"), "0027");
        let own = cpus(&worker.status("Cpus_allowed_list"));
        assert_eq!(own, [allowed[slot % allowed.len()]]);
    }
    assert_eq!(master.process.stat(19).as_deref(), Some("0"), "the master's own");
    assert_eq!(master.stop(), 0);
}

fn limit(process: Process, name: &str) -> [String; 2] {
    let limits = process.read("limits").expect("limits");
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("the limit");
    let mut words = line.split_whitespace().map(str::to_owned);
    [words.next().expect("soft"), words.next().expect("hard")]
}

/// `0-2,5` as numbers.
fn cpus(list: &str) -> Vec<u32> {
    let number = |text: &str| text.parse::<u32>().expect("a CPU");
    let ranges = list.split(',').map(|range| match range.split_once('-') {
        Some((first, last)) => number(first)..=number(last),
        None => number(range)..=number(range),
    });
    ranges.flatten().collect()
}

#[test]
fn the_environment_is_made_of_files_settings_and_what_the_master_adds() {
    let mut stage = ph();
    stage.variable("INHERITED", "1");
    stage.variable("OVERRIDDEN", "by the caller");
    std::fs::write(stage.path("a.env"), "# a comment\nexport FILE='of a'\nOVERRIDDEN=by a\n")
        .expect("a file");
    let lines = "env_file = a.env, -missing.env\n\
                 environment = OVERRIDDEN=\"by %(slot)s, at last\", PLAIN=p;q\napp_key = v";
    let (master, workers) = sleeping(&stage, &[], lines);
    for (slot, worker) in workers.into_iter().enumerate() {
        let found = worker.environment();
        assert_eq!(found["INHERITED"], "1");
        assert_eq!(found["FILE"], "of a");
        assert_eq!(found["PLAIN"], "p;q");
        assert_eq!(found["OVERRIDDEN"], format!("by {slot}, at last"));
        assert_eq!(found["PH_APP_KEY"], "v");
        let text = worker.read("environ").expect("an environment");
        let names: Vec<_> = text.split('\0').filter_map(|it| it.split_once('=')).collect();
        assert_eq!(names.len(), found.len(), "no name is there twice: {text:?}");
    }
    assert_eq!(master.stop(), 0);
    let (master, [worker, _]) = sleeping(&stage, &[], &format!("{lines}\nclear_env = yes"));
    let found: BTreeMap<_, _> = worker.environment();
    let own = found.keys().filter(|name| !name.starts_with("PH_")).collect::<Vec<_>>();
    assert_eq!(own, ["FILE", "NOTIFY_SOCKET", "OVERRIDDEN", "PLAIN"]);
    assert_eq!(master.stop(), 0);
}

/// A program is looked for where its own `PATH` says.
#[test]
fn the_path_that_is_given_to_a_command_is_where_it_is_looked_for() {
    let stage = ph();
    std::fs::create_dir(stage.path("bin")).expect("a folder");
    std::os::unix::fs::symlink("/bin/sleep", stage.path("bin/own-sleep")).expect("a link");
    stage.configure("command = own-sleep 1000\nenvironment = PATH=%(here)s/bin\nmin_uptime = 0.1");
    let master = stage.launch(&[], &["run", "-c", "config.ini"]);
    stage.log().wait_ready(1);
    assert_eq!(master.wait_workers(1)[0].process.title(), "own-sleep 1000");
    assert_eq!(master.stop(), 0);
}

/// What would fail in every worker fails before the first.
#[test]
fn conditions_that_cannot_be_had_are_refused_at_the_start_with_line_and_remedy() {
    require(&["setpriv"]);
    let as_nobody = "shift; exec setpriv --reuid=65534 --regid=65534 --clear-groups ./ph \"$@\"";
    let nobody = ["sh", "-c", as_nobody, "sh"];
    for (name, wrapper, line, wanted) in [
        ("no-user", &[][..], "user = no-such-user", 6),
        ("no-group", &[], "user = nobody\ngroup = no-such-group", 6),
        ("no-entry", &[], "user = 12345", 6),
        ("limit", &[], "rlimit_nofile = 99999999999", 1),
        ("cpu", &[], "cpu_affinity = 1023", 1),
        ("not-root", &nobody, "user = root", 1),
        ("nice", &nobody, "nice = -5", 1),
        ("folder", &[], "user = nobody\ndirectory = private", 1),
    ] {
        let stage = open_to_all();
        std::fs::create_dir(stage.path("private")).expect("a folder");
        set_mode(&stage.path("private"), 0o700);
        stage.configure(&format!("command = sleep 1000\n{line}"));
        let failed = stage.launch(wrapper, &["run", "-c", "config.ini"]).wait_with_stderr();
        assert_eq!(failed.0, wanted, "{}", failed.1);
        assert_snapshot(&format!("condition-{name}.txt"), &stage, &failed.1);
        assert!(stage.log().with("master started").is_empty());
    }
}

/// A stage in which every user of the machine may run a copy of the program.
fn open_to_all() -> Stage {
    let stage = ph();
    // Sticky: what root starts from here nobody else can replace.
    set_mode(stage.folder(), 0o1777);
    std::fs::copy(env!("CARGO_BIN_EXE_ph"), stage.path("ph")).expect("a copy");
    set_mode(&stage.path("ph"), 0o755);
    stage
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
}
