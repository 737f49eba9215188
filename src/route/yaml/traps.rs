//! Why a document is not YAML, in the analyst's words (section 3 of the language): the parser only says where it gave up.
//!
//! Looks at the lines again with a small reader that knows the usual slips, and blames the first slip before the place where the parser stopped.

use crate::diagnostic::{Diagnostic, SourceId, Span};
use std::ops::Range;

/// The most likely cause. `at` is where the parser gave up; all offsets are the file's.
pub(super) fn explain(text: &str, source: SourceId, chunk: Range<usize>, at: usize) -> Diagnostic {
    let part = text.get(chunk.clone()).unwrap_or("");
    let mut reader = Reader { slips: Vec::new(), brackets: Vec::new(), block: None };
    let mut start = 0;
    for line in part.split_inclusive('\n') {
        reader.line(line.trim_end_matches(['\n', '\r']), start);
        start += line.len();
    }
    // A slip ends the reading of its line, so that only a bracket of an earlier line is known to be open.
    let open = reader.brackets.first().copied().filter(|(at, _)| reader.slips.iter().all(|s| s.weak || line_of(part, s.range.start).start > *at));
    if let Some((at, bracket)) = open {
        reader.slips.push(Slip { kind: Kind::Unclosed(bracket), range: at..at + 1, weak: false });
    }
    let stop = line_of(part, at.saturating_sub(chunk.start)).end;
    // The parser may stop at the end of the line before the one that a tab indents.
    let next = stop + part.get(stop..).map_or(0, |rest| rest.len() - rest.trim_start_matches(['\n', '\r']).len());
    let tab = |s: &&Slip| matches!(s.kind, Kind::Tab) && s.range.start <= line_of(part, next).end;
    let strong = reader.slips.iter().filter(|s| !s.weak && (s.range.start <= stop || tab(s))).min_by_key(|s| s.range.start);
    let weak = reader.slips.iter().filter(|s| s.weak && s.range.start <= stop).max_by_key(|s| s.range.start);
    let span = |range: Range<usize>| Span { source, start: offset(chunk.start + range.start), end: offset(chunk.start + range.end) };
    match strong.or(weak) {
        Some(slip) => told(&slip.kind, span(slip.range.clone()), part.get(slip.range.clone()).unwrap_or("")),
        None => {
            let mut line = line_of(part, at.saturating_sub(chunk.start));
            if part.get(line.clone()).is_some_and(|l| l.trim().is_empty()) {
                // The parser noticed at the end what began on the last line that has content.
                line = line_of(part, part.get(..line.start).unwrap_or("").trim_end().len());
            }
            let written = part.get(line.clone()).unwrap_or("");
            let indent = written.len() - written.trim_start().len();
            Diagnostic::error("K100", span(line.start + indent..line.start + written.trim_end().len()), "this line does not fit the lines around it")
                .label("read up to here")
                .help("lines of one body begin in the same column, an inner body two columns further; each is `key: value`, in a list `- value`")
        }
    }
}

fn told(kind: &Kind, span: Span, written: &str) -> Diagnostic {
    match kind {
        Kind::Tab => Diagnostic::error("K109", span, "a tab indents this line").label("tab").help("YAML is indented with spaces, two for each level"),
        Kind::QuoteFirst => {
            let fault = Diagnostic::error("K101", span, "an expression can't begin with a quote")
                .label("YAML reads a quoted constant and then finds more")
                .help("put it in parentheses");
            // Inside parentheses YAML still ends the text at `: ` and ` #`.
            if written.contains(": ") || written.contains(" #") || written.starts_with('\'') { fault } else { fault.fix(format!("({written})")) }
        }
        Kind::OpenQuote => {
            Diagnostic::error("K103", span, "this quote is not closed").label("begins here").help("close it on the same line; a `\"` inside is written `\\\"`")
        }
        Kind::InFlow => Diagnostic::error("K102", span, "an expression with a comma or a bracket can't stand inside `[...]` or `{...}`")
            .label("YAML ends the value inside this")
            .help("write the body or list in block form, one line for each entry"),
        Kind::Colon => Diagnostic::error("K106", span, "`: ` ends a value in YAML")
            .label("a second `: ` on this line")
            .help("write the expression in a block: `key: >`, then the expression on the next line, indented"),
        Kind::Unclosed(bracket) => Diagnostic::error("K118", span, format!("`{bracket}` is never closed"))
            .label("begins here")
            .help(format!("add the closing `{}`", if *bracket == '[' { ']' } else { '}' })),
        Kind::Stray(bracket) => Diagnostic::error("K118", span, format!("`{bracket}` closes nothing")).help("remove it, or add the bracket that opens"),
        Kind::Mark(mark) => {
            let fault = Diagnostic::error("K108", span, format!("a value can't begin with `{mark}`"));
            match mark {
                '*' | '&' => fault.help("anchors and aliases are not used in route files; write the lines out"),
                '!' => fault.help("negation is `not`").fix("not "),
                _ => fault.help("text that begins with it stands in quotes"),
            }
        }
        Kind::After => Diagnostic::error("K102", span, "an expression can't go on after `]` or `}`")
            .label("YAML read a list or mapping before this")
            .help("write the expression without the brackets, or the list in block form"),
        Kind::NoSpace => Diagnostic::error("K100", span, "a colon needs a space after it").help("`key: value`"),
        Kind::Bare => Diagnostic::error("K100", span, "this line is no `key: value`")
            .label("a colon is missing, or the indentation")
            .help("each line of a body is `key: value`; a value that goes on is indented further than its key"),
    }
}

