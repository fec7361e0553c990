//! A machine that has too little of something: memory, processes, descriptors, numbers for
//! processes.
//!
//! Each test is one fault, and has its number in the catalogue of faults. What is short is short
//! for one master only: its limits are those of a cgroup of version 1, of one process, or of a
//! namespace of pids. That takes root; without it, or without the tool it needs, a test fails and
//! says so.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ph;
use crate::support::{
    Limited, Master, Process, Stage, WITHOUT_CGROUPS, eventually, let_pass, require, timed,
};

/// No stop takes longer than its grace and this, on any machine.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Processor time in ticks that a master may use in some seconds of a fault: it does not spin.
const FEW_TICKS: u64 = 60;

/// Stops a master that has no reason to take long.
fn stop_in_time(master: Master) {
    let (code, took) = timed(|| master.stop());
    assert_eq!(code, 0);
    assert!(took < STOP_LIMIT, "{took:?}");
}

/// Lets a fault last, and sees that the master does not spin meanwhile.
fn bear_for(master: &Master, duration: Duration) {
    let before = master.process.cpu_ticks();
    let_pass(duration);
    let used = master.process.cpu_ticks() - before;
    assert!(used < FEW_TICKS, "{used} ticks in {duration:?}");
}

/// The line about the end says that there is a core when the kernel says so, which depends on what
/// the machine does with cores: a shell that dies in the same way in the same folder is the
/// measure.
#[test]
fn fault_06_a_segmentation_fault_is_told_with_its_core() {
    for limit in ["unlimited", "0"] {
        let stage = ph();
        stage.configure(&format!("min_uptime = 0.1\nrlimit_core = {limit}"));
        let shell = format!("ulimit -c {limit} && kill -SEGV $$");
        let measure = Command::new("sh").args(["-c", &shell]).current_dir(stage.folder()).status();
        let measure = measure.expect("a shell");
        assert_eq!(measure.signal(), Some(Signal::SIGSEGV as i32));
        let words = ["run", "-c", "config.ini", "--", "sleep", "1000"];
        let master = stage.launch(&[], &words);
        stage.log().wait_ready(1);
        let worker = master.wait_workers(1)[0];
        worker.process.send(Signal::SIGSEGV);
        master.wait_replaced(worker);
        let core = if measure.core_dumped() { ", core dumped" } else { "" };
        stage.log().wait_ends(0, &format!("was ended by SIGSEGV{core}"), 1);
        for core in stage.files().into_iter().filter(|name| name.starts_with("core")) {
            assert_eq!(limit, "unlimited", "{core}");
            let mode = stage.path(&core).metadata().expect("the core").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{core} is for its owner only: {mode:o}");
        }
        assert_eq!(master.stop(), 0);
    }
}

/// Several at once; each is told of, and the one that takes nothing lives.
#[test]
fn fault_15_those_that_take_all_memory_are_killed_and_no_others() {
    require(&["python3"]);
    let group = Limited::memory(160 << 20);
    let stage = ph();
    stage.configure("number_workers = 6\nbackoff_min = 0.2\nmin_uptime = 5");
    stage.expect_error("out of memory: the kernel has killed worker ");
    stage.expect_error("worker 1 is in a crash loop");
    stage.allow_error("is in a crash loop");
    let script = "[ $PH_SLOT = 0 ] && exec sleep 1000; \
                  exec python3 -c 'taken = b\"a\" * 10**9'";
    let words = ["run", "-c", "config.ini", "--", "sh", "-c", script];
    let master = stage.launch(&group.wrapper(), &words);
    stage.log().wait_ready(1);
    let other = master.workers()[0];
    assert_eq!(other.slot, 0);
    let deaths = stage.log().wait_ends(1, "was ended by SIGKILL", 5);
    assert!(deaths[4].message.contains("next one in "), "{:?}", deaths[4]);
    stage.log().wait_for("worker 1 is in a crash loop");
    assert_eq!(master.workers().first(), Some(&other), "the other worker lives");
    stop_in_time(master);
    let lines = stage.log().lines();
    let told = |pid: &str| {
        let name = format!("(pid {pid})");
        lines.iter().any(|it| it.message.contains("memory") && it.message.ends_with(&name))
    };
    for death in lines.iter().filter(|line| line.message.contains("was ended by SIGKILL")) {
        let pid = death.message.split_once(", pid ").and_then(|(_, rest)| rest.split_once(' '));
        assert!(told(pid.expect("a pid").0), "{death:?}");
    }
}

