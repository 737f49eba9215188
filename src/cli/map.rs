//! `kiln map`: what a message becomes, resources or messages, without a daemon.

use crate::cli::answers::{AnswerArgs, Source};
use crate::cli::paint::{BAD, FAINT, NAME, STRONG, WARN, colour_json, err, out, paint, plain, print_bytes};
use crate::cli::route_choice::{Choice, Chosen, parse_options, sender};
use crate::cli::{Exit, message_file, test_messages};
use crate::exchange::{MessageId, Timestamp};
use crate::fhir::display_bundle;
use crate::hl7v2::Message;
use crate::route::{Context, Finding, Output, RouteId, RouteSet, Stop};
use crate::site::{ListenerSite, words};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Print the FHIR Bundle, or the HL7 v2 messages, that a message makes
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln map admit.hl7
  kiln map admit.hl7 --route adt --routes site/routes
  cat admit.hl7 | kiln map -
  kiln map lab.hl7 --route lab-to-ward --raw > out.hl7

The Bundle goes to standard output, one per route that takes the message; of a route with `message:` it is each message, a segment a line.
Findings go to standard error.
Exits 1 if a message cannot be read, is taken by no route, or lacks what its route requires.")]
pub(crate) struct Args {
    /// Files with messages: plain, MLLP-wrapped, batches, any line ends; `-` is standard input
    #[arg(required = true)]
    messages: Vec<PathBuf>,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    answers: AnswerArgs,
    /// Print one JSON object per message and route, with findings and how each resource is saved
    #[arg(long)]
    json: bool,
    /// Print messages byte for byte as a target gets them, each segment ended by a carriage return
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

pub(crate) fn run(args: &Args) -> Exit {
    let mut files = Vec::new();
    for file in &args.messages {
        match message_file::read(file) {
            Ok(messages) => match args.answers.source(file, &args.choice.site_path()) {
                Ok(source) => files.push((file, messages, source)),
                Err(what) => {
                    err!("kiln: {}", plain(&what));
                    return Exit::CouldNot;
                }
            },
            Err(e) => {
                err!("kiln: {}: {}", file.display(), words(&e));
                return Exit::CouldNot;
            }
        }
    }
    let Some(Chosen { set, listener, only, .. }) = args.choice.load() else { return Exit::CouldNot };
    let mut mapping = Mapping { set: &set, listener, only, json: args.json, raw: args.raw, all_well: true };
    for (file, messages, mut source) in files {
        if messages.is_empty() {
            mapping.fault(&file.display().to_string(), "there is no message in it");
        }
        for (n, bytes) in messages.into_iter().enumerate() {
            mapping.one(&message_file::name(file, n), bytes, &mut source);
        }
    }
    if mapping.all_well { Exit::Done } else { Exit::Found }
}

struct Mapping<'a> {
    set: &'a RouteSet,
    listener: Option<ListenerSite>,
    only: Option<RouteId>,
    json: bool,
    raw: bool,
    all_well: bool,
}

