//! Tables and systems: data files, checked against both dictionaries.

use crate::diagnostic::Diagnostic;
use crate::fhir;
use crate::fhir::Strength;
use crate::hl7v2;
use crate::route::code::{Names, Row, SystemRule, Systems, Table, UnmappedX};
use crate::route::compile::scope::Scope;
use crate::route::compile::{Compiler, Wanted};
use crate::route::names::intern;
use crate::route::tree::{Expr, ExprKind, Key, TableDoc, TableEntry, Unmapped};
use std::sync::Arc;

impl<'a> Compiler<'a> {
    pub(crate) fn compile_tables(&mut self) {
        for doc in self.table_docs.clone() {
            let table = self.table(doc);
            self.undecided.push(doc.unmapped.is_none());
            self.tables.push(table);
        }
        // Conditions of senders may name tables, so they come when all tables are known.
        for (n, doc) in self.table_docs.clone().into_iter().enumerate() {
            for sender in &doc.senders {
                let mut scope = Scope::default();
                let when = self.condition(&mut scope, &sender.when).x;
                let to = self.tables[n].to;
                let rows = self.rows(doc, &sender.codes, to);
                self.tables[n].senders.push((when, rows));
            }
        }
    }

    fn table(&mut self, doc: &'a TableDoc) -> Table {
        let mut from = Vec::new();
        for key in &doc.from {
            if hl7v2::newest_table(&key.text).is_none() && !(key.text.len() == 4 && key.text.bytes().all(|b| b.is_ascii_digit())) {
                self.report(
                    Diagnostic::error("K501", key.span, format!("{} is no v2 table", key.text))
                        .label("four digits")
                        .help("write the table's number in quotes: \"0001\""),
                );
            }
            from.push(intern(&key.text));
        }
        let to = doc.to.as_ref().filter(|t| t.text != "boolean").and_then(|key| {
            let found = fhir::value_set(&key.text);
            if found.is_none() {
                let names: Vec<&str> = fhir::value_set_names().collect();
                let help = crate::diagnostic::suggest(&key.text, names.iter().copied())
                    .map_or_else(|| "write a value set's short name or its URL".to_owned(), |n| format!("did you mean {n}?"));
                self.report(Diagnostic::error("K504", key.span, format!("there is no value set {}", key.text)).label("unknown value set").help(help));
            }
            found
        });
        let rows = self.rows(doc, &doc.codes, to);
        let unmapped = match &doc.unmapped {
            None | Some(Unmapped::Keep(_)) => UnmappedX::Keep,
            Some(Unmapped::Text(_)) => UnmappedX::Text,
            Some(Unmapped::Drop(_)) => UnmappedX::Drop,
            Some(Unmapped::Absent(_)) => UnmappedX::Absent,
            Some(Unmapped::Refuse(_)) => UnmappedX::Refuse,
            Some(Unmapped::Code(key)) => UnmappedX::Code(self.target(doc, key, None, None, to)),
        };
        self.check_columns(doc);
        let columns = doc.columns.iter().map(|(name, _)| name.text.clone()).collect();
        let numbers = doc.columns.iter().map(|(_, ty)| matches!(ty.text.as_str(), "decimal" | "integer")).collect();
        Table { name: Arc::from(doc.name.text.as_str()), from, to, rows, senders: Vec::new(), unmapped, columns, numbers, line: self.line(doc.name.span) }
    }

    /// A column's type is a word that is known here, and each of its values is of that type.
    fn check_columns(&mut self, doc: &TableDoc) {
        const TYPES: &[&str] = &["text", "string", "code", "decimal", "integer", "ucum"];
        for (name, ty) in &doc.columns {
            if !TYPES.contains(&ty.text.as_str()) {
                let fault = Diagnostic::error("K506", ty.span, format!("{} is no type of a column", ty.text)).label("unknown type");
                self.report(match crate::diagnostic::suggest(&ty.text, TYPES.iter().copied()) {
                    Some(meant) => fault.help(format!("did you mean {meant}?")).fix_if(meant.only()),
                    None => fault.help(format!("one of: {}", TYPES.join(", "))),
                });
                continue;
            }
            let rows = doc.codes.iter().chain(doc.senders.iter().flat_map(|s| &s.codes));
            for (_, value) in rows.flat_map(|row| &row.columns).filter(|(n, _)| n.text == name.text) {
                let number = crate::route::decimal::decimal(&value.text);
                let wrong = match ty.text.as_str() {
                    "decimal" => number.is_none(),
                    "integer" => number.is_none_or(|n| !n.is_integer()),
                    "ucum" => {
                        self.check_ucum(&value.text, value.span);
                        false
                    }
                    _ => false,
                };
                if wrong {
                    let fault = Diagnostic::error("K313", value.span, format!("\"{}\" is no {}", value.text, ty.text));
                    self.report(fault.label(format!("column {} holds {}", name.text, ty.text)).related(ty.span, "said here"));
                }
            }
        }
    }

    fn rows(&mut self, doc: &'a TableDoc, entries: &'a [TableEntry], to: Option<fhir::ValueSet>) -> Names<Row> {
        let mut rows = Names::default();
        for entry in entries {
            let mut row = match &entry.to {
                Some(key) => self.target(doc, key, entry.system.as_ref(), entry.display.as_ref(), to),
                None => Row { code: String::new(), system: None, display: None, columns: Vec::new() },
            };
            row.columns = doc.columns.iter().map(|(name, _)| entry.columns.iter().find(|(n, _)| n.text == name.text).map(|(_, v)| v.text.clone())).collect();
            for (name, _) in &entry.columns {
                if !doc.columns.iter().any(|(n, _)| n.text == name.text) {
                    self.report(Diagnostic::error("K506", name.span, format!("table {} has no column {}", doc.name.text, name.text)).label("unknown column"));
                }
            }
            rows.insert(entry.code.text.clone(), row);
        }
        rows
    }

