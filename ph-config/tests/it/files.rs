//! Files that cannot be used, and the choice of a section.

use std::os::unix::net::UnixListener;
use std::path::Path;

use ph_config::{Override, Source};

use crate::Site;

fn refusal(site: &Site, file: &str) -> String {
    site.load_file(file).expect_err("the file is of no use").to_string()
}

#[test]
fn a_file_that_is_not_one() {
    let site = Site::new("[a]\n");
    let missing = refusal(&site, "gone.ini");
    assert!(
        missing.starts_with("gone.ini: cannot read the configuration: No such file"),
        "{missing}"
    );
    assert!(refusal(&site, ".").contains("expected a regular file, got a folder"));
    nix::unistd::mkfifo(&site.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    // Without a writer a blocking open would never come back.
    assert!(refusal(&site, "fifo").contains("expected a regular file, got a FIFO"));
    let _listener = UnixListener::bind(site.path("sock")).expect("bind");
    assert!(refusal(&site, "sock").starts_with("sock: "));
    assert!(refusal(&site, "/dev/null").contains("got a device"));
}

#[test]
fn bytes_that_are_not_text() {
    let utf8 = Site::new(b"[a]\napp_x = \xff\n").bad();
    assert!(utf8.starts_with("app.ini:2: expected UTF-8"), "{utf8}");
    let nul = Site::new("[a]\n\napp_x = \0\n").bad();
    assert!(nul.starts_with("app.ini:3: expected text, got a NUL byte"), "{nul}");
}

#[test]
fn the_size_limit_is_exact() {
    let mut text = "[a]\n#".to_owned();
    text.push_str(&"x".repeat(1024 * 1024 - text.len()));
    Site::new(&text).good();
    text.push('x');
    assert!(
        Site::new(&text).bad().starts_with("app.ini: expected at most 1048576 bytes, got more")
    );
}

#[test]
fn byte_order_mark_and_line_ends() {
    for text in ["\u{feff}[a]\r\napp_x = 1\r\n  2\r\n", "[a]\rapp_x = 1\r  2"] {
        assert_eq!(Site::new(text).good().settings.app["x"], "1\n2");
    }
}

#[test]
fn the_choice_of_a_section() {
    let two = "[DEFAULT]\nnumber_workers = 2\n[web]\n[Job]\n";
    assert!(Site::new(two).bad().contains("got 2: \"web\", \"Job\""));
    assert_eq!(Site::new(two).section("Job").good().settings.name(), "Job");
    let near = Site::new(two).section("job").bad();
    assert!(
        near.starts_with("app.ini: expected a section \"job\", got \"web\", \"Job\""),
        "{near}"
    );
    assert!(near.contains("did you mean \"Job\"?"), "{near}");
    assert!(Site::new(two).section("DEFAULT").bad().contains("is what sections inherit"));
    assert!(Site::new("[DEFAULT]\n").bad().contains("got none"));
    assert!(Site::new("").section("x").bad().contains("got none"));
}

#[test]
fn reserved_names_of_figment_are_sections_like_others() {
    let text = "[default]\nnumber_workers = 7\n[Global]\nmax_requests = 8\n[web]\n";
    let web = Site::new(text).section("web");
    assert_eq!((web.good().settings.workers(), web.good().settings.max_requests), (1, 0));
    assert!(web.warnings().contains("app.ini:1: expected [DEFAULT], got [default]"));
    assert_eq!(Site::new(text).section("default").good().settings.workers(), 7);
    assert_eq!(Site::new(text).section("Global").good().settings.max_requests, 8);
}

#[test]
fn without_a_file() {
    let overrides = [
        Override::command(["./run me", "100%", "%(slot)s"], "--"),
        Override { key: "PIDFILE".into(), value: "run/x.pid".into(), flag: "--pidfile".into() },
    ];
    let cwd = Path::new("/srv/./app/");
    let source = || Source { default_name: "adhoc", ..Source::new(cwd) };
    let load = |section| source().read()?.load(section, &overrides);
    let settings = load(None).expect("defaults are good").settings;
    assert_eq!((settings.name(), settings.proc_name.as_str()), ("adhoc", "adhoc"));
    assert_eq!(settings.pidfile, Path::new("/srv/app/run/x.pid"));
    assert_eq!(settings.command, ["./run me", "100%", "%(slot)s"]);
    assert_eq!(load(Some("web")).expect("a name is enough").settings.name(), "web");
    let relative = Source::new(Path::new("app")).read().expect_err("no folder");
    assert!(relative.to_string().contains("expected an absolute cwd"));
}
