//! Files that others can write, for whoever is root.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use ph_config::{ConfigErrors, Environment, ForeignWriters, Loaded, Source};

use crate::Site;

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

fn load(site: &Site, foreign_writers: ForeignWriters) -> Result<Loaded, ConfigErrors> {
    let environment = Environment::default();
    Source { foreign_writers, environment, ..site.source("app.ini") }.read()?.load(None, &[])
}

fn refused(site: &Site) -> String {
    load(site, ForeignWriters::Refuse).expect_err("others can write it").to_string()
}

#[test]
fn a_file_that_everybody_can_write_is_refused_for_root() {
    let site = Site::new("[web]\n");
    mode(&site.path("app.ini"), 0o666);
    let path = site.path("app.ini");
    let expected = format!(
        "app.ini: expected a file that only root can write, but everybody may write {0} (mode 0666)\n    \
         chmod o-w {0}; or accept it with --allow-writable",
        path.display()
    );
    assert_eq!(refused(&site), expected);
    let warned = load(&site, ForeignWriters::Warn).expect("only a warning").warnings;
    assert_eq!(warned.len(), 1);
    assert_eq!(load(&site, ForeignWriters::Accept).expect("nobody asked").warnings, []);
}

#[test]
fn groups_owners_folders_and_env_files_count_too() {
    let site = Site::new("[web]\nenv_file = a.env\n").file("a.env", "A=1\n").file("d/x.ini", "");
    let path = site.path("app.ini");
    chown(&path, Some(1234), Some(1234)).expect("this test wants root");
    mode(&path, 0o664);
    // A private group is as good as the owner, of whom there is only a warning.
    let owned = load(&site, ForeignWriters::Refuse).expect("only a warning").warnings;
    assert!(owned[0].message.contains("but user 1234 owns "), "{owned:?}");
    chown(&path, Some(0), Some(1234)).expect("chown");
    assert!(refused(&site).contains("group 1234 may write "));
    chown(&path, Some(0), Some(0)).expect("chown");
    load(&site, ForeignWriters::Refuse).expect("root's group is root's");
    mode(&site.path("a.env"), 0o602);
    assert!(refused(&site).starts_with("app.ini:2: [web] env_file: \""), "{}", refused(&site));
    mode(&site.path("a.env"), 0o600);
    mode(site.folder.path(), 0o777);
    assert!(
        refused(&site).contains("everybody may put files in the place of others in "),
        "{}",
        refused(&site)
    );
    mode(site.folder.path(), 0o1777);
    load(&site, ForeignWriters::Refuse).expect("a sticky folder is safe");
}
