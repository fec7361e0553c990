//! Running programs, and what cargo knows about the workspace.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// A program to run, its arguments, and variables beside those of this process.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    words: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

impl Invocation {
    /// A command line of plain words, split at blanks.
    pub(crate) fn new(line: &str) -> Self {
        Self { words: line.split(' ').map(str::to_owned).collect(), variables: Vec::new() }
    }

    /// One more argument, which may hold blanks.
    pub(crate) fn argument(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    /// One more variable.
    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// The line that does the same in a shell.
    pub(crate) fn line(&self) -> String {
        let quote =
            |word: &str| shlex::try_quote(word).map_or_else(|_| word.to_owned(), Cow::into_owned);
        let variables =
            self.variables.iter().map(|(name, value)| format!("{name}={}", quote(value)));
        variables.chain(self.words.iter().map(|word| quote(word))).collect::<Vec<_>>().join(" ")
    }

    /// Runs it from the current directory, its output where this process's goes.
    pub(crate) fn run(&self) -> Result<()> {
        let status = self.command().status().with_context(|| format!("run {}", self.words[0]))?;
        if !status.success() {
            bail!("{} ended with {status}", self.words[0]);
        }
        Ok(())
    }

    /// Runs it and gives what it printed.
    pub(crate) fn output(&self) -> Result<String> {
        let output = self
            .command()
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("run {}", self.words[0]))?;
        if !output.status.success() {
            bail!("{} ended with {}", self.line(), output.status);
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Whether it runs and succeeds, without a word.
    pub(crate) fn succeeds(&self) -> bool {
        let quiet = self.command().stdout(Stdio::null()).stderr(Stdio::null()).status();
        quiet.is_ok_and(|status| status.success())
    }

    fn command(&self) -> Command {
        let program = match self.words[0].as_str() {
            // The cargo that runs this task, so that `cargo +nightly xtask` means it throughout.
            "cargo" => std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            other => OsString::from(other),
        };
        let mut command = Command::new(program);
        command.args(&self.words[1..]).stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// What cargo knows about the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    /// Its folder.
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    /// The folder for everything that is built.
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
    /// Its members.
    pub(crate) packages: Vec<Package>,
}

/// A member of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
}

impl Workspace {
    /// Asks cargo, and makes the workspace's folder the current one.
    pub(crate) fn enter() -> Result<Self> {
        let asked = Invocation::new("cargo metadata --no-deps --format-version 1").output()?;
        let workspace: Self = serde_json::from_str(&asked).context("read `cargo metadata`")?;
        std::env::set_current_dir(&workspace.root)
            .with_context(|| format!("enter {}", workspace.root.display()))?;
        Ok(workspace)
    }

    /// The version of `ph`.
    pub(crate) fn version(&self) -> Result<&str> {
        let package = self.packages.iter().find(|package| package.name == "ph-cli");
        Ok(&package.context("no package ph-cli")?.version)
    }

    /// The files of the repository: those git tracks and those it would, from the root.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let listed = Invocation::new("git ls-files --cached --others --exclude-standard -z");
        let mut files: Vec<_> =
            listed.output()?.split_terminator('\0').map(str::to_owned).collect();
        // A file that was deleted but not yet committed is still listed.
        files.retain(|file| self.root.join(file).is_file());
        files.sort();
        files.dedup();
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_pasted_into_a_shell() {
        let invocation = Invocation::new("cargo doc").variable("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(invocation.argument("a b").line(), "RUSTDOCFLAGS='-D warnings' cargo doc 'a b'");
    }
}
