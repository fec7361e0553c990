//! What can still be told of a service whose configuration does not hold.

use std::path::PathBuf;

use ph_config::{Loaded, Origin};

use crate::Site;

const NEEDED: [&str; 3] = ["base_path", "pidfile", "single_instance"];

/// The settings, and the report; or the report alone.
fn salvage(site: &Site) -> Result<Loaded, String> {
    let configuration = site.read().map_err(|errors| errors.to_string())?;
    let salvaged = configuration.salvage(site.section.as_deref(), &site.overrides, &NEEDED);
    salvaged.map_err(|errors| errors.to_string())
}

#[test]
fn defaults_stand_in_for_what_cannot_be_read() {
    let text = "[web]\nnumber_workers = many\njunk\nstop_signal = %(nowhere)s\nnice = 3\n\
                pidfile = run/%(section)s.pid\napp_x = %(nowhere)s\nnumber_worker = 3\n";
    let site = Site::new(text);
    let Loaded { settings, warnings } = salvage(&site).expect("enough is known");
    assert_eq!(settings.pidfile, site.path("run/web.pid"));
    assert_eq!((settings.nice, settings.workers()), (Some(3), 1));
    assert_eq!(settings.origin("number_workers"), Origin::Default);
    let of_load: Vec<_> = site.bad().lines().map(str::to_owned).collect();
    let told: String = warnings.iter().map(|problem| format!("{problem}\n")).collect();
    assert_eq!(told.lines().collect::<Vec<_>>(), of_load, "nothing of it is kept back");
}

#[test]
fn what_is_needed_is_not_guessed() {
    for text in [
        "[web]\npidfile = %(nowhere)s\n",
        "[web]\npidfile = a.pid\npidfile = b.pid\n",
        "[DEFAULT]\nsingle_instance = perhaps\n[web]\n",
        "[web]\nbase_path =\n",
        "[web\nnice = 1\n",
    ] {
        let site = Site::new(text);
        let report = salvage(&site).expect_err(text);
        assert!(report.contains("app.ini:"), "{report}");
    }
    // Another section's faults are its own.
    let text = "[db]\npidfile = a.pid\npidfile = b.pid\n[web]\npidfile = web.pid\n";
    let site = Site::new(text).section("web");
    assert_eq!(salvage(&site).map(|it| it.settings.pidfile), Ok(site.path("web.pid")));
    assert_eq!(salvage(&Site::new("[web]\n")).map(|it| it.warnings), Ok(Vec::new()));
    let whole = Site::new("[web]\npidfile = /run/web.pid\n");
    let found = salvage(&whole).map(|it| it.settings.pidfile);
    assert_eq!(found, Ok(PathBuf::from("/run/web.pid")));
}
