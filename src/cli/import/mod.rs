//! `kiln import`: hands the messages of archives to a listener of the running daemon, and goes on where it was interrupted.

mod archive;
mod link;
mod progress;

pub(crate) use link::{Turns, answer};

use crate::cli::Exit;
use crate::cli::control;
use crate::cli::import::archive::{Item, Reading};
use crate::cli::import::link::{Answered, Link, Offer};
use crate::cli::import::progress::Progress;
use crate::cli::journal::Place;
use crate::cli::paint::{BAD, FAINT, GOOD, NAME, WARN, count, err, out, paint, plain, table};
use crate::site::words;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Import archives of messages: into a listener of the running daemon, once, with a resume
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln import archive-2024.zip --listener adt
  kiln import 2024/*.hl7.gz backup.tar.gz --listener adt --json
  kiln import archive-2024.zip --listener adt --again

An archive is a file of messages, plain or packed by gzip, or a zip or tar file of such files; its first bytes say which. Each message is judged, acknowledged and
routed as if its sender had sent it to that listener now, in the archive's order.

After Ctrl-C, a crash or a restart of the daemon the same command goes on with the first message that is not stored. An archive that was imported whole is not imported
again, unless --again says so. Exits 1 if a message was refused, an archive is damaged or the import was interrupted, 2 if it could not run.")]
pub(crate) struct Args {
    /// Files and archives
    #[arg(required = true)]
    archives: Vec<PathBuf>,
    /// The listener that takes the messages; may be left out if the site has one
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Import from the beginning, also what was imported before
    #[arg(long)]
    again: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Messages that may wait for their answers.
const AHEAD_MAX: usize = 64;
/// How often it is written down how far the import is.
const NOTE_EVERY: Duration = Duration::from_millis(500);

pub(crate) fn run(args: &Args) -> Exit {
    let Some(folder) = args.place.folder() else { return Exit::CouldNot };
    let Some(listener) = listener(args) else { return Exit::CouldNot };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            err!("kiln: {}", words(&e));
            return Exit::CouldNot;
        }
    };
    let mut worst = Exit::Done;
    for archive in &args.archives {
        match runtime.block_on(import(args, &folder, &listener, archive)) {
            Ok(Exit::Done) => {}
            Ok(exit) => worst = exit,
            Err(what) => {
                err!("kiln: {}: {}", archive.display(), plain(&what));
                return Exit::CouldNot;
            }
        }
    }
    worst
}

/// The listener that was named, else the only one of the site.
fn listener(args: &Args) -> Option<String> {
    if args.listener.is_some() {
        return args.listener.clone();
    }
    let site = crate::cli::site_file::open_if_any(args.place.config.as_deref(), false).ok()?;
    let names = site.map(|site| site.listener_names()).unwrap_or_default();
    match names.as_slice() {
        [only] => Some(only.clone()),
        names => {
            err!(
                "kiln: say which listener takes the messages: --listener NAME{}",
                if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
            );
            None
        }
    }
}

/// A message that was read and is not settled yet.
struct Ahead {
    /// The newest message that the journal had before it.
    newest: u64,
    /// What is known of it already, from before an interruption.
    known: Option<bool>,
}

/// What ends an import early.
enum Stop {
    /// Ctrl-C.
    Asked,
    /// The daemon has gone.
    Daemon(String),
    /// The daemon could not store a message.
    NotStored,
}

async fn import(args: &Args, folder: &Path, listener: &str, archive: &Path) -> Result<Exit, String> {
    let began = Instant::now();
    let mut progress = Progress::open(folder, archive, listener, args.again)?;
    if progress.finished {
        tell(args.json, archive, listener, &progress, Some("imported before"), None);
        return Ok(if progress.is_well() { Exit::Done } else { Exit::Found });
    }
    let files = progress.files(archive);
    let (mut link, hello) = Link::open(&control::socket(folder), listener, &files, progress.newest).await?;
    if progress.done == 0 && progress.newest.is_none() {
        progress.newest = Some(hello.newest);
        progress.write()?;
    }
    let mut known: HashMap<(String, u64), bool> = hello.taken.into_iter().map(|taken| ((taken.source, taken.number), taken.refused)).collect();
    let mut newest = hello.newest;
    let mut reading = Reading::begin(archive, hello.message_bytes_max);
    let bar = bar(args.json, reading.length());
    let (mut ahead, mut skip, mut ended, mut stop) = (VecDeque::<Ahead>::new(), progress.done, false, None);
    let mut noted = Instant::now();
    progress.begin_reading();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        while ahead.front().is_some_and(|first| first.known.is_some()) {
            let Some(first) = ahead.pop_front() else { break };
            progress.settle(first.known.unwrap_or_default(), "stored before the interruption", ahead.front().map_or(newest, |next| next.newest));
        }
        if noted.elapsed() >= NOTE_EVERY {
            noted = Instant::now();
            progress.write()?;
            bar.set_position(reading.position());
            bar.set_message(format!("{} messages, {} refused", count(progress.done), count(progress.refused())));
        }
        if (ended || stop.is_some()) && ahead.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            answer = link.answer(), if !ahead.is_empty() => match answer {
                Ok(Answered { code, reason, newest: now, closed: false }) => {
                    newest = now;
                    if ahead.pop_front().is_some() {
                        let refused = !matches!(code.as_str(), "AA" | "CA" | "");
                        progress.settle(refused, &reason, ahead.front().map_or(newest, |next| next.newest));
                    }
                }
                Ok(_) => {
                    stop = Some(Stop::NotStored);
                    break;
                }
                Err(what) => {
                    stop = Some(Stop::Daemon(what));
                    break;
                }
            },
            item = reading.next(), if !ended && stop.is_none() && ahead.len() < AHEAD_MAX => match item {
                None => ended = true,
                Some(Item::Flaw(what)) => progress.flaw(what),
                Some(Item::Message { .. }) if skip > 0 => skip -= 1,
                Some(Item::Message { member, position, number, bytes, oversize }) => {
                    let source = progress.source(&files, position, &member);
                    let refused = known.remove(&(source.clone(), number));
                    if refused.is_none()
                        && let Err(what) = link.offer(&Offer { source, number, bytes: bytes.len(), oversize }, &bytes).await
                    {
                        stop = Some(Stop::Daemon(what));
                        break;
                    }
                    ahead.push_back(Ahead { newest, known: refused });
                }
            },
            _ = &mut interrupted, if stop.is_none() => stop = Some(Stop::Asked),
        }
    }
    bar.finish_and_clear();
    progress.finished = stop.is_none();
    progress.write()?;
    let why = match &stop {
        None => None,
        Some(Stop::Asked) => Some("interrupted; the same command goes on".to_owned()),
        Some(Stop::NotStored) => Some("the daemon could not store a message, its log says why; once it can, the same command goes on".to_owned()),
        Some(Stop::Daemon(what)) => Some(format!("{what}; once it runs again, the same command goes on")),
    };
    tell(args.json, archive, listener, &progress, why.as_deref(), Some(began.elapsed()));
    Ok(if progress.is_well() { Exit::Done } else { Exit::Found })
}

fn bar(json: bool, length: u64) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}  {msg}  {eta} left").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

/// What came of it.
fn tell(json: bool, archive: &Path, listener: &str, progress: &Progress, why: Option<&str>, took: Option<Duration>) {
    if json {
        let refusals: serde_json::Map<_, _> = progress.refusals.iter().map(|(reason, n)| (reason.clone(), (*n).into())).collect();
        let line = serde_json::json!({
            "archive": archive.display().to_string(), "listener": listener, "messages": progress.done, "accepted": progress.accepted, "refused": progress.refused(),
            "refusals": refusals, "flaws": progress.flaws, "moreFlaws": progress.more_flaws, "finished": progress.finished, "note": why,
        });
        out!("{line}");
        return;
    }
    let rate = took.filter(|t| t.as_secs_f64() > 0.0).map(|t| paint(FAINT, &format!(" in {:.1} s", t.as_secs_f64()))).unwrap_or_default();
    out!("{}: {} messages to {}{rate}", paint(NAME, &archive.display().to_string()), count(progress.done), plain(listener));
    out!("  {}  {}", paint(GOOD, "accepted"), count(progress.accepted));
    if progress.refused() > 0 {
        out!("  {}   {}", paint(BAD, "refused"), count(progress.refused()));
        let rows: Vec<_> = progress.refusals.iter().map(|(reason, n)| vec![count(*n), plain(reason).into_owned()]).collect();
        table(&["messages", "reason"], &[true, false], &rows);
    }
    progress.flaws.iter().for_each(|flaw| out!("  {}  {}", paint(WARN, "flaw"), plain(flaw)));
    if progress.more_flaws > 0 {
        out!("  {}  and {} more", paint(WARN, "flaw"), count(progress.more_flaws));
    }
    if let Some(why) = why {
        out!("  {}", paint(WARN, &plain(why)));
    }
}
