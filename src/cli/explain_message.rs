//! `kiln explain MESSAGE message.PID-5`: where a value of a message that a route makes comes from; and where there is none, why not.

use crate::cli::Exit;
use crate::cli::explain_json as shape;
use crate::cli::explain_subject::{Run, Subject};
use crate::cli::explain_text as text;
use crate::cli::explain_why::{Why, not_run, place_of};
use crate::cli::paint::{FAINT, STRONG, WARN, out, paint, plain};
use crate::diagnostic::suggest;
use crate::hl7v2::{Address, newest_segment, segment_ids};
use crate::route::{ElementLineage, MessageLineage};
use serde_json::json;

/// `message[2].PID-5.1`, in parts.
pub(crate) struct Wanted {
    written: String,
    /// Which message of those that a route makes, from 1; all, if it is not said.
    number: Option<usize>,
    /// The place in it; without it, the whole message.
    place: Option<Address>,
}

impl Wanted {
    /// Reads it; `None` if it is nothing of the kind.
    ///
    /// # Errors
    /// What is wrong with it, and what was probably meant.
    pub(crate) fn read(written: &str, subject: &Subject) -> Option<Result<Self, String>> {
        let rest = written.strip_prefix("message")?;
        let (number, rest) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((n, rest)) => match n.parse::<usize>() {
                Ok(n) if n > 0 => (Some(n), rest),
                _ => return Some(Err(format!("{}: messages are counted from 1, as in message[2].PID-5", plain(written)))),
            },
            None => (None, rest),
        };
        let place = match rest.strip_prefix('.') {
            None if rest.is_empty() => None,
            None => return None,
            Some(place) => match Address::read(place) {
                Some(address) => Some(address),
                None => return Some(Err(format!("{} is no place in a message: write message.PID, message.PID-5 or message.PID-5.1", plain(place)))),
            },
        };
        let wanted = Self { written: written.to_owned(), number, place };
        Some(wanted.check(subject).map(|()| wanted))
    }

    fn check(&self, subject: &Subject) -> Result<(), String> {
        let making: Vec<&Run> = subject.runs.iter().filter(|r| r.set.info(r.route).messages).collect();
        if making.is_empty() {
            return Err(match subject.runs.first() {
                Some(run) => format!("route {} makes resources and no messages; write an element, such as Patient.name", run.lineage.route),
                None => "no route takes this message".to_owned(),
            });
        }
        let most = making.iter().map(|r| r.lineage.messages.len()).max().unwrap_or(0);
        if let Some(n) = self.number.filter(|n| *n > most && most > 0) {
            return Err(format!("there is no message[{n}]: this one becomes {}", crate::cli::paint::plural(most as u64, "message")));
        }
        let Some(place) = &self.place else { return Ok(()) };
        let there = making.iter().flat_map(|r| &r.lineage.messages).flat_map(|m| &m.fields).filter_map(|f| Address::read(&f.path));
        if newest_segment(&place.segment).is_some() || place.segment.starts_with('Z') || there.into_iter().any(|a| a.segment == place.segment) {
            return Ok(());
        }
        let near = suggest(&place.segment, segment_ids()).map_or(String::new(), |n| format!("; did you mean {n}?"));
        Err(format!("there is no segment {}{near}", place.segment))
    }

    fn is(&self, n: usize) -> bool {
        self.number.is_none_or(|wanted| wanted == n + 1)
    }

    fn holds(&self, field: &ElementLineage) -> bool {
        let Some(wanted) = &self.place else { return true };
        let Some(there) = Address::read(&field.path) else { return false };
        // `PID-5.1` of a value without components is the value itself, and so is `PID-5[1]` of one that does not repeat.
        let whole = Address {
            occurrence: there.occurrence.or(Some(1)),
            repetition: there.repetition.or(Some(1)),
            component: there.component.or(Some(1)),
            subcomponent: there.subcomponent.or(Some(1)),
            ..there.clone()
        };
        wanted.holds(&there) || wanted.holds(&whole)
    }
}

