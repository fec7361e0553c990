//! `cargo xtask gen`: the files of the repository that are written from tables in the code.
//!
//! They are kept in the repository, so that they can be read where the code is read; `--check`,
//! a step of `cargo xtask check`, sees to it that they say what the tables say.

mod schema;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::shell::Workspace;

/// What writes the text of a file.
type Writer = fn() -> String;

/// Every such file, and what writes it.
const FILES: [(&str, Writer); 2] = [
    ("docs/settings.md", ph_config::reference::markdown),
    ("docs/settings.schema.json", schema::schema),
];

/// Writes the files, or compares them.
#[derive(Debug, Args)]
pub(crate) struct Gen {
    /// Write nothing; fail if a file is not as it would be written
    #[arg(long)]
    check: bool,
}

impl Gen {
    /// What `cargo xtask check` runs.
    pub(crate) fn checking() -> Self {
        Self { check: true }
    }

    pub(crate) fn run(&self) -> Result<()> {
        let workspace = Workspace::enter()?;
        let stale = stale(&workspace.root, &FILES)?;
        for (file, text) in &stale {
            if self.check {
                println!("{file} is not what its table says");
            } else {
                std::fs::write(workspace.root.join(file), text)
                    .with_context(|| format!("write {file}"))?;
                println!("{file} written");
            }
        }
        if self.check && !stale.is_empty() {
            bail!("stale files: {}; `cargo xtask gen` writes them", stale.len());
        }
        println!(
            "{} of {} generated files were up to date",
            FILES.len() - stale.len(),
            FILES.len()
        );
        Ok(())
    }
}

/// The files that differ from what would be written, each with what would be.
fn stale(root: &Path, files: &[(&'static str, Writer)]) -> Result<Vec<(&'static str, String)>> {
    let mut stale = Vec::new();
    for (file, write) in files {
        let text = write();
        let there = match std::fs::read(root.join(file)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("read {file}")),
        };
        if there != text.as_bytes() {
            stale.push((*file, text));
        }
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_differs_or_is_missing_is_stale() {
        let folder = tempfile::tempdir().unwrap();
        let files: [(&str, Writer); 3] =
            [("same", || "1\n".into()), ("other", || "1\n".into()), ("missing", || "1\n".into())];
        std::fs::write(folder.path().join("same"), "1\n").unwrap();
        std::fs::write(folder.path().join("other"), "1").unwrap();
        let stale = stale(folder.path(), &files).unwrap();
        assert_eq!(stale, [("other", "1\n".to_owned()), ("missing", "1\n".to_owned())]);
    }
}
