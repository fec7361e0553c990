//! The original's own sample file, which must load as it stands.

use std::path::Path;
use std::time::Duration;

use ph_config::{LogTarget, Origin, WorkerCount};

use crate::Site;

/// The original's sample to the byte, Chinese comments and trailing blanks included.
const SAMPLE: &str = include_str!("../../../examples/conf/config.ini");

#[test]
fn the_original_sample_loads_unchanged() {
    let site = Site::new(SAMPLE);
    let loaded = site.good();
    assert_eq!(loaded.warnings, []);
    let settings = loaded.settings;
    assert_eq!(settings.name(), "jobexecute");
    assert_eq!(settings.graceful_timeout, Duration::from_secs(3));
    assert_eq!(settings.base_path, site.path(""));
    assert_eq!(settings.log_path, site.path(""));
    assert!(!settings.single_instance);
    assert!(settings.daemonize);
    assert_eq!(settings.proc_name, "jobexecute");
    assert_eq!(settings.pidfile, site.path("master.pid"));
    assert_eq!(settings.log_file, LogTarget::File(site.path("master.log")));
    assert_eq!(settings.max_requests, 10_000);
    assert_eq!(settings.number_workers, WorkerCount::Fixed(2));
    assert_eq!(settings.timeout, None);
}

#[test]
fn each_value_of_the_sample_knows_its_line() {
    let settings = Site::new(SAMPLE).good().settings;
    let line = |text: &str| SAMPLE.lines().position(|line| line.starts_with(text)).map(|at| at + 1);
    for key in ["graceful_timeout", "base_path", "pidfile", "number_workers"] {
        let expected = format!("app.ini:{}", line(key).expect("the sample has it"));
        assert_eq!(settings.origin(key).to_string(), expected);
    }
    assert_eq!(settings.origin("backoff_max"), Origin::Default);
    assert_eq!(settings.origin("backoff_max").to_string(), "default");
}

#[test]
fn base_path_of_the_command_line_moves_what_refers_to_it() {
    let settings = Site::new(SAMPLE).set("base_path", "/x").good().settings;
    assert_eq!(settings.pidfile, Path::new("/x/master.pid"));
    // Its text is "./master.log", and relative paths start from the new base_path.
    assert_eq!(settings.log_file, LogTarget::File("/x/master.log".into()));
    assert_eq!(settings.origin("base_path").to_string(), "--set base_path");
}

#[test]
fn sections_of_the_sample() {
    let site = Site::new(SAMPLE);
    assert_eq!(site.sections(), ["jobexecute"]);
}
