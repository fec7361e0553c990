//! `%(name)s`, and paths.

use std::path::Path;

use ph_config::{LogTarget, bind_late};

use crate::Site;

fn app(text: &str) -> String {
    Site::new(format!("[s]\n{text}")).good().settings.app["x"].clone()
}

fn refused(text: &str) -> String {
    Site::new(format!("[s]\n{text}")).bad()
}

#[test]
fn built_in_names() {
    let site = Site::new("[s]\napp_x = %(here)s|%(section)s|%(ENV_COLOUR)s|%(host_name)s")
        .environment(&[("COLOUR", "50% red")]);
    let value = site.good().settings.app["x"].clone();
    let here = site.path("").to_str().expect("UTF-8").trim_end_matches('/').to_owned();
    assert!(value.starts_with(&format!("{here}|s|50% red|")), "{value}");
    assert!(!value.ends_with('|'));
    // A key of that name wins, as it would have before there was a built-in one.
    assert_eq!(app("app_x = %(section)s\nsection = mine"), "mine");
    assert_eq!(app("app_x = %(number_workers)s %(GRACEFUL_TIMEOUT)s"), "1 30s");
    let missing = refused("app_x = %(ENV_COLOUR)s");
    assert!(missing.contains("to be in the environment"), "{missing}");
}

#[test]
fn what_names_stand_for_is_not_interpolated_again() {
    let site = Site::new("[a%(x)s]\napp_x = %(section)s").set("proc_name", "a");
    assert_eq!(site.good().settings.app["x"], "a%(x)s");
    assert!(site.good().settings.pidfile.ends_with("a%(x)s.pid"));
    assert_eq!(app("app_x = %(y)s\ny = 5%% %%(z)s"), "5% %(z)s");
}

#[test]
fn depth_loops_and_unknown_names() {
    let chain = |keys: usize| {
        let mut text = String::from("app_x = %(k1)s\n");
        (1..keys).for_each(|k| text += &format!("k{k} = %(k{})s\n", k + 1));
        text + &format!("k{keys} = end\n")
    };
    // As in Python: the tenth value may still refer, the eleventh may not.
    assert_eq!(app(&chain(10)), "end");
    assert!(refused(&chain(11)).contains("at most 10 deep"));
    let looped = refused("app_x = %(y)s\ny = %(z)s\nz = %(y)s");
    assert!(looped.contains("no circle (this goes app_x -> y -> z -> y)"), "{looped}");
    assert!(refused("base_path = %(base_path)s/x").contains("no circle"));
    let unknown = refused("app_x = %(y)s\ny = %(numberworkers)s");
    assert!(
        unknown.contains("(`%(numberworkers)s` is not) (in `y`, which it refers to)"),
        "{unknown}"
    );
    assert!(unknown.contains("did you mean `%(number_workers)s`?"), "{unknown}");
    assert!(refused("app_x = %(command)s").contains("is not"), "nobody set it");
    for bad in ["%", "5% x", "%(y", "%()s", "%(y)d"] {
        assert!(refused(&format!("app_x = {bad}\ny = 1")).contains("for a percent sign write %%"));
    }
}

#[test]
fn an_explosion_is_stopped() {
    let mut text = String::from("[s]\napp_x = %(k0)s\n");
    for k in 0..9 {
        text += &format!("k{k} = {}\n", format!("%(k{})s", k + 1).repeat(30));
    }
    assert!(Site::new(text.clone() + "k9 = \n").bad().contains("at most 100000 uses of names"));
    let long = format!("k8 = %(k9)s\nk9 = {}\n", "y".repeat(400_000));
    let text = "[s]\napp_x = ".to_owned() + &"%(k8)s".repeat(11) + "\n" + &long;
    assert!(Site::new(text).bad().contains("at most 4194304 bytes in all interpolated values"));
}

#[test]
fn late_bound_names_are_kept_in_commands_only() {
    let text = "[s]\ncommand = ./run '%(slot)s' %(args)s 5%%\nargs = -g%(generation)s\n";
    let command = Site::new(text).good().settings.command;
    assert_eq!(command, ["./run", "%(slot)s", "-g%(generation)s", "5%"]);
    assert_eq!(bind_late(&command[2], 0, 7), "-g7");
    for bad in ["app_x = %(slot)s", "pidfile = %(generation)s.pid"] {
        assert!(refused(bad).contains("a value that all workers share"), "{bad}");
    }
    assert!(refused("command = echo %%(slot)s").contains("as names, not as text"));
}

#[test]
fn paths_start_from_base_path_and_it_from_the_file() {
    let text = "[s]\nbase_path = run\nlog_path = %(base_path)s/logs\n\
                log_file = %(log_path)s/./a.log\nunix_socket = a/../s.sock\ndirectory = /tmp/.//x\n\
                bind = unix:b.sock\ncommand = %(base_path)s/server\n";
    let site = Site::new(text);
    let settings = site.good().settings;
    assert_eq!(settings.base_path, site.path("run"));
    // Not run/run/logs: it is the folder itself.
    assert_eq!(settings.log_path, site.path("run/logs"));
    assert_eq!(settings.log_file, LogTarget::File(site.path("run/logs/a.log")));
    assert_eq!(settings.pidfile, site.path("run/s.pid"));
    assert_eq!(settings.unix_socket, Some(site.path("run/a/../s.sock")));
    assert_eq!(settings.directory.as_deref(), Some(Path::new("/tmp/x")));
    assert_eq!(settings.bind[0].to_string(), format!("unix:{}", site.path("run/b.sock").display()));
    assert_eq!(settings.command, [site.path("run/server").to_str().expect("UTF-8")]);
    let settings = Site::new(text).set("base_path", "/srv").good().settings;
    assert_eq!(settings.log_file, LogTarget::File("/srv/logs/a.log".into()));
    assert_eq!(settings.command, ["/srv/server"]);
}

#[test]
fn a_file_in_a_folder_of_its_own() {
    let site = Site::new("");
    std::fs::create_dir(site.path("conf")).expect("mkdir");
    std::fs::write(site.path("conf/x.ini"), "[s]\napp_x = %(here)s\n").expect("write");
    let settings = site.load_file("./conf/x.ini").expect("it is good").settings;
    assert_eq!(settings.base_path, site.path("conf"));
    assert_eq!(Path::new(&settings.app["x"]), site.path("conf"));
    assert_eq!(settings.origin("app_x").to_string(), "./conf/x.ini:2");
}

/// Values made to be slow: time that grows with the square of a file would show as minutes here.
#[test]
fn hostile_files_of_full_size_take_no_square_time() {
    let open = format!("[s]\napp_x = {})", "%(".repeat(500_000));
    assert!(Site::new(open).bad().contains("for a percent sign write %%"));
    let fan = (0..50_000).map(|k| format!("app_{k} = %(k)s\n")).collect::<String>();
    let text = format!("[s]\nk = {}\nj =\n{fan}", "%(j)s".repeat(1000));
    assert!(Site::new(text).bad().contains("more problems are not listed"));
    let binds = (1..50_000).map(|port| format!(" h:{port}\n")).collect::<String>();
    assert!(Site::new(format!("[s]\nbind =\n{binds}")).bad().contains("at most 128 addresses"));
}
