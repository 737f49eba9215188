//! Whose line is to blame: what a site's document brings about in a shipped one is told at the site's.

use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::hl7v2;
use crate::route::compile::Compiler;
use crate::route::tree::{Expr, ExprKind, FieldDoc, Key, Literal, SegmentDoc};

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

    /// K408: an alternative after one that always holds.
    pub(crate) fn check_reach(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Else(first, second) if matches!(first.kind, ExprKind::Literal(Literal::Text(_) | Literal::Number(_) | Literal::Bool(_))) => {
                self.unreachable(second.span, "a constant stands before it")
            }
            ExprKind::If(condition, _, otherwise) => {
                let told = condition.to_string();
                let mut next = otherwise.as_deref();
                while let Some(Expr { kind: ExprKind::If(later, _, otherwise), .. }) = next {
                    if later.to_string() == told {
                        self.unreachable(later.span, "the same condition stands before it");
                    }
                    next = otherwise.as_deref();
                }
                match (&condition.kind, otherwise) {
                    (ExprKind::Literal(Literal::Bool(true)), Some(otherwise)) => self.unreachable(otherwise.span, "the condition before it always holds"),
                    (ExprKind::Literal(Literal::Bool(false)), _) => self.unreachable(condition.span, "false never holds"),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn unreachable(&mut self, span: Span, why: &str) {
        self.report(Diagnostic::warning("K408", span, "this is never reached").label(why).help("put it first, remove it, or change the condition"));
    }
}
