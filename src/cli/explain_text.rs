//! `kiln explain` for people: values, small trees of stages, and reasons.

use crate::cli::explain_subject::{Run, Subject};
use crate::cli::explain_why::Why;
use crate::cli::paint::{BAD, FAINT, GOOD, NAME, STRONG, WARN, out, paint, plain, plural};
use crate::hl7v2::{Address, Message, Part};
use crate::route::{ElementLineage, Spot, Stage, Step};

/// A text in quotes, cut where it would fill the screen.
pub(crate) fn quoted(text: &str) -> String {
    const MOST: usize = 120;
    let mut short: String = text.chars().take(MOST).collect();
    if text.chars().count() > MOST {
        short.push('…');
    }
    paint(GOOD, &format!("\"{}\"", plain(&short)))
}

/// A JSON value: texts in quotes, the rest as it is.
pub(crate) fn value(value: &serde_json::Value) -> String {
    match value {
        // HL7's own notation for "remove it".
        serde_json::Value::String(text) if text == "\"\"" => paint(GOOD, text),
        serde_json::Value::String(text) => quoted(text),
        other => paint(GOOD, &other.to_string()),
    }
}

/// `PID-7  "19750613"  Date/Time of Birth`.
pub(crate) fn place(message: &Message, address: &Address, part: Part) -> String {
    let name = address.standard_name().map_or(String::new(), |n| format!("  {}", paint(FAINT, &n)));
    let text = if message.is_null(part) { paint(GOOD, "\"\"") } else { quoted(&message.text(part)) };
    format!("{}  {text}{name}", paint(NAME, &address.to_string()))
}

/// An element: its value, where it is from, and stage below stage.
pub(crate) fn element(run: &Run, message: &Message, element: &ElementLineage) {
    out!("{}  {}", paint(STRONG, &element.path), value(&element.value));
    for (address, part) in &element.from {
        out!("│ from {}", place(message, address, *part));
    }
    if element.from.is_empty() {
        let what = if element.refers { "a reference to another resource of this message" } else { "a constant: no value of the message is in it" };
        out!("│ {}", paint(FAINT, what));
    }
    let last = element.stages.len().saturating_sub(1);
    for (n, one) in element.stages.iter().enumerate() {
        let known = n == last && element.from.iter().any(|(address, _)| Some(address) == one.place.as_ref());
        stage(run, one, n, n == last, known);
    }
}

fn stage(run: &Run, stage: &Stage, depth: usize, last: bool, known: bool) {
    let indent = "  ".repeat(depth);
    let at = stage.at.as_ref().map_or(String::new(), |at| format!("  {}", paint(FAINT, &at.to_string())));
    let place = stage.place.as_ref().filter(|_| !known).map_or(String::new(), |p| format!("  {} {}", paint(FAINT, "of"), paint(NAME, &p.to_string())));
    out!("{indent}└ {}{place}{at}", stage.map);
    let bar = if last { "    " } else { "  │ " };
    for line in stage.at.as_ref().map(|at| run.quote_block(at)).unwrap_or_default() {
        out!("{indent}{bar}{}", paint(NAME, &plain(&line)));
    }
    for step in &stage.steps {
        out!("{indent}{bar}· {}", words(step));
    }
}

/// A step as a sentence.
pub(crate) fn words(step: &Step) -> String {
    let code = |text: &str| quoted(text);
    match step {
        Step::Condition { text, holds, at } => {
            let truth = if *holds { paint(GOOD, "holds") } else { paint(WARN, "does not hold") };
            format!("`{}` {truth}  {}", plain(text), paint(FAINT, &at.to_string()))
        }
        Step::Asked { name, found } => format!("`{name}` found {}", plural(*found as u64, "resource")),
        Step::Otherwise => "what stands before ?? has nothing".to_owned(),
        Step::Table { table, code: sent, found: Some(found), .. } => format!("table {table}: {} is {}", code(sent), code(found)),
        Step::Table { table, code: sent, unmapped, .. } => {
            let policy = match unmapped {
                Some("nothing") | None => "so there is nothing".to_owned(),
                Some(policy) => format!("so `unmapped: {policy}` counts"),
            };
            format!("table {table} has no {}, {policy}", code(sent))
        }
        Step::System { sent, uri: Some(uri) } => format!("system: {} is {}", code(sent), code(uri)),
        Step::System { sent, uri: None } => format!("system: nothing says which URI {} is", code(sent)),
        Step::Converted(text) => plain(text).into_owned(),
        Step::Failed(text) => paint(BAD, &plain(text)),
        Step::Map(map) => format!("by {map}"),
        Step::Refers { name, save } => format!("refers to {} ({save})", paint(STRONG, &plain(name))),
        Step::Derived => "nothing in the message identifies it: the identity is made from sender and control ID".to_owned(),
    }
}

/// A reason, with the line that it is about.
pub(crate) fn reason(run: &Run, why: &Why, indent: &str) {
    let at = why.at.as_ref().map_or(String::new(), |at| format!("  {}", paint(FAINT, &at.to_string())));
    out!("{indent}{} {}{at}", paint(WARN, "why:"), plain(&why.text));
    if let Some(line) = why.at.as_ref().and_then(|at| run.quote(at)) {
        out!("{indent}     {}", paint(NAME, &plain(line)));
    }
    for step in &why.steps {
        out!("{indent}     · {}", words(step));
    }
}

/// A line: where it stands, and its text.
pub(crate) fn line(run: &Run, at: &Spot) -> String {
    let text = run.quote(at).map_or(String::new(), |t| format!("  {}", paint(NAME, &plain(t))));
    format!("{}{text}", paint(FAINT, &at.to_string()))
}

/// What the message is, and which routes took it.
pub(crate) fn heading(subject: &Subject) {
    let routes: Vec<_> = subject.runs.iter().map(|r| format!("route {}", r.lineage.route)).collect();
    let kind = plain(&subject.message.message_type()).into_owned();
    let routes = if routes.is_empty() { paint(WARN, "no route") } else { routes.join(", ") };
    out!("{}", paint(FAINT, &format!("{}: {kind}, {routes}", plain(&subject.name))));
    subject.notes.iter().for_each(|n| out!("{}", paint(WARN, &plain(n))));
    for run in &subject.runs {
        if !run.lineage.taken {
            out!("{}", paint(WARN, &format!("route {}: its own `when` does not hold; shown as if it did", run.lineage.route)));
        }
        for entry in &run.answers.entries {
            let what = match &entry.answer {
                None => "not asked: its condition does not hold, or the message has no value for it".to_owned(),
                Some((question, found)) => {
                    format!("{} at {}: {}", plain(&question.written()), plain(&entry.target), plural(found.matches.len() as u64, "resource"))
                }
            };
            out!("asked `{}`: {what}", plain(&entry.name));
        }
        if let Some(stop) = &run.lineage.stop {
            let line = if stop.line.is_empty() { String::new() } else { format!("  {}", paint(FAINT, &stop.line)) };
            out!("{} route {} makes nothing: {}{line}", paint(BAD, stop.kind), run.lineage.route, plain(&stop.text));
        }
    }
    out!("");
}
