//! The release build, as operators get it: static where the C library can be linked so, stripped, and
//! without a trace of the machine it was made on.
//!
//! `bench` measures what `dist` packs, so both build here.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::shell::{Invocation, Workspace};

const STATIC: &str = "-Ctarget-feature=+crt-static";

/// What was built.
#[derive(Debug)]
pub(crate) struct Release {
    /// The folder of its programs.
    pub(crate) folder: PathBuf,
    /// What it runs on.
    pub(crate) triple: String,
    /// Whether it needs no library of that machine.
    pub(crate) is_static: bool,
}

impl Release {
    /// Builds the programs that `what` selects, in words of `cargo build`.
    pub(crate) fn build(workspace: &Workspace, what: &[&str]) -> Result<Self> {
        let triple = host()?;
        let is_static = triple.contains("linux") && links_statically(&triple);
        if !is_static {
            println!("a static program cannot be linked here, so this build is a dynamic one");
        }
        let line = format!("cargo build --release --locked --target {triple}");
        what.iter()
            .fold(Invocation::new(&line), |invocation, word| invocation.argument(*word))
            .variable("CARGO_ENCODED_RUSTFLAGS", flags(workspace, is_static)?.join("\x1f"))
            .variable("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .run()?;
        let folder = workspace.target.join(&triple).join("release");
        Ok(Self { folder, triple, is_static })
    }
}

/// Folders of this machine that must not be found in a program, with what stands for each there.
pub(crate) fn private_folders(workspace: &Workspace) -> Result<Vec<(PathBuf, &'static str)>> {
    let cargo_home = match std::env::var_os("CARGO_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::home_dir().context("there is no home folder")?.join(".cargo"),
    };
    Ok(vec![(cargo_home, "cargo"), (workspace.root.clone(), "ph")])
}

fn flags(workspace: &Workspace, is_static: bool) -> Result<Vec<String>> {
    let given = std::env::var("RUSTFLAGS").unwrap_or_default();
    let mut flags: Vec<_> = given.split_whitespace().map(str::to_owned).collect();
    if is_static {
        flags.push(STATIC.to_owned());
    }
    for (folder, name) in private_folders(workspace)? {
        flags.push(format!("--remap-path-prefix={}={name}", folder.display()));
    }
    Ok(flags)
}

/// The machine this compiler builds for when it is not told otherwise.
fn host() -> Result<String> {
    let version = Invocation::new("rustc -vV").output()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}

/// Whether a static program can be linked and run: the C library's archive may not be installed.
fn links_statically(triple: &str) -> bool {
    let try_it = || -> Result<bool> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("probe");
        let mut compiler = Command::new("rustc")
            .args(["-", "--crate-name=probe", "--target", triple, STATIC, "-o"])
            .arg(&program)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        compiler.stdin.take().context("no stdin")?.write_all(b"fn main() {}")?;
        Ok(compiler.wait()?.success() && Command::new(&program).status()?.success())
    };
    try_it().unwrap_or(false)
}
