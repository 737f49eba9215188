//! `kiln explain K203`: what a code means, how it comes about, how it is cured.

use crate::cli::Exit;
use crate::cli::paint::{NAME, STRONG, err, out, paint};
use crate::diagnostic::{CODES, page, suggest};

/// Explain a diagnostic's code
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  kiln explain K203\n  kiln explain            lists all codes")]
pub(crate) struct Args {
    /// A code, such as K203; left out: a list of all codes
    code: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Exit {
    let Some(code) = &args.code else {
        for c in CODES {
            if args.json {
                out!("{}", serde_json::json!({ "code": c.code, "title": c.title }));
            } else {
                out!("{}  {}", paint(NAME, c.code), c.title);
            }
        }
        return Exit::Done;
    };
    let Some(text) = page(code) else {
        let near = suggest(code, CODES.iter().map(|c| c.code)).map_or(String::new(), |c| format!("; did you mean {c}?"));
        err!("kiln: there is no code {code}{near}; `kiln explain` lists all");
        return Exit::CouldNot;
    };
    if args.json {
        out!("{}", serde_json::json!({ "code": code.to_uppercase(), "page": text }));
    } else {
        for line in text.trim_end().lines() {
            if line.starts_with('#') { out!("{}", paint(STRONG, line)) } else { out!("{line}") }
        }
    }
    Exit::Done
}
