//! `kiln journal prune`, `replay` and `skip`: they change the journal, so they need it for themselves or ask the daemon that has it.

use crate::cli::Exit;
use crate::cli::control::{self, Done, Item, Overridden, ReplayRequest, Request, Superseded};
use crate::cli::journal::{Place, open};
use crate::cli::journal_edit::{edited, who};
use crate::cli::journal_filter::Filter;
use crate::cli::paint::{FAINT, GOOD, WARN, err, out, paint, plain, plural};
use crate::journal::DeliveryState;
use crate::site::words;
use base64::Engine as _;
use std::path::{Path, PathBuf};

/// Delete settled messages that are older than the journal's `keep`, or beyond its `keep-bytes`
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
  kiln journal replay --code http-422 --route oru          all dead letters of that kind
  kiln journal replay --all
  kiln journal replay 1042 --edit                          in $EDITOR; the message stays in the journal as it was received
  kiln journal replay 1042 --with mended.hl7
  kiln journal replay 1042 --as-received                   by the routes of its first attempt, not today's
  kiln journal replay 1042 --superseded                    over the newer state; `--superseded=key` sends all that came later once more, too

A replay is never a duplicate, and keeps the order of each patient's messages. A message behind which a later one of the same patient,
visit, order or appointment was delivered to the same target is superseded: it is left out, unless `--superseded` is said.")]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    which: Which,
    /// By the route set of the first attempt, as when it was received; else by that of the day
    #[arg(long)]
    as_received: bool,
    /// Send superseded ones all the same (`send`), or with them all that came later on the same keys (`key`)
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "send", default_value = "skip", hide_default_value = true)]
    superseded: Superseded,
    /// Edit the message in $EDITOR first
    #[arg(long)]
    edit: bool,
    /// The message as it is to be, from a file
    #[arg(long, value_name = "FILE", conflicts_with = "edit")]
    with: Option<PathBuf>,
    /// Of messages that options choose: those in this state
    #[arg(long, value_enum, default_value = "dead-letter")]
    state: GivenUp,
}

/// States that a replay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum GivenUp {
    DeadLetter,
    Skipped,
    Superseded,
}

impl From<GivenUp> for DeliveryState {
    fn from(state: GivenUp) -> Self {
        match state {
            GivenUp::DeadLetter => Self::DeadLetter,
            GivenUp::Skipped => Self::Skipped,
            GivenUp::Superseded => Self::Superseded,
        }
    }
}

