//! `kiln reload`: asks the running daemon to read its site again, and says what changed.

use crate::cli::Exit;
use crate::cli::control::{self, Request};
use crate::cli::journal::Place;
use crate::cli::paint::{FAINT, err, out, paint, plain};
use crate::site::words;

/// Ask the running daemon to read its site again
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln reload
  kiln reload --config /etc/kiln/kiln.yaml --json

Everything is checked first and becomes live as a whole. Exits 1 when it was refused, and says why; then nothing has changed.")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Exit {
    let Some((folder, rules)) = args.place.folder_and_rules() else { return Exit::CouldNot };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            err!("kiln: {}", words(&e));
            return Exit::CouldNot;
        }
    };
    // Whether somebody is there is asked first: what is refused and what cannot be asked are different ends.
    if let Err(what) = runtime.block_on(control::ask_or_do(&folder, &Request::Status, &rules)) {
        err!("kiln: {}", plain(&what));
        return Exit::CouldNot;
    }
    match runtime.block_on(control::ask_or_do(&folder, &Request::Reload, &rules)) {
        Ok(done) if args.json => {
            out!("{}", serde_json::json!({ "applied": true, "changed": done.said }));
            Exit::Done
        }
        Ok(done) if done.said.is_empty() => {
            out!("{}", paint(FAINT, "nothing has changed"));
            Exit::Done
        }
        Ok(done) => {
            done.said.iter().for_each(|line| out!("{}", plain(line)));
            Exit::Done
        }
        Err(what) => {
            if args.json {
                out!("{}", serde_json::json!({ "applied": false, "error": what }));
            }
            err!("kiln: nothing was changed:\n{}", plain_lines(&what));
            Exit::Found
        }
    }
}

fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}
