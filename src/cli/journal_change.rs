//! `kiln journal prune`, `replay` and `skip`: they change the journal, so they need it for themselves or ask the daemon that has it.

use crate::cli::Exit;
use crate::cli::control::{self, Request};
use crate::cli::journal::Place;
use crate::cli::paint::{GOOD, err, out, paint, plain, plural};
use crate::site::words;

/// Delete settled messages that are older than the journal's `keep`
#[derive(clap::Args)]
#[command(after_help = "Example:
  kiln journal prune

Whole files are deleted, so the space comes back at once. What is not settled stays.")]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Try again what was given up: dead letters, skipped and superseded deliveries
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln journal replay 1042 1043
  kiln journal search --state dead-letter --json | jq .id | xargs kiln journal replay

A replay is never a duplicate, and keeps the order of each patient's messages.")]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    which: Which,
}

/// Deliveries that an operator names.
#[derive(clap::Args)]
struct Which {
    #[command(flatten)]
    place: Place,
    /// The messages' numbers
    #[arg(required = true)]
    numbers: Vec<u64>,
    /// Only deliveries to this target
    #[arg(long)]
    target: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Give dead letters up for good, so that the patient's later messages go on
#[derive(clap::Args)]
#[command(after_help = "Example:
  kiln journal skip 1042 --target main")]
pub(crate) struct SkipArgs {
    #[command(flatten)]
    which: Which,
}

pub(crate) fn prune(args: &PruneArgs) -> Exit {
    ask(&args.place, &Request::Prune, args.json)
}

pub(crate) fn replay(ReplayArgs { which }: &ReplayArgs) -> Exit {
    ask(&which.place, &Request::Replay { messages: which.numbers.clone(), target: which.target.clone() }, which.json)
}

pub(crate) fn skip(SkipArgs { which }: &SkipArgs) -> Exit {
    ask(&which.place, &Request::Skip { messages: which.numbers.clone(), target: which.target.clone() }, which.json)
}

fn ask(place: &Place, request: &Request, json: bool) -> Exit {
    let Some((folder, rules)) = place.folder_and_rules() else { return Exit::CouldNot };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            err!("kiln: {}", words(&e));
            return Exit::CouldNot;
        }
    };
    match runtime.block_on(control::ask_or_do(&folder, request, &rules)) {
        Ok(done) if json => {
            out!("{}", serde_json::to_value(&done).unwrap_or_default());
            if done.is_nothing() { Exit::Found } else { Exit::Done }
        }
        Ok(done) => {
            match request {
                Request::Reload | Request::Status => done.said.iter().for_each(|line| out!("{}", plain(line))),
                Request::Prune => out!(
                    "{} with {} deleted, {} carried over",
                    plural(done.segments, "file"),
                    plural(done.messages, "message"),
                    plural(done.carried, "message")
                ),
                Request::Replay { .. } => {
                    out!("{} {}", paint(GOOD, &plural(done.deliveries, "delivery").replace("deliverys", "deliveries")), "will be tried again")
                }
                Request::Skip { .. } => {
                    out!("{} {}", paint(GOOD, &plural(done.deliveries, "delivery").replace("deliverys", "deliveries")), "given up for good")
                }
            }
            if done.is_nothing() { Exit::Found } else { Exit::Done }
        }
        Err(what) => {
            err!("kiln: {}", plain(&what));
            Exit::CouldNot
        }
    }
}
