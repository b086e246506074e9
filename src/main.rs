//! The command `diskdelta`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
