//! The `kiln` binary: hands the command line to `kiln::cli`.

fn main() -> std::process::ExitCode {
    kiln::cli::main()
}
