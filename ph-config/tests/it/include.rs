//! Several files as one configuration.

use crate::Site;

#[test]
fn included_files_are_stronger_in_the_order_of_their_names() {
    let main = "[DEFAULT]\ninclude = conf.d/*.ini, extra.toml\nmax_requests = 1\nlog_path = here\n\
                [web]\nnumber_workers = 2\n";
    let site = Site::new(main)
        .file("conf.d/20.ini", "[DEFAULT]\nmax_requests = 3\n[web]\nnumber_workers = 4\n")
        .file(
            "conf.d/10.ini",
            "[DEFAULT]\nmax_requests = 2\n[job]\ncommand = x\n[web]\nnumber_workers = 3\n",
        )
        .file("conf.d/.hidden.ini", "[web]\nnumber_workers = 9\n")
        .file("conf.d/other.txt", "no")
        .file("extra.toml", "[web]\napp.colour = 'red'\n[last]\nnumber_workers = 7\n");
    assert_eq!(site.sections(), ["web", "job", "last"]);
    let web = site.load_section("web");
    assert_eq!((web.workers(), web.max_requests, web.app["colour"].as_str()), (4, 3, "red"));
    assert_eq!(web.origin("number_workers").to_string(), "conf.d/20.ini:4");
    let lost: Vec<String> =
        web.overridden("number_workers").iter().map(|it| it.origin.to_string()).collect();
    assert_eq!(lost, ["conf.d/10.ini:6", "app.ini:6", "default"]);
    assert_eq!(web.log_path, site.path("here"));
    assert_eq!(site.load_section("last").workers(), 7);
    let files: Vec<String> =
        site.read().expect("good").files().map(|it| it.display().to_string()).collect();
    assert_eq!(files, ["app.ini", "conf.d/10.ini", "conf.d/20.ini", "extra.toml"]);
}

#[test]
fn patterns_start_from_the_main_file_and_names_work_in_them() {
    let site = Site::named(
        "conf/app.ini",
        "[DEFAULT]\nbase_path = /srv\nkind = prod\n\
                            include = %(here)s/%(kind)s-%(ENV_ZONE)s/*.ini\n\t../both.ini\n[web]\n",
    )
    .file("conf/prod-eu/a.ini", "[web]\nnumber_workers = 3\napp_here = %(here)s\n")
    .file("both.ini", "[web]\nmax_requests = 5\n")
    .environment(&[("ZONE", "eu")]);
    let web = site.load_section("web");
    assert_eq!((web.workers(), web.max_requests), (3, 5));
    assert_eq!(web.origin("number_workers").to_string(), "conf/prod-eu/a.ini:2");
    // Where a value stands is where its `here` is.
    assert_eq!(web.app["here"], site.path("conf/prod-eu").to_str().expect("UTF-8"));
    assert_eq!(web.pidfile.to_str(), Some("/srv/web.pid"));
}

#[test]
fn what_cannot_be_included_is_all_in_one_report() {
    let main = "[DEFAULT]\ninclude = gone.ini, empty.d/*, bad*.ini, fifo\n\n[web]\n\
                number_workers = many\ninclude = x\n";
    let site = Site::new(main)
        .file("bad1.ini", "[web]\nnonsense\n[DEFAULT]\ninclude = more.ini\n")
        .file("bad2.ini", b"[web]\napp_x = \xff\n");
    nix::unistd::mkfifo(&site.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let expected = "\
app.ini:2: [DEFAULT] include: \"fifo\": expected a regular file, got a FIFO
    name a file that holds the settings
app.ini:2: [DEFAULT] include: \"gone.ini\": cannot read the configuration: No such file or directory (os error 2)
    check the path, or write the file
app.ini:5: [web] number_workers: expected a whole number from 1 to max_workers, or `auto`, got \"many\"
    write digits only, without sign, point or unit
app.ini:6: [web] include: expected files to be included by the main file, got \"x\"
    move it into [DEFAULT] of the main file
bad1.ini:2: expected `key = value`, got \"nonsense\"
    add `=` and a value; to continue the value above, indent the line
bad1.ini:4: [DEFAULT] include: expected files to be included by the main file, got \"more.ini\"
    move it into [DEFAULT] of the main file
bad2.ini:2: expected UTF-8, got bytes of another encoding
    save the file as UTF-8";
    assert_eq!(site.bad(), expected);
}

#[test]
fn the_main_file_does_not_include_itself() {
    let site = Site::new("[DEFAULT]\ninclude = *.ini\n[web]\n").file("b.ini", "[job]\n");
    assert_eq!(site.sections(), ["web", "job"]);
    assert!(Site::new("[DEFAULT]\ninclude = a[\n[web]\n").bad().contains("expected a pattern"));
    let many = (0..65).map(|n| format!("{n}.ini,")).collect::<String>();
    assert!(Site::new(format!("[DEFAULT]\ninclude = {many}\n[web]")).bad().contains("at most 64"));
}

#[test]
fn odd_folders_double_names_and_wild_patterns() {
    let text = "[DEFAULT]\ninclude = more.ini, *.ini, d/../more.ini\n[web]\n";
    let site = Site::named("a[x]*/app.ini", text)
        .file("a[x]*/more.ini", "[web]\nnumber_workers = 3\n")
        .file("a[x]*/d/keep", "");
    std::os::unix::fs::symlink("more.ini", site.path("a[x]*/link.ini")).expect("a link");
    assert_eq!(site.load_section("web").workers(), 3);
    assert_eq!(site.read().expect("good").files().count(), 2, "one file has one vote");
    let wild = Site::new("[DEFAULT]\ninclude = /usr/**/*.ini\n[web]\n").bad();
    assert!(wild.contains("expected patterns without `**`"), "{wild}");
    // Itself is not one more file, however it is named.
    let own = Site::new("[DEFAULT]\ninclude = ./app.ini\n[web]\n");
    assert_eq!(own.read().expect("good").files().count(), 1);
}

#[test]
fn many_files_take_no_square_time_and_have_a_bound() {
    let keys = |from: usize, count: usize| {
        (from..from + count).map(|n| format!("app_{n} = {n}\n")).collect::<String>()
    };
    let mut site = Site::new("[DEFAULT]\ninclude = d/*\n[web]\n");
    for file in 0..200 {
        let text = format!("[DEFAULT]\n{}", keys(file * 500, 500));
        site = site.file(&format!("d/{file:03}.ini"), text);
    }
    assert_eq!(site.load_section("web").app.len(), 100_000);
    let large = format!("[web]\n#{}", "x".repeat(1_000_000));
    for file in 0..17 {
        site = site.file(&format!("d/z{file}.ini"), &large);
    }
    assert!(site.bad().contains("expected at most 16777216 bytes in all files"));
}