impl Mapping<'_> {
    fn one(&mut self, name: &str, bytes: Vec<u8>, source: &mut Source) {
        let message = match Message::parse(bytes.into(), &parse_options(self.listener.as_ref())) {
            Ok(message) => message,
            Err(fault) => return self.fault(name, &format!("cannot be read: {}", fault.sentence())),
        };
        let listener = self.listener.as_ref().map_or("map", |l| &*l.socket.name).to_owned();
        let routes = match self.only {
            Some(route) => vec![route],
            None => {
                let matches = self.set.matching(&listener, &message);
                if matches.taken.is_empty() {
                    let kind = message.message_type();
                    let why = if matches.filtered { "a route names its type, but the route's `when` is false" } else { "no route names its type" };
                    return self.fault(name, &format!("no route takes this {}: {why}", plain(&kind)));
                }
                matches.taken
            }
        };
        for route in routes {
            let now = Timestamp(jiff::Timestamp::now().as_millisecond());
            let site = self.listener.as_ref();
            let context = Context {
                received: now,
                zone: site.and_then(|l| l.zone.as_deref()),
                authority: site.and_then(|l| l.authority.as_deref()),
                message: MessageId(1),
                listener: &listener,
                answers: crate::fhir::Answers::NONE,
            };
            let answers = source.answers(self.set, route, &message, &context);
            let context = Context { answers: &answers, ..context };
            let mut made = self.set.run(route, &message, &context);
            // Without a site nobody says whose numbers an identifier without an authority are. A preview may suppose; the daemon never does.
            if self.listener.is_none()
                && let Err(stop) = &made
                && stop.kind == "no-identity"
                && let Some(sender) = sender(&message)
                && let Ok(output) = self.set.run(route, &message, &Context { authority: Some(&sender), ..context })
            {
                err!("{name}: no authority (CX.4); shown as if the listener said `authority: {sender}` - without that the daemon stops here");
                made = Ok(output);
            }
            let info = self.set.info(route);
            let route = info.name.to_string();
            match made {
                Ok(output) if info.messages => self.show_messages(name, &route, &output),
                Ok(output) => self.show(name, &route, &output),
                Err(stop) => self.stopped(name, &route, &stop),
            }
        }
    }

    fn show(&mut self, name: &str, route: &str, output: &Output) {
        let bundle = display_bundle(&output.saves);
        if self.json {
            let findings: Vec<_> = output.findings.iter().map(finding_json).collect();
            out!("{}", json!({ "message": name, "route": route, "bundle": bundle, "findings": findings }));
            return;
        }
        out!("{}", colour_json(bundle.to_string().as_bytes()));
        Self::findings(output);
        err!("{}", paint(FAINT, &format!("{name}: route {route} makes {}", crate::cli::paint::plural(output.saves.entries.len() as u64, "resource"))));
    }

    /// Messages as a person reads them, a segment a line with a blank line between messages; or their bytes.
    fn show_messages(&mut self, name: &str, route: &str, output: &Output) {
        let texts = || output.drafts.iter().map(|draft| test_messages::text(&draft.bytes));
        if self.json {
            let findings: Vec<_> = output.findings.iter().map(finding_json).collect();
            out!("{}", json!({ "message": name, "route": route, "messages": texts().collect::<Vec<_>>(), "findings": findings }));
            return;
        }
        if self.raw {
            output.drafts.iter().for_each(|draft| print_bytes(&draft.bytes));
        } else {
            for (n, text) in texts().enumerate() {
                let lines: Vec<String> = text.trim_end_matches('\r').split('\r').map(|line| plain(line).into_owned()).collect();
                out!("{}{}", if n > 0 { "\n" } else { "" }, lines.join("\n"));
            }
        }
        Self::findings(output);
        err!("{}", paint(FAINT, &format!("{name}: route {route} makes {}", crate::cli::paint::plural(output.drafts.len() as u64, "message"))));
    }

    fn findings(output: &Output) {
        for f in &output.findings {
            let kind = paint(WARN, &format!("warning[{}]", f.kind));
            err!("{kind} {}: {}  {}", paint(STRONG, &plain(&f.place)), plain(&f.text), paint(FAINT, &f.line));
        }
    }

    fn stopped(&mut self, name: &str, route: &str, stop: &Stop) {
        self.all_well = false;
        if self.json {
            out!("{}", json!({ "message": name, "route": route, "stop": { "kind": stop.kind, "text": stop.text, "places": stop.places, "line": stop.line } }));
            return;
        }
        let places = if stop.text.contains(&stop.places.join(", ")) { String::new() } else { format!(" ({})", stop.places.join(", ")) };
        err!("{} {}: route {}: {}{} {}", paint(BAD, stop.kind), plain(name), paint(NAME, route), plain(&stop.text), plain(&places), paint(FAINT, &stop.line));
        if stop.kind == "not-asked" {
            err!(
                "{}",
                paint(FAINT, "--ask asks the site's targets; --answers FILE, or NAME.answers.json beside NAME.hl7, has answers: { \"found\": [ resources ] }")
            );
        }
    }

    fn fault(&mut self, name: &str, what: &str) {
        self.all_well = false;
        if self.json {
            out!("{}", json!({ "message": name, "fault": what }));
        } else {
            err!("{} {}: {}", paint(BAD, "kiln:"), plain(name), what);
        }
    }
}

fn finding_json(f: &Finding) -> Value {
    json!({ "kind": f.kind, "place": f.place, "text": f.text, "line": f.line })
}
