//! Constants of v2 fields: read in HL7's standard delimiters, and checked against data type, table and length.

use crate::diagnostic::{Diagnostic, Span};
use crate::hl7v2::{self, Level, Piece};
use crate::route::code::X;
use crate::route::compile::Compiler;
use crate::route::compile::outgoing::{Kind, Out, below, kind_of};
use crate::route::types::Ty;

impl Compiler<'_> {
    /// The constant, ready to be written; `None` after a diagnostic.
    pub(crate) fn out_constant(&mut self, text: &str, out: &Out, span: Span) -> Option<X> {
        if text.is_empty() {
            self.report(
                Diagnostic::error("K314", span, "an empty constant writes nothing")
                    .label("empty")
                    .help("`null` writes HL7's \"\", which deletes; `nothing` leaves the field empty"),
            );
            return None;
        }
        if let Some(length) = out.length.filter(|l| text.chars().count() > *l as usize) {
            self.report(
                Diagnostic::warning("K217", span, format!("{} holds at most {length} characters", out.path))
                    .label(format!("{} characters", text.chars().count()))
                    .help("receivers may cut it off or refuse the message"),
            );
        }
        if crate::route::compile::constant::is_field(text) && matches!(out.datatype, "ST" | "TX" | "FT") {
            self.quoted_field(text, span);
        }
        let composite = !self.v2.is_primitive(out.datatype) && kind_of(out.datatype) != Kind::Moment;
        let repetitions: Vec<&str> = if out.repeats && composite { text.split('~').collect() } else { vec![text] };
        let mut pieces = Vec::new();
        for repetition in repetitions {
            if composite {
                self.check_composite(repetition, out, out.level, span)?;
                pieces.push(Piece::standard(repetition, out.level));
            } else {
                self.check_primitive(repetition, out, span)?;
                pieces.push(Piece::Text(repetition.to_owned()));
            }
        }
        Some(X::OutConstant(pieces.into()))
    }

    fn check_composite(&mut self, text: &str, out: &Out, level: Level, span: Span) -> Option<()> {
        let delimiter = match level {
            Level::Field | Level::Repetition => '^',
            Level::Component | Level::Subcomponent => '&',
        };
        for (n, part) in text.split(delimiter).enumerate() {
            let n = u16::try_from(n + 1).unwrap_or(u16::MAX);
            let Some(facts) = self.v2.component(out.datatype, n) else {
                self.component_type(&Ty::V2 { datatype: out.datatype, table: None }, n, span);
                return None;
            };
            if part.is_empty() || part == "\"\"" {
                continue;
            }
            let component = Out { table: facts.table.or(out.table.filter(|_| n == 1)), ..Out::of(facts, below(level), format!("{}.{n}", out.path)) };
            if self.v2.is_primitive(facts.datatype) || kind_of(facts.datatype) == Kind::Moment {
                self.check_primitive(part, &component, span)?;
            } else {
                self.check_composite(part, &component, below(level), span)?;
            }
        }
        Some(())
    }

    fn check_primitive(&mut self, text: &str, out: &Out, span: Span) -> Option<()> {
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let time = text.split(['+', '-', '.']).next().unwrap_or_default();
        let (fits, what) = match (out.datatype, kind_of(out.datatype)) {
            ("SI", _) => (digits(text), "a whole number"),
            (_, Kind::Number) => (crate::route::decimal::decimal(text).is_some(), "a number"),
            ("DT", _) => (digits(text) && matches!(text.len(), 4 | 6 | 8), "YYYY, YYYYMM or YYYYMMDD"),
            (_, Kind::Moment) => (digits(time) && matches!(time.len(), 4 | 6 | 8 | 10 | 12 | 14), "YYYYMMDDHHMMSS, or its beginning"),
            (_, Kind::Clock) => (digits(time) && matches!(time.len(), 2 | 4 | 6), "HHMMSS, or its beginning"),
            _ => (true, ""),
        };
        if !fits {
            self.report(Diagnostic::error("K313", span, format!("\"{text}\" is no {}", out.datatype)).label(format!("{} wants {what}", out.path)));
            return None;
        }
        self.check_table(text, out, span)
    }

    /// K502: HL7 defines the codes of its own tables; those of sites are theirs.
    fn check_table(&mut self, text: &str, out: &Out, span: Span) -> Option<()> {
        let Some(id) = out.table else { return Some(()) };
        let tables = || hl7v2::Version::ALL.iter().rev().filter_map(|v| hl7v2::table(*v, id));
        let newest = tables().next().filter(|t| t.is_hl7());
        let Some(newest) = newest.filter(|_| out.datatype != "ST" && tables().all(|t| !t.contains(text))) else { return Some(()) };
        let codes: Vec<&str> = newest.codes().map(|(code, _)| code).collect();
        if codes.is_empty() {
            return Some(());
        }
        let help = match crate::diagnostic::suggest(text, codes.iter().copied()) {
            Some(other) => format!("did you mean \"{other}\"?"),
            None if codes.len() <= 20 => format!("its codes are: {}", codes.join(", ")),
            None => format!("it has {} codes", codes.len()),
        };
        self.report(
            Diagnostic::error("K502", span, format!("\"{text}\" is not in HL7's table {id} ({})", newest.name()))
                .label(format!("{} has codes of it", out.path))
                .help(help),
        );
        None
    }
}
