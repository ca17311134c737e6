//! Arguments, run, exit code.

fn main() -> std::process::ExitCode {
    tintype::cli::main(std::env::args_os())
}
