//! Whose line is to blame: what a site's document brings about in a shipped one is told at the site's.

use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::hl7v2;
use crate::route::compile::Compiler;
use crate::route::tree::{FieldDoc, Key, SegmentDoc};

impl<'a> Compiler<'a> {
    /// The first of these places that somebody here wrote, when the fault shows at a line that nobody here wrote.
    pub(crate) fn blamed(&self, at: Span, mut causes: impl Iterator<Item = Span>) -> Option<Span> {
        let shipped = |span: Span| self.sources.shipped(span.source);
        if shipped(at) { causes.find(|cause| !shipped(*cause)) } else { None }
    }

    /// The file of this place has a fault already: what a document of it lacks may be what could not be read.
    pub(crate) fn is_faulty(&self, at: Span) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error && d.span.source == at.source)
    }

    /// K310 of a shipped route: told at the line that a site's document brought in. False if no line of the two maps is a site's.
    pub(crate) fn told_at_line(&mut self, route: Span, element: &str, second: usize, first: usize) -> bool {
        let line = |map: usize| {
            let head = self.maps.get(map)?;
            Some(head.body.lines.iter().find(|l| l.element.text == element).map_or(head.span, |l| l.element.span))
        };
        let (Some(second_line), Some(first_line)) = (line(second), line(first)) else { return false };
        let Some(own) = self.blamed(route, [second_line, first_line].into_iter()) else { return false };
        let (other, other_line) = if own == second_line { (first, first_line) } else { (second, second_line) };
        let name = self.map_name(other);
        let fault = Diagnostic::error("K310", own, format!("{element} is set by {name}, too, and a shipped route uses both")).label("set here, too");
        self.report(
            fault
                .related(other_line, "the first")
                .help(format!("change it there instead: `extend: {name}` with a line `{element}:`; or let a line `{element}:` of the route's resource decide")),
        );
        true
    }

    /// K302, K202: what a declaration of v2 names must exist, whether or not a line reads the field.
    pub(crate) fn check_declared(&mut self, fields: &[(u16, FieldDoc)]) {
        for (_, field) in fields {
            let name = &field.datatype;
            if self.v2.is_datatype(&name.text) {
                continue;
            }
            let help = crate::diagnostic::suggest(&name.text, hl7v2::datatype_ids())
                .map_or_else(|| "write a v2 data type, such as CX, or declare a site's own with `datatype:`".to_owned(), |n| format!("did you mean {n}?"));
            self.report(Diagnostic::error("K302", name.span, format!("HL7 v2 has no data type {}", name.text)).label("unknown type").help(help));
        }
    }

    /// K202: a segment stands after one that exists.
    pub(crate) fn check_place(&mut self, doc: &SegmentDoc) {
        if let Some(after) = doc.after.as_ref().filter(|after| !self.v2.is_segment(&after.text)) {
            let help = self.suggest_source(&after.text);
            self.report(Diagnostic::error("K202", after.span, format!("there is no segment {}", after.text)).label("unknown segment").help(help));
        }
    }

    /// The cure for a name that is no segment's: text in quotes, where it does not look like one.
    pub(crate) fn suggest_segment(&self, segment: &Key) -> String {
        if segment.text.len() == 3 { self.suggest_source(&segment.text) } else { format!("text stands in quotes: \"{}\"", segment.text) }
    }
}
