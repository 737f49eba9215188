//! The look that rustc made familiar: the line, a caret, the cure as a change to the line.

use crate::diagnostic::{Diagnostic, Severity, Sources, Span};
use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};
use std::ops::Range;

pub(super) fn write(out: &mut String, sources: &Sources, diagnostic: &Diagnostic, color: bool) {
    let level = if diagnostic.severity == Severity::Error { Level::ERROR } else { Level::WARNING };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code);
    let source = diagnostic.span.source;
    let mut primary = AnnotationKind::Primary.span(range(sources, diagnostic.span));
    if !diagnostic.label.is_empty() {
        primary = primary.label(diagnostic.label.as_str());
    }
    let near = diagnostic.related.iter().filter(|(span, _)| span.source == source);
    let near = near.map(|(span, text)| AnnotationKind::Context.span(range(sources, *span)).label(text.as_str()));
    let mut fault = title.element(Snippet::source(sources.text(source)).path(sources.path(source)).annotation(primary).annotations(near));
    for (span, text) in diagnostic.related.iter().filter(|(span, _)| span.source != source) {
        let there = AnnotationKind::Context.span(range(sources, *span)).label(text.as_str());
        fault = fault.element(Snippet::source(sources.text(span.source)).path(sources.path(span.source)).annotation(there));
    }
    let cure = diagnostic.fix.as_ref().map(|fix| {
        let patch = Patch::new(range(sources, diagnostic.span), fix.as_str());
        let title = diagnostic.help.as_deref().unwrap_or("write it like this");
        Level::HELP.secondary_title(title).element(Snippet::source(sources.text(source)).patch(patch))
    });
    let report: Vec<Group<'_>> = match (cure, &diagnostic.help) {
        (Some(cure), _) => vec![fault, cure],
        (None, Some(help)) => vec![fault.element(Level::HELP.message(help.as_str()))],
        (None, None) => vec![fault],
    };
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    out.push_str(renderer.render(&report).trim_end());
    out.push('\n');
}

/// A span that lies inside its text, between characters.
fn range(sources: &Sources, span: Span) -> Range<usize> {
    let text = sources.text(span.source);
    let inside = |n: u32| {
        let n = (n as usize).min(text.len());
        (0..=n).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0)
    };
    let start = inside(span.start);
    start..inside(span.end).max(start)
}
