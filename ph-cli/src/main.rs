//! The `ph` command.

fn main() -> std::process::ExitCode {
    ph_cli::App::new("ph").main()
}
