//! Diagnostics as text: for people, for a line-based tool, as JSON, and as GitHub's workflow commands.

mod github;
mod human;
mod json;

use crate::diagnostic::{Diagnostic, Severity, Sources};
use std::fmt::Write;

/// How diagnostics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// With the line, a caret and the cure, as rustc does; with or without colours.
    Human {
        /// ANSI colours.
        color: bool,
    },
    /// `file:line:col: error[K203]: message`, one line each.
    Short,
    /// One JSON object per line.
    Json,
    /// `::error file=...`, GitHub's workflow commands.
    Github,
}

/// Writes diagnostics in the order given. Empty for none; otherwise ends with a line break.
pub fn render(sources: &Sources, diagnostics: &[Diagnostic], style: Style) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        match style {
            Style::Human { color } => human::write(&mut out, sources, diagnostic, color),
            Style::Short => short(&mut out, sources, diagnostic),
            Style::Json => json::write(&mut out, sources, diagnostic),
            Style::Github => github::write(&mut out, sources, diagnostic),
        }
        out.push('\n');
    }
    out
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn short(out: &mut String, sources: &Sources, diagnostic: &Diagnostic) {
    let (line, column) = sources.line_column(diagnostic.span);
    let path = sources.path(diagnostic.span.source);
    // Writing to a String cannot fail.
    let _ = write!(out, "{path}:{line}:{column}: {}[{}]: {}", word(diagnostic.severity), diagnostic.code, diagnostic.message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::{SourceId, Span};

    fn example() -> (Sources, Diagnostic) {
        let mut sources = Sources::default();
        let id = sources.add("a.yaml", "ä: PID-99\nb: 1\n");
        let span = Span { source: id, start: 4, end: 10 };
        let fault = Diagnostic::error("K203", span, "PID has no field 99").label("no such field").help("did you mean PID-9?").fix("PID-9");
        (sources, fault.related(Span { source: id, start: 11, end: 12 }, "here too"))
    }

    #[test]
    fn people_see_the_line_and_the_cure() {
        let (sources, fault) = example();
        let text = render(&sources, &[fault], Style::Human { color: false });
        let expected = "\
error[K203]: PID has no field 99
 --> a.yaml:1:4
  |
1 | ä: PID-99
  |    ^^^^^^ no such field
2 | b: 1
  | - here too
  |
help: did you mean PID-9?
  |
1 - ä: PID-99
1 + ä: PID-9
  |

";
        assert_eq!(text, expected);
    }

    #[test]
    fn tools_get_a_line() {
        let (sources, fault) = example();
        assert_eq!(render(&sources, std::slice::from_ref(&fault), Style::Short), "a.yaml:1:4: error[K203]: PID has no field 99\n");
        assert_eq!(
            render(&sources, std::slice::from_ref(&fault), Style::Github),
            "::error file=a.yaml,line=1,endLine=1,col=4,endColumn=10,title=K203::PID has no field 99 (no such field)%0Adid you mean PID-9?\n"
        );
        let json: serde_json::Value = serde_json::from_str(&render(&sources, &[fault], Style::Json)).expect("JSON");
        assert_eq!(json["line"], 1);
        assert_eq!(json["column"], 4);
        assert_eq!(json["fix"], "PID-9");
        assert_eq!(json["related"][0]["line"], 2);
    }

    #[test]
    fn no_place_breaks_it() {
        let mut sources = Sources::default();
        let texts = ["", "x", "ä", "a\r\nb\tc\r\n", "\u{feff}a: \u{1f525}\n\n", "\n"];
        let ids: Vec<SourceId> = texts.iter().map(|t| sources.add("a.yaml", *t)).chain([SourceId(99)]).collect();
        for source in ids {
            for start in 0..14_u32 {
                for end in start.saturating_sub(1)..16 {
                    let span = Span { source, start, end };
                    let fault = Diagnostic::warning("K203", span, "m").label("l").help("h").fix("f").related(span, "r").related(Span::default(), "other");
                    for style in [Style::Human { color: true }, Style::Short, Style::Json, Style::Github] {
                        assert!(render(&sources, std::slice::from_ref(&fault), style).ends_with('\n'));
                    }
                }
            }
        }
    }
}
