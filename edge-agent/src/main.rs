//! The store program. Everything is in the library, so that tests and simulation run the same.

fn main() -> std::process::ExitCode {
    ribera_agent::cli::main()
}
