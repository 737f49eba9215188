//! The `kiln` binary: hands the command line to `kiln::cli`.

/// Mapping makes many small values; this allocator gives them out and takes them back faster than the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    kiln::cli::main()
}
