//! `ph reload`: what it says, and how it ends.

use crate::control::{Said, client, master_of};
use crate::ph;
use crate::support::Stage;

fn reload(stage: &Stage, flags: &[&str]) -> Said {
    client(stage, &[], &[&["reload", "-c", "config.ini"], flags].concat())
}

fn configure(stage: &Stage, lines: &str) {
    stage.configure(&format!("number_workers = 1\nmin_uptime = 0.1\n{lines}"));
}

#[test]
fn a_reload_ends_with_what_came_of_it() {
    let stage = ph();
    stage.allow_error("expected");
    stage.allow_error("reload");
    stage.allow_error("write digits only");
    let master = master_of(&stage, 1, "");
    let said = reload(&stage, &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("1 workers are of generation 2"), "{}", said.stdout);
    let said = reload(&stage, &["--if-changed"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("nothing has changed, nothing was reloaded"), "{}", said.stdout);

    configure(&stage, "nice = 1");
    let said = reload(&stage, &["--dry-run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("nice (roll) changed"), "{}", said.stdout);
    assert_eq!(stage.log().with("worker 0 gen 3").len(), 0, "judged only");

    configure(&stage, "nice = banana");
    let said = reload(&stage, &[]);
    assert_eq!(said.code, 6, "{}", said.stdout);
    assert_eq!(said.stderr.matches("banana").count(), 1, "the master says it: {}", said.stderr);
    assert_eq!(master.stop(), 0);
}

/// What only a restart can change keeps its old value, and nobody is told that all was done.
#[test]
fn a_reload_that_cannot_apply_everything_is_partly_done() {
    let stage = ph();
    let master = master_of(&stage, 1, "");
    configure(&stage, "max_workers = 9");
    for flags in [&[][..], &["--if-changed"]] {
        let said = reload(&stage, flags);
        assert_eq!(said.code, 153, "{}{}", said.stdout, said.stderr);
        let all = said.stdout + &said.stderr;
        assert!(all.contains("max_workers needs a restart and keeps its old value"), "{all}");
    }
    configure(&stage, "");
    assert_eq!(reload(&stage, &[]).code, 0);
    assert_eq!(master.stop(), 0);
}