/// Explains a place of the messages that are made.
pub(crate) fn explain(subject: &Subject, wanted: &Wanted, json: bool) -> Exit {
    let (mut found, mut routes) = (0, Vec::new());
    if !json {
        text::heading(subject);
    }
    for run in subject.runs.iter().filter(|r| r.set.info(r.route).messages) {
        let (mut messages, mut missing, mut here) = (Vec::new(), Vec::new(), 0);
        for (_, message) in run.lineage.messages.iter().enumerate().filter(|(n, _)| wanted.is(*n)) {
            let fields: Vec<_> = message.fields.iter().filter(|f| wanted.holds(f)).collect();
            here += fields.len();
            if fields.is_empty() {
                continue;
            }
            if json {
                let fields: Vec<_> = fields.iter().map(|f| shape::element(run, &subject.message, f)).collect();
                messages.push(json!({ "name": message.name, "type": message.message_type, "made": message.made, "fields": fields }));
            } else {
                show(run, subject, message, &fields);
            }
        }
        found += here;
        if here == 0 {
            missing = nothing(run, wanted);
        }
        if json {
            let why: Vec<_> = missing.iter().map(|w| shape::why(run, w)).collect();
            let stop = run.lineage.stop.as_ref().map(shape::stop);
            routes.push(json!({ "route": &*run.lineage.route, "taken": run.lineage.taken, "stop": stop, "messages": messages, "why": why }));
        } else if !missing.is_empty() {
            out!("{} makes no {}", paint(WARN, &format!("route {}", run.lineage.route)), plain(&wanted.written));
            missing.iter().for_each(|w| text::reason(run, w, "  "));
        }
    }
    if json {
        let kind = subject.message.message_type();
        out!("{}", json!({ "message": subject.name, "type": kind, "element": wanted.written, "routes": routes, "notes": subject.notes }));
    }
    if found > 0 { Exit::Done } else { Exit::Found }
}

fn show(run: &Run, subject: &Subject, message: &MessageLineage, fields: &[&ElementLineage]) {
    let state = if message.made { "" } else { ", not sent: the run stopped" };
    let of = format!("{}, route {}{state}", plain(&message.message_type), run.lineage.route);
    out!("{} {}", paint(STRONG, &message.name), paint(FAINT, &of));
    fields.iter().for_each(|f| text::element(run, &subject.message, f));
    out!("");
}

/// Why the place is not there.
fn nothing(run: &Run, wanted: &Wanted) -> Vec<Why> {
    let why = |text: String| Why { text, at: None, steps: Vec::new() };
    if run.lineage.messages.is_empty() {
        return vec![why("it makes no message of this one".to_owned())];
    }
    let Some(place) = &wanted.place else { return vec![why("the message is empty".to_owned())] };
    let survey = run.set.survey(run.route);
    let mut found = Vec::new();
    for line in survey.lines.iter().filter(|l| place_of(&l.element).is_some_and(|p| p.touches(&place.anywhere())) || l.element == place.segment) {
        match run.lineage.lines.iter().find(|l| l.at == line.at) {
            Some(ran) if ran.made == 0 => {
                let from = if line.places.is_empty() { String::new() } else { format!(" of {}", line.places.join(", ")) };
                let text = format!("the line of {} ran, and made nothing{from}", line.map);
                found.push(Why { text, at: Some(line.at.clone()), steps: ran.without.clone() });
            }
            Some(_) => {
                found.push(Why { text: format!("{} makes {}, without this part", line.map, line.element), at: Some(line.at.clone()), steps: Vec::new() })
            }
            None => found.extend(not_run(run, &survey, line)),
        }
    }
    // A field of the same name that came in, and that a line took away.
    let sent = run.lineage.values.iter().filter(|v| place.touches(&v.place.anywhere()));
    for dropped in sent.flat_map(|v| run.lineage.dropped.iter().filter(move |d| d.part.start <= v.part.start && v.part.end <= d.part.end)) {
        if !found.iter().any(|w: &Why| w.at.as_ref() == Some(&dropped.at)) {
            found.push(Why { text: format!("{} takes it away", dropped.map), at: Some(dropped.at.clone()), steps: Vec::new() });
        }
    }
    if found.is_empty() {
        found.push(why(format!("no line of route {} makes it, and the message that came in does not have it where it is copied", run.lineage.route)));
    }
    found
}
