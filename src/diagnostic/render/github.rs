//! GitHub's workflow commands, which show a fault beside its line in a pull request.

use crate::diagnostic::render::word;
use crate::diagnostic::{Diagnostic, Sources, Span};
use std::fmt::Write;

pub(super) fn write(out: &mut String, sources: &Sources, diagnostic: &Diagnostic) {
    let span = diagnostic.span;
    let (line, column) = sources.line_column(span);
    let (end_line, end_column) = sources.line_column(Span { start: span.end, ..span });
    let mut text = diagnostic.message.clone();
    if !diagnostic.label.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(text, " ({})", diagnostic.label);
    }
    if let Some(help) = &diagnostic.help {
        text.push('\n');
        text.push_str(help);
    }
    let path = data(sources.path(span.source)).replace(':', "%3A").replace(',', "%2C");
    let _ = write!(
        out,
        "::{} file={path},line={line},endLine={end_line},col={column},endColumn={end_column},title={}::{}",
        word(diagnostic.severity),
        diagnostic.code,
        data(&text)
    );
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}