    /// The right side of a row: `male`, `system|code`, with what the value set adds.
    fn target(&mut self, doc: &TableDoc, key: &Key, system: Option<&Key>, display: Option<&Key>, to: Option<fhir::ValueSet>) -> Row {
        let (mut given, code) = match key.text.rsplit_once('|') {
            Some((system, code)) => (Some(system.to_owned()), code.to_owned()),
            None => (None, key.text.clone()),
        };
        if let Some(system) = system.or(doc.system.as_ref()) {
            given.get_or_insert_with(|| system.text.clone());
        }
        let of_ucum = |set: fhir::ValueSet| set.name() == "ucum-units" || (set.systems().next() == Some(fhir::UCUM) && set.systems().count() == 1);
        if given.as_deref() == Some(fhir::UCUM) || (given.is_none() && to.is_some_and(of_ucum)) {
            self.check_ucum(&code, key.span);
        }
        let known = to.and_then(|t| t.find(&code));
        if let (Some(set), None) = (to, known)
            && set.is_complete()
            && given.is_none()
        {
            let codes: Vec<&str> = set.codes().map(|(_, c, _)| c).collect();
            let help = match crate::diagnostic::suggest(&code, codes.iter().copied()) {
                Some(other) => format!("did you mean {other}?"),
                None if codes.len() <= 20 => format!("its codes are: {}", codes.join(", ")),
                None => format!("it has {} codes; a code of another system is written `system|code`", codes.len()),
            };
            self.report(Diagnostic::error("K502", key.span, format!("{code} is not in the value set {}", set.name())).label("unknown code").help(help));
        }
        let display = display.map(|d| d.text.clone()).or_else(|| known.map(|(_, d)| d.to_owned()).filter(|d| !d.is_empty()));
        let system = given.or_else(|| known.map(|(s, _)| s.to_owned()));
        Row { code, system, display, columns: Vec::new() }
    }

    /// K502: a table that is named where FHIR requires a code of a value set, and makes others.
    pub(crate) fn check_via(&mut self, expr: &Expr, wanted: &Wanted) {
        let ExprKind::Via(_, name, None) = &expr.kind else { return };
        let Some(set) = wanted.binding().filter(|b| b.strength == Strength::Required).map(|b| b.value_set).filter(|s| s.is_complete()) else { return };
        let Some(table) = self.tables.iter().find(|t| *t.name == *name.text) else { return };
        let rows = table.rows.values().chain(table.senders.iter().flat_map(|(_, rows)| rows.values()));
        let mut others: Vec<&str> = rows.map(|r| r.code.as_str()).filter(|code| !code.is_empty() && set.find(code).is_none()).collect();
        // A table to this value set has been told of the same codes at its own rows.
        if others.is_empty() || table.to.is_some_and(|to| to.url() == set.url()) {
            return;
        }
        others.sort_unstable();
        others.dedup();
        let told = if others.len() > 6 { format!("{}, ...", others.iter().take(6).copied().collect::<Vec<_>>().join(", ")) } else { others.join(", ") };
        let fits: Vec<&str> = self.tables.iter().filter(|t| t.to.is_some_and(|to| to.url() == set.url())).map(|t| &*t.name).collect();
        let help = if fits.is_empty() { format!("write a table with `to: {}`", set.name()) } else { format!("tables to {}: {}", set.name(), fits.join(", ")) };
        let fault = Diagnostic::error("K502", name.span, format!("{} makes codes that {} may not have: {told}", name.text, wanted.path));
        self.report(fault.label(format!("{} takes codes of {}", wanted.path, set.name())).help(help));
    }

    pub(crate) fn compile_systems(&mut self) -> Systems {
        let mut systems = Systems::default();
        // A site's documents come last in the list and first in effect.
        for doc in self.systems_docs.clone().into_iter().rev() {
            for rule in &doc.rules {
                if !rule.system.text.contains(':') {
                    self.report(
                        Diagnostic::error("K316", rule.system.span, format!("{} is no absolute URI", rule.system.text))
                            .label("needs a scheme")
                            .help("such as http://hosp.example/mrn or urn:oid:1.2.3"),
                    );
                }
                let universal = rule.oid.as_ref().or(rule.universal.as_ref()).map(|k| k.text.clone());
                systems.rules.push(SystemRule {
                    namespace: rule.namespace.as_ref().map(|k| k.text.clone()),
                    universal,
                    types: rule.types.iter().map(|k| k.text.clone()).collect(),
                    system: rule.system.text.clone(),
                });
            }
            if let Some(unknown) = &doc.unknown {
                if unknown.text != "refuse" && (!unknown.text.contains("{namespace}") || !unknown.text.contains("{sender}")) {
                    self.report(
                        Diagnostic::error("K509", unknown.span, "two authorities could get the same URI")
                            .label("must hold {sender} and {namespace}")
                            .help("write https://hosp.example/authority/{sender}/{namespace}, or `unknown: refuse`"),
                    );
                }
                systems.unknown.get_or_insert_with(|| unknown.text.clone());
            }
            if let Some(missing) = &doc.missing {
                systems.missing.get_or_insert_with(|| missing.text.clone());
            }
            systems.ignore.extend(doc.ignore.iter().map(|k| k.text.clone()));
        }
        for (n, rule) in systems.rules.iter().enumerate() {
            if let Some(universal) = &rule.universal {
                systems.by_universal.entry(universal.clone()).or_default().push(n);
            } else if let Some(namespace) = &rule.namespace {
                systems.by_namespace.entry(namespace.to_ascii_uppercase()).or_default().push(n);
            }
        }
        systems
    }
}
