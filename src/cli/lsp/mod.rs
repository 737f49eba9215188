//! `kiln lsp`: a language server for route files, over standard input and output.

mod answer;
mod place;
mod project;
mod server;
mod wire;

use crate::cli::Exit;

/// Run a language server: faults, completion, hover and definitions for an editor
#[derive(clap::Args)]
#[command(after_help = "An editor starts it; it speaks the Language Server Protocol 3.17 on standard input and output.
Examples:
  kiln lsp
  nvim: vim.lsp.start({ name = 'kiln', cmd = { 'kiln', 'lsp' } })

How editors are set up: docs/editors.md.")]
pub(crate) struct Args {
    /// Editors say so; it is what happens anyway
    #[arg(long)]
    stdio: bool,
}

pub(crate) fn run(args: &Args) -> Exit {
    let Args { stdio: _ } = args;
    server::serve()
}