struct Slip {
    kind: Kind,
    range: Range<usize>,
    /// May be right YAML; blamed only when nothing else is.
    weak: bool,
}

enum Kind {
    Tab,
    QuoteFirst,
    OpenQuote,
    InFlow,
    Colon,
    Unclosed(char),
    Stray(char),
    Mark(char),
    After,
    NoSpace,
    Bare,
}

struct Reader {
    slips: Vec<Slip>,
    brackets: Vec<(usize, char)>,
    /// The indentation of the line whose `>` or `|` opened a block.
    block: Option<usize>,
}

impl Reader {
    fn slip(&mut self, kind: Kind, range: Range<usize>) {
        self.slips.push(Slip { kind, range, weak: false });
    }

    /// One line, which begins at byte `start` of the chunk.
    fn line(&mut self, line: &str, start: usize) {
        let indent = line.len() - line.trim_start().len();
        if line.trim().is_empty() || line.trim_start().starts_with('#') || line.starts_with("---") {
            return;
        }
        if let Some(parent) = self.block {
            if indent > parent {
                return;
            }
            self.block = None;
        }
        if let Some(tab) = line.get(..indent).and_then(|i| i.find('\t')) {
            self.slip(Kind::Tab, start + tab..start + tab + 1);
        }
        let mut at = indent;
        // `- ` may stand several times before the value.
        while self.brackets.is_empty() && line.get(at..).is_some_and(|rest| rest.starts_with("- ")) {
            at += 2;
            at += blanks(line, at);
        }
        let listed = at > indent;
        let mut keyed = false;
        while at < line.len() {
            at += blanks(line, at);
            let Some(first) = line.get(at..).and_then(|rest| rest.chars().next()) else { return };
            let before = line.get(..at).unwrap_or("");
            let in_flow = !self.brackets.is_empty();
            match first {
                '#' if before.ends_with([' ', '\t']) => return,
                '"' | '\'' => {
                    let Some(end) = closing(line, at) else {
                        self.slip(Kind::OpenQuote, start + at..start + line.trim_end().len());
                        return;
                    };
                    let after = end + blanks(line, end);
                    let rest = line.get(after..).unwrap_or("");
                    let key = rest.starts_with(':') && rest.get(1..).is_none_or(|r| r.is_empty() || r.starts_with(' ') || in_flow);
                    if key {
                        keyed = true;
                        at = after + 1;
                    } else if rest.is_empty() || (rest.starts_with('#') && after > end) || (in_flow && rest.starts_with([',', ']', '}'])) {
                        at = after;
                    } else {
                        let rest = line.get(end..end + plain(line, end, in_flow)).unwrap_or("").trim_end();
                        self.slip(Kind::QuoteFirst, start + at..start + end + rest.len());
                        return;
                    }
                }
                '[' | '{' => {
                    self.brackets.push((start + at, first));
                    at += 1;
                }
                ']' | '}' => {
                    if self.brackets.pop().is_none() {
                        self.slip(Kind::Stray(first), start + at..start + at + 1);
                        return;
                    }
                    at += 1;
                    let after = at + blanks(line, at);
                    let rest = line.get(after..).unwrap_or("");
                    if self.brackets.is_empty() && !rest.is_empty() && !rest.starts_with(['#', ':']) {
                        self.slip(Kind::After, start + after..start + line.trim_end().len());
                        return;
                    }
                }
                ',' if in_flow => at += 1,
                ':' => at += 1,
                '>' | '|' if keyed || listed => {
                    self.block = Some(indent);
                    return;
                }
                '*' | '&' | '!' | '%' | '@' | '`' => {
                    self.slip(Kind::Mark(first), start + at..start + at + 1);
                    return;
                }
                _ => {
                    let end = at + plain(line, at, in_flow).max(1);
                    let written = line.get(at..end).unwrap_or("");
                    let rest = line.get(end..).unwrap_or("");
                    if in_flow && rest.starts_with(['[', '{', ',']) && unbalanced(written) {
                        let close = line.get(end..).and_then(|r| r.find(')')).map_or(end + 1, |n| end + n + 1);
                        self.slip(Kind::InFlow, start + at..start + close);
                        return;
                    }
                    if in_flow && rest.starts_with(['[', '{']) {
                        let close = rest.find([']', '}']).map_or(end + 1, |n| end + n + 1);
                        self.slip(Kind::InFlow, start + at..start + close);
                        return;
                    }
                    if rest.starts_with(':') {
                        if keyed && !in_flow {
                            self.slip(Kind::Colon, start + end..start + end + 1);
                            return;
                        }
                        keyed = true;
                        at = end + 1;
                    } else {
                        if !in_flow && !keyed && !listed {
                            let glued = written.find(':').is_some_and(|n| n > 0 && !written.get(..n).unwrap_or("").contains(' '));
                            let kind = if glued { Kind::NoSpace } else { Kind::Bare };
                            self.slips.push(Slip { kind, range: start + at..start + at + written.trim_end().len(), weak: true });
                        }
                        at = end;
                    }
                }
            }
        }
    }
}

