//! `kiln explain`: what became of a message, place by place, and what a diagnostic's code means.

use crate::cli::answers::{AnswerArgs, Source};
use crate::cli::explain_subject::Subject;
use crate::cli::paint::{NAME, STRONG, err, out, paint, plain};
use crate::cli::route_choice::{self, Choice, Chosen};
use crate::cli::{Exit, explain_element, explain_field, explain_journal, explain_message, explain_rest, message_file};
use crate::diagnostic::{CODES, page, suggest};
use crate::hl7v2::{Address, Message, newest_segment};
use crate::site::words;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Explain where a value comes from or went, or a diagnostic's code
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln explain admit.hl7 Patient.birthDate     where an element comes from: value, field, map, line, each step
  kiln explain admit.hl7 encounter.location    the same by the resource's name in the route
  kiln explain oru.hl7 message.OBX[2]-5        where a value of a message comes from that a route with `message:` makes
  kiln explain admit.hl7 PID-7                 everywhere that a field went, or why it went nowhere
  kiln explain admit.hl7                       what no route reads, what is read in conditions only, findings
  kiln explain 1042 PID-3 --journal journal    a message of the journal, with the routes that it was delivered by
  kiln explain K203                            a diagnostic's code
  kiln explain                                 all codes

Elements are written as in FHIR (Patient.name.family, Patient.name[0].given), fields as in HL7 (PID, PID-5.1, OBX[2]-5),
fields of a message that is made with `message.` before them; where there are several, message[2].PID-5 is one of the second.
This prints patient data. Exits 1 if the element or value is nowhere, or a message cannot be read or mapped; 2 if there is no such element or field.")]
pub(crate) struct Args {
    /// A file with messages (`-` is standard input), a message's number in the journal, or a code such as K203
    #[arg(value_name = "MESSAGE or CODE")]
    subject: Option<String>,
    /// An element (Patient.birthDate), a field (PID-7), or a field of what a route makes (message.PID-7)
    #[arg(value_name = "ELEMENT or FIELD")]
    place: Option<String>,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    answers: AnswerArgs,
    /// The journal's folder, instead of the site file's
    #[arg(long, value_name = "FOLDER")]
    journal: Option<PathBuf>,
    /// Print JSON, one object per message
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Exit {
    let Some(subject) = &args.subject else { return all_codes(args.json) };
    let is_file = subject == "-" || Path::new(subject).exists();
    if !is_file && is_code(subject) {
        return code(subject, args.json);
    }
    let number: Option<u64> = if is_file { None } else { subject.parse().ok() };
    let Some(chosen) = args.choice.load() else { return Exit::CouldNot };
    if let Some(number) = number {
        return match explain_journal::subject(number, args.journal.as_deref(), &chosen) {
            Ok(subject) => place(&subject, args),
            Err(exit) => exit,
        };
    }
    if !is_file {
        let near = suggest(subject, CODES.iter().map(|c| c.code)).map_or(String::new(), |c| format!("; did you mean {c}?"));
        err!("kiln: there is no file {}{near}", plain(subject));
        return Exit::CouldNot;
    }
    let path = Path::new(subject);
    let messages = match message_file::read(path) {
        Ok(messages) => messages,
        Err(e) => {
            err!("kiln: {}: {}", path.display(), words(&e));
            return Exit::CouldNot;
        }
    };
    if messages.is_empty() {
        err!("kiln: {}: there is no message in it", path.display());
        return Exit::Found;
    }
    let mut source = match args.answers.source(path, &args.choice.site_path()) {
        Ok(source) => source,
        Err(what) => {
            err!("kiln: {}", plain(&what));
            return Exit::CouldNot;
        }
    };
    let mut exit = Exit::Done;
    for (n, bytes) in messages.into_iter().enumerate() {
        if n > 0 && !args.json {
            out!("");
        }
        match of_file(message_file::name(path, n), bytes, args, &chosen, &mut source) {
            Exit::Done => {}
            Exit::Found => exit = Exit::Found,
            other => return other,
        }
    }
    exit
}

fn of_file(name: String, bytes: Vec<u8>, args: &Args, chosen: &Chosen, source: &mut Source) -> Exit {
    match Message::parse(bytes.into(), &route_choice::parse_options(chosen.listener.as_ref())) {
        Ok(message) => place(&Subject::of(name, message, chosen, source), args),
        Err(fault) => {
            let what = format!("cannot be read: {}: {}", fault.location.path(), fault.text);
            if args.json {
                out!("{}", json!({ "message": name, "fault": what }))
            } else {
                err!("kiln: {}: {what}", plain(&name))
            }
            Exit::Found
        }
    }
}

/// An element, a field, or all that is left.
fn place(subject: &Subject, args: &Args) -> Exit {
    let Some(written) = &args.place else { return explain_rest::explain(subject, args.json) };
    let there = |name: &str| subject.message.segments_named(name).next().is_some();
    let resource = subject.runs.iter().flat_map(|r| &r.lineage.resources).any(|r| r.name == *written);
    if let Some(wanted) = explain_message::Wanted::read(written, subject).filter(|_| !resource) {
        return told(wanted.map(|wanted| explain_message::explain(subject, &wanted, args.json)));
    }
    let field = Address::read(written).filter(|a| !resource && (written.contains('-') || newest_segment(&a.segment).is_some() || there(&a.segment)));
    told(match field {
        Some(address) => explain_field::check(&address, &subject.message).map(|()| explain_field::explain(subject, &address, args.json)),
        None => explain_element::Wanted::read(written, subject).map(|wanted| explain_element::explain(subject, &wanted, args.json)),
    })
}

fn told(told: Result<Exit, String>) -> Exit {
    told.unwrap_or_else(|fault| {
        err!("kiln: {fault}");
        Exit::CouldNot
    })
}

/// `K203`, or something that looks so much like it that no file is meant.
fn is_code(word: &str) -> bool {
    let digits = word.strip_prefix(['K', 'k']).unwrap_or("");
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn all_codes(json: bool) -> Exit {
    for c in CODES {
        if json {
            out!("{}", json!({ "code": c.code, "title": c.title }));
        } else {
            out!("{}  {}", paint(NAME, c.code), c.title);
        }
    }
    Exit::Done
}

fn code(code: &str, json: bool) -> Exit {
    let Some(text) = page(code) else {
        let near = suggest(code, CODES.iter().map(|c| c.code)).map_or(String::new(), |c| format!("; did you mean {c}?"));
        err!("kiln: there is no code {code}{near}; `kiln explain` lists all");
        return Exit::CouldNot;
    };
    if json {
        out!("{}", json!({ "code": code.to_uppercase(), "page": text }));
        return Exit::Done;
    }
    for line in text.trim_end().lines() {
        if line.starts_with('#') { out!("{}", paint(STRONG, line)) } else { out!("{line}") }
    }
    Exit::Done
}
