//! `cargo xtask dist`: the archive for operators, and its checksum.
//!
//! The same commit gives the same bytes: entries are sorted, belong to root, and have the time of
//! `SOURCE_DATE_EPOCH` or else of the last commit. Then the archive is unpacked and what is in it is
//! run, because an archive nobody tried is a guess.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest as _, Sha256};

use crate::release::{self, Release};
use crate::shell::{Invocation, Workspace};

/// What is packed beside the program: from where, as what, and whether a release needs it.
const FILES: [(&str, &str, bool); 4] = [
    ("CHANGELOG.md", "CHANGELOG.md", false),
    ("LICENSE", "LICENSE", true),
    ("README.md", "README.md", false),
    ("examples/conf/config.ini", "config.ini", true),
];

/// How long a step of the smoke test may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Workers of the smoke test.
const WORKERS: usize = 2;

/// A file of the archive.
struct Entry {
    name: String,
    mode: u32,
    content: Vec<u8>,
}

/// Builds, packs, and tries out what was packed.
pub(crate) fn dist() -> Result<()> {
    let workspace = Workspace::enter()?;
    let release = Release::build(&workspace, &["--package", "ph-cli", "--bin", "ph"])?;
    let version = workspace.version()?;
    let name = format!("ph-{version}-{}", release.triple);
    let entries = entries(&workspace, &release)?;

    let folder = workspace.target.join("dist");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let file = format!("{name}.tar.gz");
    let archive = folder.join(&file);
    let bytes = pack(&name, &entries, source_date()?)?;
    fs::write(&archive, &bytes).with_context(|| format!("write {}", archive.display()))?;
    let sum = Sha256::digest(&bytes);
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(folder.join("SHA256SUMS"), format!("{sum}  {file}\n"))?;

    try_out(&archive, &name, version).context("the packed program does not work")?;
    let linked = if release.is_static { "static" } else { "dynamic" };
    println!("{} ({} KB, {linked}), unpacked and run", archive.display(), bytes.len() / 1024);
    println!("{sum}  {file}");
    Ok(())
}

fn entries(workspace: &Workspace, release: &Release) -> Result<Vec<Entry>> {
    let program = release.folder.join("ph");
    let content = fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    for (folder, _) in release::private_folders(workspace)? {
        let text = folder.to_string_lossy();
        let found = content.windows(text.len()).any(|window| window == text.as_bytes());
        ensure!(!found, "the program names {text}, a folder of this machine");
    }
    let mut entries = vec![Entry { name: "ph".to_owned(), mode: 0o755, content }];
    for (from, name, is_needed) in FILES {
        match fs::read(workspace.root.join(from)) {
            Ok(content) => entries.push(Entry { name: name.to_owned(), mode: 0o644, content }),
            Err(error) if is_needed => return Err(error).with_context(|| format!("read {from}")),
            Err(_) => println!("NOT PACKED: {from} is not there"),
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// When the source was made, in seconds since 1970 (reproducible-builds.org).
fn source_date() -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => Invocation::new("git log -1 --format=%ct").output()?,
    };
    text.trim().parse().with_context(|| format!("{text:?} is not a number of seconds"))
}

fn pack(name: &str, entries: &[Entry], modified_at: u64) -> Result<Vec<u8>> {
    let gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let mut archive = tar::Builder::new(gzip);
    let mut append = |path: String, kind, mode, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(modified_at);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content)
    };
    append(format!("{name}/"), tar::EntryType::Directory, 0o755, &[])?;
    for entry in entries {
        let path = format!("{name}/{}", entry.name);
        append(path, tar::EntryType::Regular, entry.mode, &entry.content)?;
    }
    let mut gzip = archive.into_inner()?;
    gzip.flush()?;
    Ok(gzip.finish()?)
}

/// Unpacks the archive and runs what is in it: the version, then a service of two workers.
fn try_out(archive: &Path, name: &str, version: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    tar::Archive::new(GzDecoder::new(File::open(archive)?)).unpack(folder.path())?;
    let unpacked = folder.path().join(name);
    let program = unpacked.join("ph");

    let output = Command::new(&program).arg("--version").output().context("run ph --version")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "ph --version ended with {}", output.status);
    ensure!(said.trim() == format!("ph {version}"), "ph --version says {said:?}");

    let mut master = Command::new(&program)
        .args(["run", "-n", &WORKERS.to_string(), "--set"])
        .arg(format!("base_path={}", unpacked.display()))
        .args(["--", "sleep", "60"])
        .current_dir(&unpacked)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start ph run")?;
    let log = lines_of(master.stderr.take().context("no stderr")?);
    let served = serve_and_stop(&log, Pid::from_raw(i32::try_from(master.id())?));
    if served.is_err() {
        // Its workers die with it.
        master.kill()?;
    }
    let status = master.wait()?;
    served.with_context(|| format!("ph run ended with {status}"))?;
    ensure!(status.success(), "ph run ended with {status}");
    Ok(())
}

/// Waits until both workers are ready, asks the master to stop, and waits for its log to end.
fn serve_and_stop(log: &Receiver<String>, master: Pid) -> Result<()> {
    let mut seen = Vec::new();
    while seen.iter().filter(|line: &&String| line.contains(" is ready ")).count() < WORKERS {
        match log.recv_timeout(PATIENCE) {
            Ok(line) => seen.push(line),
            Err(_) => bail!("the workers are not ready:\n{}", seen.join("\n")),
        }
    }
    kill(master, Signal::SIGTERM)?;
    loop {
        match log.recv_timeout(PATIENCE) {
            Ok(line) => seen.push(line),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => bail!("it does not stop:\n{}", seen.join("\n")),
        }
    }
}

/// The lines of a stream as they come. The thread ends with the stream.
fn lines_of(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_depends_on_its_content_alone() {
        let entry = |name: &str| Entry { name: name.to_owned(), mode: 0o644, content: vec![7; 99] };
        let entries = [entry("a"), entry("b")];
        let packed = pack("ph-1", &entries, 1_000).unwrap();
        assert_eq!(packed, pack("ph-1", &entries, 1_000).unwrap());
        let mut archive = tar::Archive::new(GzDecoder::new(packed.as_slice()));
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 1_000));
                entry.path().unwrap().into_owned()
            })
            .collect();
        assert_eq!(names, ["ph-1/", "ph-1/a", "ph-1/b"].map(std::path::PathBuf::from));
    }
}