fn blanks(line: &str, at: usize) -> usize {
    line.get(at..).unwrap_or("").bytes().take_while(|b| matches!(b, b' ' | b'\t')).count()
}

/// One past the quote that closes the one at `at`, on the same line.
fn closing(line: &str, at: usize) -> Option<usize> {
    let bytes = line.as_bytes();
    let quote = *bytes.get(at)?;
    let mut n = at + 1;
    while let Some(b) = bytes.get(n) {
        match b {
            b'\\' if quote == b'"' => n += 1,
            b if *b == quote => {
                if quote == b'\'' && bytes.get(n + 1) == Some(&quote) {
                    n += 1;
                } else {
                    return Some(n + 1);
                }
            }
            _ => {}
        }
        n += 1;
    }
    None
}

/// How many bytes a plain scalar takes from `at` on.
fn plain(line: &str, at: usize, in_flow: bool) -> usize {
    let rest = line.get(at..).unwrap_or("");
    let bytes = rest.as_bytes();
    let next = |n: usize| bytes.get(n + 1).copied();
    for (n, b) in bytes.iter().enumerate() {
        let ends = match b {
            b':' => next(n).is_none_or(|c| matches!(c, b' ' | b'\t') || (in_flow && matches!(c, b',' | b'[' | b']' | b'{' | b'}'))),
            b'#' => n > 0 && matches!(bytes.get(n - 1), Some(b' ' | b'\t')),
            b',' | b'[' | b']' | b'{' | b'}' => in_flow,
            _ => false,
        };
        if ends {
            return if *b == b'#' { rest.get(..n).unwrap_or("").trim_end().len() } else { n };
        }
    }
    rest.trim_end().len()
}

/// An expression that goes on after its last character: a parenthesis or a quote is open.
pub(crate) fn unbalanced(text: &str) -> bool {
    let (mut open, mut quoted, mut escaped) = (0_i32, false, false);
    for b in text.bytes() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'(' if !quoted => open += 1,
            b')' if !quoted => open -= 1,
            _ => {}
        }
    }
    open > 0 || quoted
}

fn line_of(part: &str, at: usize) -> Range<usize> {
    let before = part.get(..at.min(part.len())).unwrap_or(part);
    let start = before.rfind('\n').map_or(0, |n| n + 1);
    let end = part.get(start..).and_then(|rest| rest.find('\n')).map_or(part.len(), |n| start + n);
    start..end
}

fn offset(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
