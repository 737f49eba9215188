//! Acknowledgements (HL7 chapter 2, sections 2.9 and 2.14) in the shape of the sender's version.

use crate::hl7v2::{Conditions, Delimiters, Fault, Header, Message, Version, Writer, fault_words, table};

/// MSA-1, table 0008.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckCode {
    /// AA: application accept.
    ApplicationAccept,
    /// AE: application error.
    ApplicationError,
    /// AR: application reject.
    ApplicationReject,
    /// CA: accept acknowledgement, commit accept.
    CommitAccept,
    /// CE: commit error.
    CommitError,
    /// CR: commit reject.
    CommitReject,
}

impl AckCode {
    /// `AA`.
    pub const fn name(self) -> &'static str {
        match self {
            AckCode::ApplicationAccept => "AA",
            AckCode::ApplicationError => "AE",
            AckCode::ApplicationReject => "AR",
            AckCode::CommitAccept => "CA",
            AckCode::CommitError => "CE",
            AckCode::CommitReject => "CR",
        }
    }

    /// The code of that name.
    pub fn named(name: &str) -> Option<AckCode> {
        use AckCode::{ApplicationAccept, ApplicationError, ApplicationReject, CommitAccept, CommitError, CommitReject};
        [ApplicationAccept, ApplicationError, ApplicationReject, CommitAccept, CommitError, CommitReject].into_iter().find(|c| c.name() == name)
    }

    /// CR for what MSH-9, MSH-11 and MSH-12 say, CE for everything else (section 2.9.3.2): the code of table 0357 tells.
    pub const fn commit_refusal(fault: u16) -> AckCode {
        match fault {
            Fault::MESSAGE_TYPE | Fault::EVENT | Fault::PROCESSING_ID | Fault::VERSION => AckCode::CommitReject,
            _ => AckCode::CommitError,
        }
    }

    /// Of two codes the one that says worse: rejected before in error before accepted.
    #[must_use]
    pub fn worse(self, other: AckCode) -> AckCode {
        let rank = |code| match code {
            AckCode::ApplicationAccept | AckCode::CommitAccept => 0,
            AckCode::ApplicationError | AckCode::CommitError => 1,
            AckCode::ApplicationReject | AckCode::CommitReject => 2,
        };
        if rank(other) > rank(self) { other } else { self }
    }

    /// AA and CA: the sender may forget its message.
    pub const fn is_positive(self) -> bool {
        matches!(self, AckCode::ApplicationAccept | AckCode::CommitAccept)
    }
}

/// What an acknowledgement is made of.
pub struct AckRequest<'a> {
    /// The header of the message that is answered; nothing when it was unreadable.
    pub header: Option<&'a Header>,
    /// MSA-1.
    pub code: AckCode,
    /// What was wrong; the first is the reason. Left out of a positive acknowledgement.
    pub faults: &'a [Fault],
    /// Our MSH-7, such as `20260309142501.123+0100`.
    pub time: &'a str,
    /// Our MSH-10.
    pub control_id: &'a str,
    /// MSH-3 when there is no header to take it from.
    pub application: &'a str,
    /// MSH-4 when there is no header to take it from.
    pub facility: &'a str,
    /// Our own MSH-15 and MSH-16, of an application acknowledgement in enhanced mode; else both are empty.
    pub conditions: Option<Conditions>,
}

/// ERR-8 and MSA-3 are cut after so many characters, as their data types ask.
const TEXT_CHARACTERS_MAX: usize = 250;

/// The acknowledgement's bytes, without framing. Sender and receiver are swapped; delimiters, version, character set and
/// processing ID are the sender's; MSA-2 is MSH-10 as sent, also when it is empty or odd. For a sender that wrote UTF-16 or UTF-32
/// they are UTF-8, and [`in_encoding_of`](crate::hl7v2::in_encoding_of) comes last.
pub fn acknowledge(request: &AckRequest<'_>) -> Vec<u8> {
    begin(request, None).finish()
}

/// The answer to a question that cannot be answered (chapter 5, section 5.4): an acknowledgement of the type `kind` (`RSP^K22^RSP_K21`) with QAK,
/// whose QAK-2 says what MSA-1 says, and the question's QPD as it was sent.
pub fn answer_in_error(request: &AckRequest<'_>, kind: &str, question: Option<&Message>) -> Vec<u8> {
    let mut w = begin(request, Some(kind));
    let found = question.and_then(|message| Some((message, message.segments_named("QPD").next()?)));
    let sent = |n: usize| found.map(|(message, qpd)| unframed(message.raw(message.field(qpd, n)))).unwrap_or_default();
    w.segment("QAK").field().raw(&sent(2)).field().text(request.code.name()).field().raw(&sent(1));
    if let Some((message, qpd)) = found {
        w.segment("QPD").raw(&unframed(message.segment_bytes(qpd).get(3..).unwrap_or_default()));
    }
    w.finish()
}

