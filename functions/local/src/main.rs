//! The `ribera` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ribera::cli::main()
}
