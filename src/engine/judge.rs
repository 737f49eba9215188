//! What intake decides about a frame before it is stored: refused or accepted, and which routes take it. The daemon and `kiln test` ask the same.

use crate::exchange::Phi;
use crate::hl7v2::{Fault, Header, Location, Message, Oddity, ParseOptions, Tolerate, Validation, batch_segment, wide_encoding};
use crate::journal::Disposition;
use crate::route::{RouteId, RouteSet};
use crate::site::Unrouted;
use bytes::Bytes;

/// What of a listener decides.
pub struct Door<'a> {
    /// Its name, for `from:` in routes; empty means any.
    pub listener: &'a str,
    /// `charset:`, and what of `tolerate:` says how a message is read.
    pub options: ParseOptions,
    /// `tolerate:`.
    pub tolerate: Tolerate,
    /// `validate:`.
    pub validate: Option<&'a Validation>,
    /// Whether UTF-16 and UTF-32 may come: in files and over HTTP, but not over MLLP, whose framing bytes are parts of their characters.
    pub wide: bool,
    /// `unrouted:`.
    pub unrouted: Unrouted,
    /// The longest frame that it takes, in bytes.
    pub frame_bytes_max: usize,
}

/// The decision.
pub struct Verdict {
    /// `None` if MSH cannot be read.
    pub header: Option<Header>,
    /// `None` if the message cannot be read.
    pub message: Option<Phi<Message>>,
    /// What is stored about it.
    pub disposition: Disposition,
    /// The routes that take it.
    pub taken: Vec<RouteId>,
    /// Why it is refused: AR with this. Otherwise AA.
    pub fault: Option<Fault>,
    /// True if it is an acknowledgement itself, which is never acknowledged.
    pub answers: bool,
    /// What it does against what it is held to: AE with these. An acknowledgement is held to nothing.
    pub invalid: Vec<Fault>,
    /// The rules that it breaks and was taken without.
    pub tolerated: Vec<Oddity>,
}

/// Judges the bytes of a frame. `oversize`: the frame was longer than the listener takes, and these are only its beginning.
pub fn judge(bytes: &Bytes, oversize: bool, door: &Door<'_>, set: &RouteSet) -> Verdict {
    let header = match batch_segment(bytes) {
        Some(name) => Err(batch(name)),
        None => Header::read_filled(bytes, door.options.header),
    };
    let message = match &header {
        _ if oversize => Err(Fault::new(
            Location::default(),
            Fault::INTERNAL,
            format!("the message is longer than {} bytes, the limit of this listener", door.frame_bytes_max),
        )),
        Err(fault) => Err(fault.clone()),
        Ok(_) if !door.wide && wide_encoding(bytes).is_some() => Err(wide(wide_encoding(bytes).unwrap_or_default())),
        Ok(_) => Message::parse(bytes.clone(), &door.options),
    };
    let header = header.ok();
    let mut verdict = Verdict {
        header,
        message: None,
        disposition: Disposition::Unrouted,
        taken: Vec::new(),
        fault: None,
        answers: false,
        invalid: Vec::new(),
        tolerated: Vec::new(),
    };
    match message {
        Ok(message) => verdict.routes(message, door, set),
        Err(fault) => {
            verdict.answers = verdict.header.as_ref().is_some_and(|header| has_msa(bytes, header.delimiters().field));
            verdict.refuse(fault);
        }
    }
    verdict
}

impl Verdict {
    fn routes(&mut self, message: Message, door: &Door<'_>, set: &RouteSet) {
        self.answers = message.segments_named("MSA").next().is_some();
        self.tolerated = message.oddities().collect();
        let refused = self.tolerated.iter().position(|oddity| !door.tolerate.takes(*oddity));
        if let Some(oddity) = refused.map(|at| self.tolerated.swap_remove(at)) {
            self.tolerated.clear();
            self.refuse(oddity.fault());
        } else if message.message_type().is_empty() {
            self.refuse(Fault::new(Location::field("MSH", 9), Fault::MESSAGE_TYPE, "MSH-9 (message type) is empty"));
        } else {
            let matches = set.matching(door.listener, &message);
            match (matches.taken.is_empty(), matches.filtered, door.unrouted) {
                (false, ..) => self.disposition = Disposition::Accepted,
                (true, true, _) => self.disposition = Disposition::Filtered,
                (true, false, Unrouted::Accept) => self.disposition = Disposition::Unrouted,
                (true, false, Unrouted::Reject) => self.refuse(unrouted(&message)),
            }
            self.taken = matches.taken;
        }
        if let Some(validation) = door.validate.filter(|_| self.fault.is_none() && !self.answers) {
            self.invalid = validation.faults(&message);
        }
        if let Some(first) = self.invalid.first() {
            let more = match self.invalid.len() - 1 {
                0 => String::new(),
                n => format!("; and {n} more"),
            };
            self.disposition = Disposition::Refused { code: first.code, text: format!("{}{more}", first.sentence()) };
            self.taken.clear();
        }
        self.message = Some(Phi::new(message));
    }

    /// Refuses it for what its transport did, whatever the message says.
    pub(super) fn refuse_unread(&mut self, fault: Fault) {
        self.message = None;
        self.taken.clear();
        self.invalid.clear();
        self.refuse(fault);
    }

    fn refuse(&mut self, fault: Fault) {
        self.disposition = Disposition::Refused { code: fault.code, text: fault.text.clone() };
        self.fault = Some(fault);
    }
}

/// What is said to a file's or a batch's header: one answer for it would answer for messages that nobody has looked at.
fn batch(name: &str) -> Fault {
    let text = format!(
        "a batch was sent: it begins with {name}, where MSH belongs, and this listener takes none (batch: refuse); send each of its messages in a frame of its own"
    );
    Fault::new(Location { segment: name.to_owned(), sequence: 1, ..Location::default() }, Fault::INTERNAL, text)
}

fn wide(name: &str) -> Fault {
    let text = format!("the message is written in {name}, whose characters hold MLLP's framing bytes; send it in UTF-8, or as a file or over HTTP");
    Fault::new(Location::field("MSH", 18), Fault::TABLE_VALUE, text)
}

/// True if a segment of a message that cannot be read begins as an MSA does.
fn has_msa(bytes: &[u8], field: u8) -> bool {
    bytes.split(|b| matches!(b, b'\r' | b'\n')).any(|line| line.strip_prefix(b"MSA").and_then(|rest| rest.first()) == Some(&field))
}

fn unrouted(message: &Message) -> Fault {
    let has_event = message.is_valued(message.component(message.field(0, 9), 2));
    let code = if has_event { Fault::EVENT } else { Fault::MESSAGE_TYPE };
    Fault::new(Location::field("MSH", 9), code, "no route of this listener takes messages of this type")
}