/// Sets how many descriptors a running process may have; the hard limit stays.
fn limit_descriptors(process: Process, limit: &str) {
    let arguments = [format!("--pid={}", process.0), format!("--nofile={limit}:")];
    assert!(Command::new("prlimit").args(arguments).status().expect("prlimit").success());
}

/// The soft limit of descriptors, as the kernel writes it.
fn descriptor_limit(process: Process) -> String {
    let limits = process.read("limits").expect("its limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()).expect("a limit").to_owned()
}

/// A limit at which this process gets not one descriptor more.
fn no_more_descriptors(process: Process) -> String {
    let used = process.descriptors();
    (0..).find(|number| !used.contains_key(number)).expect("a free number").to_string()
}

#[test]
fn fault_26_no_descriptor_to_be_had_backs_off_and_recovers() {
    require(&["prlimit", "unshare"]);
    for wrapper in [&[][..], &WITHOUT_CGROUPS] {
        let stage = ph();
        stage.configure("number_workers = 2\nmin_uptime = 0.1");
        stage.expect_error("cannot start worker 0: Too many open files");
        stage.expect_error("worker 0 was not started");
        stage.allow_error("worker 0 is in a crash loop");
        let words = ["run", "-c", "config.ini", "--", "sleep", "1000"];
        let master = stage.launch(wrapper, &words);
        stage.log().wait_ready(2);
        let [first, second] = master.wait_workers(2)[..] else { panic!("two workers") };
        let plenty = descriptor_limit(master.process);
        limit_descriptors(master.process, &no_more_descriptors(master.process));
        first.process.send(Signal::SIGKILL);
        stage.log().wait_for_count("cannot start worker 0: Too many open files", 3);
        bear_for(&master, Duration::from_secs(2));
        assert_eq!(master.workers(), [second]);
        limit_descriptors(master.process, &plenty);
        assert_eq!(master.wait_workers(2)[1], second);
        stop_in_time(master);
    }
}

/// What has left its group is out of reach for a master that cannot open a file; it still ends.
#[test]
fn fault_26_a_stop_without_descriptors_leaves_nobody_behind() {
    require(&["prlimit", "unshare", "setsid"]);
    for wrapper in [&[][..], &WITHOUT_CGROUPS] {
        let stage = ph();
        stage.configure("min_uptime = 0.1\ngraceful_timeout = 1");
        let script = "trap '' TERM; setsid sleep 1000 & setsid -f sleep 1000; \
                      while :; do sleep 1; done";
        let words = ["run", "-c", "config.ini", "--", "sh", "-c", script];
        let master = stage.launch(wrapper, &words);
        stage.log().wait_ready(1);
        eventually("both grandchildren", || {
            let titles = stage.processes().into_iter().map(Process::title);
            (titles.filter(|title| title == "sleep 1000").count() == 2).then_some(())
        });
        limit_descriptors(master.process, &no_more_descriptors(master.process));
        stop_in_time(master);
        stage.wait_empty();
    }
}

/// The same, but that its worker dies while no file can be opened. Who was left behind ends when
/// there are files again, not with the master only.
#[test]
fn fault_26_who_is_left_behind_without_descriptors_ends_later() {
    require(&["prlimit", "unshare", "setsid"]);
    for wrapper in [&[][..], &WITHOUT_CGROUPS] {
        let stage = ph();
        stage.configure("min_uptime = 0.1\ngraceful_timeout = 1");
        stage.expect_error("cannot start worker 0: Too many open files");
        stage.expect_error("worker 0 was not started");
        stage.allow_error("worker 0 is in a crash loop");
        let script = "setsid sleep 999 & setsid -f sleep 999; while :; do sleep 1; done";
        let words = ["run", "-c", "config.ini", "--", "sh", "-c", script];
        let master = stage.launch(wrapper, &words);
        stage.log().wait_ready(1);
        let strays = || {
            let all = stage.processes().into_iter();
            all.filter(|it| it.title() == "sleep 999").collect::<Vec<_>>()
        };
        let worker = || {
            let workers = master.workers().into_iter();
            workers.into_iter().find(|it| it.process.title().starts_with("sh ")).expect("one")
        };
        eventually("both grandchildren", || (strays().len() == 2).then_some(()));
        let (strays, worker) = (strays(), worker());
        let plenty = descriptor_limit(master.process);
        limit_descriptors(master.process, &no_more_descriptors(master.process));
        worker.process.send(Signal::SIGKILL);
        stage.log().wait_for_count("cannot start worker 0: Too many open files", 3);
        limit_descriptors(master.process, &plenty);
        stage.log().wait_ready(2);
        eventually("their end", || strays.iter().all(|it| !it.is_alive()).then_some(()));
        stop_in_time(master);
    }
}

#[test]
fn fault_27_no_process_to_be_had_backs_off_and_recovers() {
    require(&["unshare"]);
    for wrapper in [&[][..], &WITHOUT_CGROUPS] {
        let group = Limited::processes(1000);
        let stage = ph();
        stage.configure("number_workers = 2\nmin_uptime = 0.1");
        stage.expect_error("cannot start worker 0: Resource temporarily");
        stage.expect_error("worker 0 was not started");
        stage.allow_error("worker 0 is in a crash loop");
        stage.expect_error("cannot start the helper warden: Resource temporarily");
        let words = ["run", "-c", "config.ini", "--", "sleep", "1000"];
        let master = stage.launch(&[&group.wrapper()[..], wrapper].concat(), &words);
        stage.log().wait_ready(2);
        let [first, second] = master.wait_workers(2)[..] else { panic!("two workers") };
        let wardens = || {
            let children = master.process.children().into_iter();
            children.filter(|child| child.title().starts_with("ph: warden")).collect::<Vec<_>>()
        };
        let warden = wardens()[0];
        assert_eq!(group.number("pids.current"), 5, "master, warden, log process and workers");
        group.set("2");
        first.process.send(Signal::SIGKILL);
        warden.send(Signal::SIGKILL);
        stage.log().wait_for_count("cannot start worker 0: Resource temporarily", 3);
        stage.log().wait_for_count("cannot start the helper warden: Resource temporarily", 2);
        bear_for(&master, Duration::from_secs(2));
        assert_eq!(master.workers(), [second]);
        group.set("max");
        assert_eq!(master.wait_workers(2)[1], second);
        eventually("a new warden", || (wardens().len() == 1).then_some(()));
        stop_in_time(master);
    }
}

/// The play of the tests below, in a pid namespace of their own: its init is this program, the
/// master is its child. The numbers of processes come from a short range, because the last one
/// given is set back.
const NAMESPACE: [&str; 7] =
    ["unshare", "-p", "-f", "--mount-proc", "--kill-child", "python3", "-c"];

/// What all plays have in common.
const PLAY: &str = "
import os, random, signal, subprocess, sys, time

LAST = '/proc/sys/kernel/ns_last_pid'

def last_pid(number):
    with open(LAST, 'w') as file:
        file.write(str(number))

def until(what, fact):
    deadline = time.monotonic() + 30
    while not fact():
        if time.monotonic() > deadline:
            sys.exit('not in 30 s: ' + what)
        time.sleep(0.01)

def stat(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            fields = file.read().rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in 'ZX' else fields

def started(pid):
    fields = stat(pid)
    return fields and fields[19]

def slots():
    found = {}
    for pid in open(f'/proc/{master.pid}/task/{master.pid}/children').read().split():
        try:
            with open(f'/proc/{pid}/environ', 'rb') as file:
                for variable in file.read().split(b'\\0'):
                    if variable.startswith(b'PH_SLOT=') and stat(pid):
                        found[int(variable[8:])] = int(pid)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found

if not os.path.exists(LAST):
    sys.exit(f'this test needs {LAST} (CONFIG_CHECKPOINT_RESTORE)')
last_pid(1000)
master = subprocess.Popen(sys.argv[1:])
";

/// The worker that is told to stop has ended, what it started has not, and a new worker gets its
/// number before the time of the rest is up.
const REUSED_BY_A_WORKER: &str = "
until('two workers', lambda: len(slots()) == 2)
until('who leaves', lambda: os.path.exists('left') and os.path.exists('first'))
left = int(open('left').read())
first, second = slots()[0], slots()[1]
master.send_signal(signal.SIGTTOU)
until('the end of the second', lambda: not os.path.exists(f'/proc/{second}'))
last_pid(second - 1)
os.kill(first, signal.SIGKILL)
until('the next worker', lambda: slots().get(0, first) != first)
if slots()[0] != second:
    sys.exit(f'{second} was not given again, but {slots()[0]}')
innocent = started(second)
until('the end of what had left', lambda: not stat(left))
until('a sign of life', lambda: os.path.exists('beaten'))
os.unlink('beaten')
until('a sign of life', lambda: os.path.exists('beaten'))
if started(second) != innocent:
    sys.exit('the new worker with the number of the old one was killed')
master.send_signal(signal.SIGTERM)
sys.exit(master.wait())
";

fn play(wrapper: &[&str], stage: &Stage, what: &str, command: &str) {
    let play = [PLAY, what].concat();
    let wrapper = [wrapper, &NAMESPACE, &[&play]].concat();
    let words = ["run", "-c", "config.ini", "--", "sh", "-c", command];
    let played = stage.launch(&wrapper, &words).wait_with_stderr();
    assert_eq!(played, (0, String::new()));
}

#[test]
fn fault_84_a_worker_with_the_number_of_one_that_is_to_be_killed_is_not_killed() {
    require(&["python3", "unshare", "setsid"]);
    for wrapper in [&[][..], &WITHOUT_CGROUPS] {
        let stage = ph();
        stage.configure("number_workers = 2\nmin_uptime = 0.1\ngraceful_timeout = 3");
        // Who left is known to the play by its number, and is deaf. Nobody forks when the numbers are set
        // back but the master.
        let command = "
            [ $PH_SLOT = 0 ] || {
                setsid sh -c 'trap \"\" TERM; echo $$ > l; mv l left; exec sleep 1000' &
                exec sleep 1000
            }
            [ -e first ] || { : > first; exec sleep 1000; }
            while :; do : > beaten; sleep 0.2; done";
        play(wrapper, &stage, REUSED_BY_A_WORKER, command);
    }
}

/// Numbers go round fast, among workers that end by themselves, those that are told to, what they
/// leave, and processes that are none of the master's business: each of these has to end by itself.
const STRANGERS: &str = "
until('four workers', lambda: len(slots()) == 4)
strangers, ended = set(), 0
def tend(count):
    global ended
    while len(strangers) < count:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            time.sleep(random.random() / 4)
            os._exit(7)
        strangers.add(pid)
        if pid > 1100:
            last_pid(1000)
    for pid in list(strangers):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if os.waitstatus_to_exitcode(status) != 7:
                sys.exit(f'a stranger ended with {os.waitstatus_to_exitcode(status)}')
            strangers.discard(pid)
            ended += 1
until_time = time.monotonic() + 5
while time.monotonic() < until_time:
    tend(30)
    master.send_signal(random.choice([signal.SIGTTOU, signal.SIGTTIN]))
    time.sleep(0.02)
master.send_signal(signal.SIGTERM)
while master.poll() is None:
    tend(30)
    time.sleep(0.01)
while strangers:
    tend(0)
    time.sleep(0.01)
if ended < 200:
    sys.exit(f'only {ended} strangers came by')
sys.exit(master.returncode)
";

#[test]
fn fault_84_no_stranger_is_signalled_however_fast_numbers_are_used_again() {
    require(&["python3", "unshare", "setsid"]);
    for wrapper in [&[][..], &WITHOUT_CGROUPS] {
        let stage = ph();
        stage.configure(
            "number_workers = 4\nmin_uptime = 0.01\ngraceful_timeout = 0.3\n\
             backoff_min = 0.01\nbackoff_max = 0.05\nmax_restarts = 100000",
        );
        stage.allow_error("is in a crash loop");
        let command = "
            setsid sh -c 'trap \"\" TERM; sleep 1' &
            [ $PH_SLOT = 0 ] && exec sleep 0.2
            trap '' TERM
            sleep 0.5";
        play(wrapper, &stage, STRANGERS, command);
    }
}
