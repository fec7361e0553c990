//! The programs from PyPI: pinned, in a venv below the target folder, made once. The system's Python stays
//! as it is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::{require, tell};

const REQUIREMENTS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/recipes/requirements.txt");

/// A `PATH` with those programs in front.
pub(super) fn path() -> String {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    require(&["python3"]);
    let folder = FOLDER.get_or_init(prepare).as_ref();
    let folder = folder.unwrap_or_else(|why| panic!("this test needs uvicorn and gunicorn: {why}"));
    format!("{}/bin:{}", folder.display(), std::env::var("PATH").expect("PATH"))
}

/// Makes the venv, unless what is there was made of the same.
fn prepare() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recipes-venv");
    let lock = File::create(folder.with_extension("lock")).expect("a lock file");
    lock.lock().expect("the lock");
    let version = "import sys; print(sys.executable, sys.version)";
    let version = succeed(Command::new("python3").args(["-c", version]), "is python3 whole?")?;
    let made_of = std::fs::read_to_string(REQUIREMENTS).expect("the requirements") + &version;
    let stamp = folder.join("made-of");
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == made_of) {
        return Ok(folder);
    }
    tell(&format!("installing uvicorn and gunicorn into {}", folder.display()));
    // What an earlier attempt left, if there was one.
    let _ = std::fs::remove_dir_all(&folder);
    let venv = ["-m", "venv"];
    let how = "Debian has it in python3-venv";
    succeed(Command::new("python3").args(venv).arg(&folder), how)?;
    let pip = "-m pip install --quiet --disable-pip-version-check --no-input --retries 2 \
               --timeout 15 --only-binary :all: --require-hashes -r";
    let mut install = Command::new(folder.join("bin/python3"));
    let how = "it takes Python 3.10 or newer, and a network once; after that none";
    succeed(install.args(pip.split_whitespace()).arg(REQUIREMENTS), how)?;
    std::fs::write(stamp, made_of).expect("a stamp");
    Ok(folder)
}

/// Runs a command; gives what it said, or why it failed and what would help.
fn succeed(command: &mut Command, help: &str) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&[output.stdout, output.stderr].concat());
    Err(format!("{command:?} failed ({help}):\n{said}"))
}
