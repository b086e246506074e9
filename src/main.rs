//! The command `diskdelta`.

fn main() -> std::process::ExitCode {
    diskdelta::cli::main()
}
