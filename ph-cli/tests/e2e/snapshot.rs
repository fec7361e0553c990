//! Texts people read, compared with the files in `snapshots/`, and kept up to date on demand.

use std::path::PathBuf;

use crate::support::Stage;

/// Compares `text` with the snapshot of this name. What differs from run to run, the stage's
/// folder, has a name there.
pub(crate) fn assert_snapshot(name: &str, stage: &Stage, text: &str) {
    let folder = stage.folder().to_str().expect("a path in UTF-8");
    let text = text.replace(folder, "$FOLDER");
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/snapshots").join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, &text).expect("the snapshot");
    }
    let wanted = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, wanted, "{name} has changed; UPDATE_EXPECT=1 if that is wanted");
}
