//! No file of a service is another one of its own, or one that it reads.

use crate::Site;

fn own(site: &Site) -> Vec<(&'static str, String)> {
    let files = site.good().settings.own_files();
    let name = |path: &std::path::Path| {
        path.file_name().expect("a name").to_str().expect("UTF-8").to_owned()
    };
    files.iter().map(|it| (it.what, name(&it.path))).collect()
}

#[test]
fn all_files_of_a_service_are_listed() {
    let site = Site::new("[web]\nlog_file = w.log\nbind = :80, unix:b.sock\nunix_socket = u.sock");
    let wanted = [
        ("pidfile", "web.pid"),
        ("log file", "w.log"),
        ("socket", "u.sock"),
        ("socket", "b.sock"),
        ("lock file", "web.lock"),
        ("control socket", "web.sock"),
        ("new pidfile", ".web.pid.new"),
    ];
    assert_eq!(own(&site), wanted.map(|(what, name)| (what, name.to_owned())));
    let other = Site::new("[web]\npidfile = web.a\n");
    assert_eq!(own(&other)[2], ("control socket", "web.a.sock".to_owned()));
    assert_eq!(own(&other)[1], ("lock file", "web.a.lock".to_owned()));
    let off = Site::new("[web]\npidfile = web.a\ncontrol_socket = off\n");
    assert_eq!(own(&off)[1], ("lock file", "web.a.lock".to_owned()));
    let own_path = Site::new("[web]\ncontrol_socket = run/c.sock\n");
    assert_eq!(own(&own_path)[2], ("control socket", "c.sock".to_owned()));
}

#[test]
fn the_log_of_the_workers_is_a_file_of_the_service_if_it_is_another() {
    let other = Site::new("[web]\nlog_file = w.log\nworker_log_file = w.%(slot)s.log\n");
    assert_eq!(own(&other)[2], ("workers' log file", "w.%(slot)s.log".to_owned()));
    let same = Site::new("[web]\nlog_file = w.log\nworker_log_file = ./w.log\n");
    assert!(own(&same).iter().all(|(what, _)| *what != "workers' log file"));
    let taken = Site::new("[web]\npidfile = w.pid\nworker_log_file = w.lock\n").bad();
    assert!(taken.contains("for worker_log_file and the lock file of pidfile"), "{taken}");
}

#[test]
fn files_that_go_with_the_pidfile_are_not_given_to_others() {
    for (lines, key, what) in [
        ("unix_socket = w.lock", "unix_socket", "the lock file of pidfile"),
        ("log_file = w.lock", "log_file", "the lock file of pidfile"),
        ("log_file = .w.pid.new", "log_file", "the new pidfile of pidfile"),
        ("bind = unix:w.lock", "bind", "the lock file of pidfile"),
        ("log_file = folder/../w.lock", "log_file", "the lock file of pidfile"),
        ("log_file = w.pid", "log_file", "pidfile"),
        ("unix_socket = w.sock", "unix_socket", "the control socket of pidfile"),
        ("control_socket = w.lock", "control_socket", "the lock file of pidfile"),
        ("single_instance = no\nlog_file = w.2.sock", "log_file", "another instance of pidfile"),
        ("log_file = s\nunix_socket = ./s", "log_file", "unix_socket"),
        ("single_instance = no\nlog_file = w.2.lock", "log_file", "another instance of pidfile"),
        ("single_instance = no\nlog_file = w.17.pid", "log_file", "another instance of pidfile"),
    ] {
        let text = format!("[web]\npidfile = w.pid\n{lines}\n");
        let report = Site::new(text).file("folder/x", "").bad();
        assert!(report.contains("expected different files, got "), "{lines}: {report}");
        assert!(report.contains(key) && report.contains(what), "{lines}: {report}");
        assert_eq!(report.lines().count(), 2, "{lines}: {report}");
    }
    Site::new("[web]\npidfile = w.pid\nlog_file = w.2.lock\n").good();
    Site::new("[web]\nsingle_instance = no\npidfile = w.pid\nlog_file = w.2.log\n").good();
}

#[test]
fn what_a_service_reads_it_does_not_write() {
    let more = "[web]\nnumber_workers = 2\n";
    for (lines, wanted) in [
        ("log_file = app.ini", "app.ini\" for the configuration and log_file"),
        ("log_file = link/app.ini", "app.ini\" for the configuration and log_file"),
        ("pidfile = app.ini", "app.ini\" for the configuration and pidfile"),
        ("log_file = more.ini", "more.ini\" for the configuration and log_file"),
        ("log_file = target.ini", "target.ini\" for the configuration and log_file"),
        ("unix_socket = vars", "vars\" for env_file and unix_socket"),
        ("pidfile = app.pid", "app.lock\" for the configuration and the lock file of pidfile"),
    ] {
        let main = format!("[DEFAULT]\ninclude = *.ini, *.lock\nenv_file = vars\n[web]\n{lines}\n");
        let site = Site::new(main).file("more.ini", more).file("vars", "A=1\n");
        let site = site.file("target/x", "").file("app.lock", "[web]\n");
        std::fs::rename(site.path("more.ini"), site.path("target.ini")).expect("a new name");
        for (target, link) in [("target.ini", "more.ini"), (".", "link")] {
            std::os::unix::fs::symlink(target, site.path(link)).expect("a link");
        }
        let report = site.bad();
        assert!(report.contains("expected different files, got \""), "{lines}: {report}");
        assert!(report.contains(wanted), "{lines}: {report}");
        assert!(report.contains("give "), "{lines}: {report}");
    }
}