/// Deliveries that an operator names.
#[derive(clap::Args)]
struct Which {
    #[command(flatten)]
    place: Place,
    /// The messages' numbers
    numbers: Vec<u64>,
    #[command(flatten)]
    filter: Filter,
    /// All of them
    #[arg(long, conflicts_with = "numbers")]
    all: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Give dead letters up for good, so that the patient's later messages go on
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln journal skip 1042 --target main
  kiln journal skip --reason 'nothing identifies this Patient' --since 2026-11-24")]
pub(crate) struct SkipArgs {
    #[command(flatten)]
    which: Which,
}

impl Which {
    /// What is meant: the numbers, or what the options find. `Err` after the reason was printed.
    fn items(&self, folder: &Path, state: DeliveryState) -> Result<Vec<Item>, Exit> {
        if !self.numbers.is_empty() {
            let beside = Filter { target: None, ..self.filter.clone() };
            if !beside.is_empty() {
                err!("kiln: say the numbers, or options that find them; only --target goes with numbers");
                return Err(Exit::CouldNot);
            }
            let mut numbers = self.numbers.clone();
            numbers.sort_unstable();
            numbers.dedup();
            return Ok(numbers.into_iter().map(|message| Item { message, deliveries: None }).collect());
        }
        if self.filter.is_empty() && !self.all {
            err!("kiln: say which: numbers, options such as --code and --route, or --all");
            return Err(Exit::CouldNot);
        }
        let Some(reader) = open(folder) else { return Err(Exit::CouldNot) };
        let mut found = self.filter.find(&reader, state)?;
        found.reverse();
        let wanted = |f: &crate::journal::Found| f.deliveries.iter().filter(|d| d.wanted).map(|d| d.number).collect();
        Ok(found.iter().map(|f| Item { message: f.id.0, deliveries: Some(wanted(f)) }).collect())
    }
}

pub(crate) fn prune(args: &PruneArgs) -> Exit {
    ask(&args.place, &Request::Prune, args.json)
}

pub(crate) fn replay(args: &ReplayArgs) -> Exit {
    let Some((folder, rules)) = args.which.place.folder_and_rules() else { return Exit::CouldNot };
    let items = match args.which.items(&folder, args.state.into()) {
        Ok(items) => items,
        Err(exit) => return exit,
    };
    let mut request =
        ReplayRequest { items, target: args.which.filter.target.clone(), by: who(), as_received: args.as_received, superseded: args.superseded, edit: None };
    if args.edit || args.with.is_some() {
        let [Item { message, .. }] = request.items.as_slice() else {
            err!("kiln: one message at a time can be edited; say its number");
            return Exit::CouldNot;
        };
        match edited(&folder, &rules, *message, args.with.as_deref()) {
            Ok(Some(bytes)) => request.edit = Some(base64::engine::general_purpose::STANDARD.encode(bytes)),
            Ok(None) => {
                err!("kiln: the message is as it was; nothing was done");
                return Exit::Found;
            }
            Err(what) => {
                err!("kiln: {}", plain(&what));
                return Exit::CouldNot;
            }
        }
    }
    if args.which.dry_run { dry(&request, "tried again", args.which.json) } else { ask(&args.which.place, &Request::Replay(request), args.which.json) }
}

pub(crate) fn skip(SkipArgs { which }: &SkipArgs) -> Exit {
    let Some(folder) = which.place.folder() else { return Exit::CouldNot };
    let items = match which.items(&folder, DeliveryState::DeadLetter) {
        Ok(items) => items,
        Err(exit) => return exit,
    };
    let request = ReplayRequest { items, target: which.filter.target.clone(), by: who(), ..ReplayRequest::default() };
    if which.dry_run { dry(&request, "given up for good", which.json) } else { ask(&which.place, &Request::Skip(request), which.json) }
}

/// What would be done.
fn dry(request: &ReplayRequest, what: &str, json: bool) -> Exit {
    let numbers: Vec<u64> = request.items.iter().map(|item| item.message).collect();
    if json {
        out!("{}", serde_json::json!({ "messages": numbers }));
    } else {
        let shown: Vec<String> = numbers.iter().take(20).map(u64::to_string).collect();
        let more = if numbers.len() > shown.len() { ", ..." } else { "" };
        out!("{} would be {what}: {}{more}", plural(numbers.len() as u64, "message"), shown.join(", "));
    }
    if numbers.is_empty() { Exit::Found } else { Exit::Done }
}

/// Asks whoever has the journal, and says what came of it.
pub(crate) fn ask(place: &Place, request: &Request, json: bool) -> Exit {
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
            tell(request, &done);
            if done.is_nothing() { Exit::Found } else { Exit::Done }
        }
        Err(what) => {
            err!("kiln: {}", plain(&what));
            Exit::CouldNot
        }
    }
}

fn tell(request: &Request, done: &Done) {
    match request {
        Request::Reload | Request::Status | Request::Import { .. } => done.said.iter().for_each(|line| out!("{}", plain(line))),
        Request::Prune => {
            out!("{} with {} deleted, {} carried over", plural(done.segments, "file"), plural(done.messages, "message"), plural(done.carried, "message"));
        }
        Request::Replay(request) => {
            out!("{} {}", paint(GOOD, &plural(done.deliveries, "delivery")), "will be tried again");
            superseded(request.superseded, &done.superseded);
        }
        Request::Skip(_) => out!("{} {}", paint(GOOD, &plural(done.deliveries, "delivery")), "given up for good"),
        Request::Known { .. } => {}
    }
}

/// Says what a replay leaves out, or overrides.
fn superseded(how: Superseded, found: &[Overridden]) {
    const SHOWN: usize = 20;
    if found.is_empty() {
        return;
    }
    let head = match how {
        Superseded::Skip => "superseded and left out: later messages of the same keys were delivered",
        Superseded::Send => "sent over the newer state of later messages",
        Superseded::Key => "sent, and after it all that came later of the same keys",
    };
    out!("{} {head}", paint(WARN, &plural(found.len() as u64, "delivery")));
    for one in found.iter().take(SHOWN) {
        out!("  message {} to {}: {} later, the newest is {}", one.message, plain(&one.target), plural(one.later, "delivery"), one.newest);
    }
    if found.len() > SHOWN {
        out!("  {}", paint(FAINT, &format!("and {} more", found.len() - SHOWN)));
    }
    if how == Superseded::Skip {
        out!("`--superseded` sends such a message all the same; `--superseded=key` sends with it, once more and in order, all that came later");
    }
}
