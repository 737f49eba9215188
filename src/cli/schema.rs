//! `kiln schema`: JSON Schemas by which an editor completes and describes what may be written.

use crate::cli::Exit;
use crate::cli::paint::{err, out};
use crate::route;
use crate::site;
use std::path::PathBuf;

/// Print a JSON Schema for route files, or for kiln.yaml
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln schema --output routes.schema.json
  kiln schema --site --output kiln.schema.json

How an editor is told of them: docs/editors.md. Draft 2020-12.")]
pub(crate) struct Args {
    /// The schema of the site file, kiln.yaml
    #[arg(long)]
    site: bool,
    /// A file to write to, instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Exit {
    let schema = if args.site { site::schema() } else { route::schema() };
    let Some(path) = &args.output else {
        out!("{schema:#}");
        return Exit::Done;
    };
    match std::fs::write(path, format!("{schema}\n")) {
        Ok(()) => Exit::Done,
        Err(e) => {
            err!("kiln: {}: {}", path.display(), site::words(&e));
            Exit::CouldNot
        }
    }
}