/// MSH, MSA and ERR.
fn begin(request: &AckRequest<'_>, kind: Option<&str>) -> Writer {
    let version = request.header.map_or(Version::V25, Header::version);
    let delimiters = request.header.map_or(Delimiters::STANDARD, Header::delimiters);
    let mut w = Writer::new(delimiters);
    w.header("MSH");
    if let Some(header) = request.header {
        for n in [5, 6, 3, 4] {
            w.field().raw(&unframed(header.raw(n)));
        }
    } else {
        w.field().text(request.application).field().text(request.facility).skip_fields(2);
    }
    w.field().text(request.time).skip_fields(1).field();
    for (n, part) in kind.unwrap_or("ACK").split('^').enumerate() {
        if n > 0 {
            w.component();
        }
        w.text(part);
    }
    let event = request.header.map(|h| h.component(9, 2)).unwrap_or_default();
    if kind.is_none() && version >= Version::V23 && !event.is_empty() {
        w.component().text(&event);
        if version >= Version::V231 {
            w.component().text("ACK");
        }
    }
    let sent = |n| request.header.map_or_else(Vec::new, |h| unframed(h.raw(n)));
    let or = |bytes: Vec<u8>, otherwise: &str| if bytes.is_empty() { otherwise.as_bytes().to_vec() } else { bytes };
    w.field().text(request.control_id).field().raw(&or(sent(11), "P")).field().raw(&or(sent(12), "2.5"));
    let charset = sent(18);
    if let Some(own) = request.conditions {
        w.skip_fields(2).field().text(own.accept.name()).field().text(own.application.name());
    }
    if !charset.is_empty() {
        w.skip_fields(if request.conditions.is_some() { 1 } else { 5 }).field().raw(&charset);
    }

    w.segment("MSA").field().text(request.code.name()).field().raw(&sent(10));
    let faults = if request.code.is_positive() { &[] } else { request.faults };
    if version < Version::V25
        && let Some(first) = faults.first()
    {
        w.field().text(&shortened(&first.text));
    }
    if version < Version::V25 {
        error_in_one_field(&mut w, faults, version, delimiters.subcomponent.is_some());
    } else {
        faults.iter().for_each(|fault| error_segment(&mut w, fault, version));
    }
    w
}

/// Before 2.5: all faults in ERR-1, each an ELD (segment, sequence, field, code).
fn error_in_one_field(w: &mut Writer, faults: &[Fault], version: Version, has_subcomponents: bool) {
    for (n, fault) in faults.iter().enumerate() {
        if n == 0 {
            w.segment("ERR").field();
        } else {
            w.repetition();
        }
        let (code, words) = code_for(fault.code, version);
        w.text(&fault.location.segment).component().number(fault.location.sequence).component().number(fault.location.field);
        w.component().number(u32::from(code));
        if has_subcomponents {
            w.subcomponent().text(words).subcomponent().text("HL70357");
        }
    }
}

/// From 2.5: a segment a fault, with ERR-2 (ERL), ERR-3 (table 0357), ERR-4 (table 0516) and ERR-8.
fn error_segment(w: &mut Writer, fault: &Fault, version: Version) {
    let place = &fault.location;
    let (code, words) = code_for(fault.code, version);
    w.segment("ERR").skip_fields(1).field().text(&place.segment);
    for number in [place.sequence, place.field, place.repetition, place.component, place.subcomponent] {
        w.component().number(number);
    }
    w.field().number(u32::from(code)).component().text(words).component().text("HL70357");
    w.field().text("E").skip_fields(3).field().text(&shortened(&fault.text));
}

/// A code of that version's table 0357: 104 came with 2.7 (before: 102); what the table lacks is 207.
fn code_for(code: u16, version: Version) -> (u16, &'static str) {
    let code = if code == Fault::VALUE_TOO_LONG && version < Version::V27 { Fault::DATA_TYPE } else { code };
    let lacks = table(version, "0357").is_some_and(|t| !t.contains(&code.to_string()));
    let code = if lacks || fault_words(code).is_none() { Fault::INTERNAL } else { code };
    (code, fault_words(code).unwrap_or("Application internal error"))
}

/// Bytes as sent, but for those that would end our own frame.
fn unframed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|b| !matches!(b, 0x0B | 0x1C)).collect()
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_CHARACTERS_MAX).collect()
}
