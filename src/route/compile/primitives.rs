//! Joins to primitives: texts, numbers, times, and codes by table or value set.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir::{self, Kind, Strength, Type};
use crate::hl7v2;
use crate::route::code::Join;
use crate::route::compile::{Compiler, Wanted};
use crate::route::types::Ty;

impl<'a> Compiler<'a> {
    /// Steps 2 and 3: primitives, and codes by a table.
    pub(crate) fn primitive(&mut self, source: &Ty, ty: Type, wanted: &Wanted, span: Span) -> Option<Join> {
        if ty.kind() != Kind::Primitive {
            return match (source, ty.name()) {
                (Ty::Duration, "Duration" | "Quantity" | "Age") => Some(Join::Duration),
                _ => None,
            };
        }
        match source {
            Ty::V2 { datatype, table } => self.v2_primitive(datatype, *table, ty.name(), wanted, span),
            Ty::Text => match ty.name() {
                "string" | "markdown" | "id" | "base64Binary" | "xhtml" => Some(Join::Text),
                "code" => Some(match wanted.binding() {
                    Some(b) if b.value_set.is_complete() && b.strength == Strength::Required => Join::SameCodes(b.value_set),
                    _ => Join::Code,
                }),
                "uri" | "url" | "canonical" | "oid" | "uuid" => Some(Join::Uri),
                _ => None,
            },
            Ty::Number => match ty.name() {
                "decimal" => Some(Join::Decimal),
                "integer" => Some(Join::Integer(i64::from(i32::MIN))),
                "positiveInt" => Some(Join::Integer(1)),
                "unsignedInt" => Some(Join::Integer(0)),
                "string" => Some(Join::NumberText),
                _ => None,
            },
            Ty::Bool => (ty.name() == "boolean").then_some(Join::Boolean),
            Ty::Moment => times(ty.name()),
            _ => None,
        }
    }

    fn v2_primitive(&mut self, datatype: &'static str, table: Option<&'static str>, ty: &str, wanted: &Wanted, span: Span) -> Option<Join> {
        let coded = matches!(datatype, "ID" | "IS" | "ST" | "CWE" | "CE" | "CNE" | "CF" | "NM" | "SI");
        let moment = matches!(datatype, "DT" | "DTM" | "TS");
        let simple = self.v2.is_primitive(datatype);
        match ty {
            "string" | "markdown" | "id" if simple && !moment && datatype != "TM" => Some(Join::Text),
            "code" if coded || simple => self.code_join(table, wanted, span),
            "boolean" if coded => {
                if let Some(n) = self
                    .tables
                    .iter()
                    .position(|t| table.is_some_and(|s| t.from.contains(&s)) && !t.name.is_empty() && t.to.is_none() && self.is_boolean(&t.name))
                {
                    self.uses_table(n);
                    return Some(Join::BooleanTable(n));
                }
                (table == Some("0136") || (datatype == "ID" && table.is_none())).then_some(Join::Boolean)
            }
            "decimal" if matches!(datatype, "NM" | "SI") => Some(Join::Decimal),
            "integer" if matches!(datatype, "NM" | "SI") => Some(Join::Integer(i64::from(i32::MIN))),
            "positiveInt" if matches!(datatype, "NM" | "SI") => Some(Join::Integer(1)),
            "unsignedInt" if matches!(datatype, "NM" | "SI") => Some(Join::Integer(0)),
            "time" if matches!(datatype, "TM") || moment => Some(Join::Time),
            "uri" | "url" | "canonical" | "oid" if datatype == "HD" => Some(Join::System { identifier: wanted.path == "Identifier.system", entity: false }),
            "uri" if datatype == "EI" || (simple && wanted.path.ends_with(".system")) => Some(Join::System { identifier: false, entity: datatype == "EI" }),
            "uri" | "url" | "canonical" | "oid" | "uuid" if simple => Some(Join::Uri),
            _ if moment => times(ty),
            _ => None,
        }
    }

    fn is_boolean(&self, table: &str) -> bool {
        self.table_docs.iter().any(|d| d.name.text == table && d.to.as_ref().is_some_and(|t| t.text == "boolean"))
    }

    /// From a v2 table's code to a FHIR code.
    fn code_join(&mut self, table: Option<&'static str>, wanted: &Wanted, span: Span) -> Option<Join> {
        let Some(binding) = wanted.binding() else { return Some(Join::Code) };
        let set = binding.value_set;
        if let Some(n) = self.table_for(table, set, span) {
            if self.undecided[n] && binding.strength == Strength::Required && set.is_complete() {
                let name = self.tables[n].name.to_string();
                let span = self.blamed(span, self.table_docs.get(n).map(|d| d.name.span).into_iter()).unwrap_or(span);
                self.report(
                    Diagnostic::error(
                        "K503",
                        span,
                        format!("{} must have a code of {}, and table {name} does not say what an unknown code becomes", wanted.path, set.name()),
                    )
                    .label("an unknown code would stop here")
                    .help(format!("add `unmapped:` to table {name}: drop, absent, refuse, or a code of {}", set.name())),
                );
                self.undecided[n] = false;
            }
            return Some(Join::Table(n));
        }
        let must = binding.strength == Strength::Required && set.is_complete();
        if !must {
            return Some(Join::Code);
        }
        let same = table.and_then(hl7v2::newest_table).is_some_and(|t| {
            let mut codes = t.codes().peekable();
            codes.peek().is_some() && codes.all(|(code, _)| set.find(code).is_some())
        });
        // A component without a table may hold the code itself; what does not fit is a finding.
        if same || table.is_none() { Some(Join::SameCodes(set)) } else { None }
    }

    /// The table that joins a v2 table to a value set.
    pub(crate) fn table_for(&mut self, table: Option<&str>, set: fhir::ValueSet, span: Span) -> Option<usize> {
        let table = table?;
        let fits: Vec<usize> =
            self.tables.iter().enumerate().filter(|(_, t)| t.from.contains(&table) && t.to.is_some_and(|to| to.url() == set.url())).map(|(n, _)| n).collect();
        if fits.len() > 1 {
            let names: Vec<String> = fits.iter().map(|n| self.tables[*n].name.to_string()).collect();
            let told = format!("{} tables join {table} to {}: {}", fits.len(), set.name(), names.join(", "));
            let ours = fits.iter().filter_map(|n| self.table_docs.get(*n)).map(|d| d.name.span);
            let other = fits.iter().filter_map(|n| self.table_docs.get(*n)).find(|d| self.sources.shipped(d.name.span.source)).map(|d| &d.name.text);
            self.report(match (self.blamed(span, ours), other) {
                (Some(ours), Some(other)) => Diagnostic::error("K505", ours, told).label("shipped lines cannot choose").help(format!(
                    "begin with `extend: {other}` to change its codes; or name it `{other}` to replace that; or leave out `from:` and use it with `via`"
                )),
                _ => Diagnostic::error("K505", span, told).label("which one?").help("remove one, or choose here with `via`"),
            });
        }
        fits.first().copied().inspect(|n| self.uses_table(*n))
    }

    pub(crate) fn uses_table(&mut self, n: usize) {
        if let Some(doc) = self.table_docs.get(n) {
            self.used.insert(doc.name.span);
        }
    }
}

fn times(ty: &str) -> Option<Join> {
    match ty {
        "date" => Some(Join::Date),
        "dateTime" => Some(Join::DateTime),
        "instant" => Some(Join::Instant),
        "time" => Some(Join::Time),
        _ => None,
    }
}
