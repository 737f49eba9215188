//! The header of a message that a route makes: its type, release and letters, and the control IDs of a split.

use crate::diagnostic::{Diagnostic, Span};
use crate::hl7v2::{self, Structure};
use crate::route::compile::Compiler;
use crate::route::compile::scope::Scope;
use crate::route::outgoing::{PartItem, PartLine};
use crate::route::tree::{self, Expr, ExprKind, Item, Key, Literal};

impl<'a> Compiler<'a> {
    /// MSH-18 decides how the message is written, so it must be known before.
    pub(crate) fn written_charset(&mut self, body: &'a tree::Body) -> Option<hl7v2::Charset> {
        let (span, item) = header_line(body, "MSH-18")?;
        let (fault, help) = match item {
            Item::Constant(key) => match hl7v2::Charset::named(&key.text) {
                Some(charset) if charset.is_writable() => return Some(charset),
                _ => (
                    Diagnostic::error("K313", key.span, format!("Kiln writes no \"{}\"", key.text)).label("a character set that cannot be written"),
                    "write \"UNICODE UTF-8\", \"ASCII\" or one of \"8859/1\" to \"8859/15\"",
                ),
            },
            // A copied name says nothing new.
            Item::Expr(Expr { kind: ExprKind::Literal(Literal::Nothing | Literal::Null), .. }) => return None,
            _ => (
                Diagnostic::error("K213", span, "MSH-18 decides how the message is written").label("a constant is wanted"),
                "write the name of a character set in quotes, such as \"UNICODE UTF-8\"; a copy without this line keeps that of the message",
            ),
        };
        self.report(fault.help(help));
        None
    }

    pub(crate) fn check_kind(&mut self, kind: &Key) {
        let name = kind.text.split('^').take(2).collect::<Vec<_>>().join("^");
        let known = hl7v2::Version::ALL.iter().any(|v| hl7v2::events(*v).any(|(event, _)| event == name));
        if !known && !name.contains("^Z") && !name.starts_with('Z') && !name.starts_with("ACK") {
            let events: Vec<&'static str> = hl7v2::Version::ALL.iter().flat_map(|v| hl7v2::events(*v).map(|(e, _)| e)).collect();
            let help = crate::diagnostic::suggest(&name, events.iter().copied())
                .map_or_else(|| "write it as MSH-9 has it: ADT^A08^ADT_A01".to_owned(), |n| format!("did you mean {n}?"));
            self.report(
                Diagnostic::error("K210", kind.span, format!("no version of HL7 v2 has the message {}", kind.text)).label("unknown message type").help(help),
            );
        }
    }

    /// K214: what is split must not make one control ID several times.
    pub(crate) fn check_control_id(&mut self, scope: &Scope<'a>, slot: usize, lines: &[PartLine], span: Span) {
        let segment = scope.entries.get(slot).and_then(|e| e.segment);
        let line = lines.iter().filter(|l| l.name == "MSH").find_map(|l| match &l.item {
            PartItem::Fields(body) => body.lines.iter().find(|l| l.at == [10]),
            _ => None,
        });
        let group_of = |lookup: usize| {
            let wanted = self.lookups.get(lookup);
            wanted.is_some_and(|wanted| {
                self.structures.iter().any(|s| {
                    crate::route::compile::path::contexts(*s, segment)
                        .any(|c| c != Structure::ROOT && crate::route::scope::resolve(*s, c, wanted).is_some_and(|p| p.up == 0))
                })
            })
        };
        if line.is_some_and(|l| crate::route::compile::depends::item(&l.item, slot, &group_of)) {
            return;
        }
        let message = if line.is_some() {
            "the messages of this split get one control ID"
        } else {
            "all messages of this split keep the control ID of the one they come from"
        };
        let own = segment.map_or_else(|| "a field that differs".to_owned(), |s| format!("{s}-1"));
        self.report(
            Diagnostic::error("K214", span, message)
                .label("a receiver takes the second for a repetition of the first")
                .help(format!("say what tells them apart: `MSH-10: join(\"-\", MSH-10, {own})`, in a line of its own")),
        );
    }
}

/// The line that sets a field of the header: where it stands, and its right side.
pub(crate) fn header_line<'b>(body: &'b tree::Body, field: &str) -> Option<(Span, &'b Item)> {
    body.lines.iter().find_map(|line| match (line.element.text.as_str(), &line.item) {
        (name, item) if name == field => Some((line.element.span, item)),
        ("MSH", Item::Body(header)) => header.lines.iter().find(|l| l.element.text == field).map(|l| (l.element.span, &l.item)),
        _ => None,
    })
}
