//! The `pgherd` command, for tests.

fn main() -> std::process::ExitCode {
    pgherd::cli::run()
}
