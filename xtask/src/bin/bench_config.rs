//! Reads a configuration and loads every section of it, again and again: `bench-config FILE ROUNDS`
//! prints the nanoseconds that each round took, one a line.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "that is how it answers")]

use std::path::Path;
use std::process::ExitCode;

use ph_config::{ConfigErrors, Source};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(rounds)) = (arguments.next(), arguments.next()) else {
        eprintln!("bench-config: expected FILE and ROUNDS");
        return ExitCode::from(2);
    };
    for _ in 0..rounds.parse().unwrap_or(0) {
        let started = xtask::monotonic();
        if let Err(errors) = load_all(Path::new(&file)) {
            eprintln!("bench-config: {errors}");
            return ExitCode::FAILURE;
        }
        println!("{}", xtask::monotonic() - started);
    }
    ExitCode::SUCCESS
}

fn load_all(file: &Path) -> Result<(), ConfigErrors> {
    let configuration = Source { file: Some(file), ..Source::new(Path::new("/")) }.read()?;
    for name in configuration.sections() {
        std::hint::black_box(configuration.load(Some(name), &[])?);
    }
    Ok(())
}
