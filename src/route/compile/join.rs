//! Joins: the only sensible way from a value's type to the type that an element wants (section 8 of the language).

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir::{self, Kind, Type};
use crate::route::code::{CodeTable, Coded, Conversion, Function, Join, X};
use crate::route::compile::expression::Compiled;
use crate::route::compile::path::same_type;
use crate::route::compile::{Compiler, Wanted};
use crate::route::tree::{Op, Target};
use crate::route::types::{Ty, Typed};
use std::collections::HashMap;
use std::sync::Arc;

impl<'a> Compiler<'a> {
    /// Wraps a raw expression in the conversion to what is wanted, or says why there is none.
    pub(crate) fn join(&mut self, raw: Compiled, wanted: &Wanted, span: Span) -> Compiled {
        if raw.typed.ty == Ty::Nothing {
            return Compiled { converted: true, ..raw };
        }
        if let (Ty::V2 { datatype: "varies", .. }, true) = (&raw.typed.ty, wanted.types.len() > 1) {
            return self.varies_choice(raw, wanted, span);
        }
        let mut found: Vec<(u8, Type, Join)> = Vec::new();
        for ty in &wanted.types {
            if let Some((rank, join)) = self.find_join(&raw.typed.ty, *ty, wanted, span) {
                found.push((rank, *ty, join));
            }
            // A map to the very choice says itself which branch it makes.
            if found.last().is_some_and(|(rank, ..)| *rank == 0) {
                break;
            }
        }
        found.sort_by_key(|(rank, ..)| *rank);
        let best = found.first().map(|f| f.0);
        let equals: Vec<Type> = found.iter().filter(|f| Some(f.0) == best).map(|f| f.1).collect();
        if equals.len() > 1 {
            let branches: Vec<&str> = equals.iter().map(|t| wanted.name_for(*t)).collect();
            self.report(
                Diagnostic::error("K402", span, format!("several ways lead from {} to {}", raw.typed.ty.name(), wanted.path))
                    .label("ambiguous")
                    .help(format!("name the branch: {}", branches.join(", "))),
            );
            return Compiled::nothing();
        }
        let Some((_, ty, join)) = found.into_iter().next() else {
            self.no_join(&raw.typed.ty, wanted, span);
            return Compiled::nothing();
        };
        self.convert(raw, join, ty, wanted, span)
    }

    fn convert(&mut self, raw: Compiled, join: Join, ty: Type, wanted: &Wanted, span: Span) -> Compiled {
        let heads = self.heads(&join);
        self.joins.extend(heads.into_iter().map(|head| (span, head)));
        self.check_loss(&raw, &join, wanted, span);
        if matches!(join, Join::Found) {
            self.referred.extend(raw.asked.iter().map(|ask| (span, *ask)));
        }
        if let (Join::Instant, Ty::V2 { datatype: "DT", .. }) = (&join, &raw.typed.ty) {
            self.report(
                Diagnostic::error("K413", span, format!("{} wants an instant, and a date never is one", wanted.path))
                    .label("DT: a day without a time of day, and so without a zone")
                    .help("take a field that has a time (type DTM), or an element of type date or dateTime"),
            );
        }
        let conversion = Conversion {
            join,
            name: wanted.name_for(ty),
            companion: wanted.companion_for(ty),
            place: Arc::from(raw.places.join(", ")),
            line: self.line(span),
            single: !raw.typed.many && !wanted.list,
        };
        let x = X::Convert(Box::new(raw.x), Box::new(conversion));
        Compiled { x, typed: Typed { ty: Ty::Fhir(ty), many: raw.typed.many }, converted: true, ..Compiled { x: X::Nothing, ..raw } }
    }

    /// The heads of the maps and tables that a join goes by: an editor leads there.
    fn heads(&self, join: &Join) -> Vec<Span> {
        let map = |n: &usize| self.maps.get(*n).map(|m| m.span);
        let table = |n: &usize| self.table_docs.get(*n).map(|t| t.name.span);
        match join {
            Join::Map { map: n, coded, .. } => {
                let translate = coded.as_ref().and_then(|c| c.translate);
                map(n).into_iter().chain(translate.as_ref().and_then(table)).collect()
            }
            Join::Reference { map: n, .. } => map(n).into_iter().collect(),
            Join::Table(n) | Join::BooleanTable(n) => table(n).into_iter().collect(),
            Join::Concept { translate: Some(n), .. } => table(n).into_iter().collect(),
            Join::Varies(joins) => joins.values().flat_map(|(join, _)| self.heads(join)).collect(),
            _ => Vec::new(),
        }
    }

    /// K404: a calculated number may have a fraction, a calculated time has an hour; the word for leaving it out is round() or date().
    fn check_loss(&mut self, raw: &Compiled, join: &Join, wanted: &Wanted, span: Span) {
        let (what, word) = match (join, &raw.typed.ty) {
            (Join::Integer(_), Ty::Number) if may_be_fraction(&raw.x) => ("a number with a fraction is no value here", "round(..., 0)"),
            (Join::Date, Ty::Moment) if matches!(raw.x, X::Arithmetic(..)) => ("the time of day is left out", "date(...)"),
            _ => return,
        };
        let fault = Diagnostic::warning("K404", span, format!("{} takes less than this yields", wanted.path)).label(what);
        self.report(fault.help(format!("say that it is meant: {word}")));
    }

    fn find_join(&mut self, source: &Ty, ty: Type, wanted: &Wanted, span: Span) -> Option<(u8, Join)> {
        if let Ty::Fhir(made) = source {
            if *made == ty || made.is(ty) {
                return Some((1, Join::Same));
            }
            // A resource that was found is referred to.
            if made.kind() == Kind::Resource && ty.name() == "Reference" {
                let targets: Vec<&str> = wanted.element.map(|e| e.targets().collect()).unwrap_or_default();
                let fits = targets.is_empty() || targets.contains(&"Resource") || targets.contains(&made.name());
                return fits.then_some((1, Join::Found));
            }
            return self.by_map(source, ty, wanted, span).map(|join| (4, join));
        }
        if let Ty::Resource(types) = source {
            let targets: Vec<&str> = wanted.element.map(|e| e.targets().collect()).unwrap_or_default();
            let fits = targets.is_empty() || targets.contains(&"Resource") || types.iter().any(|t| targets.contains(t));
            return (ty.name() == "Reference" && fits).then_some((1, Join::Same));
        }
        if let Ty::V2 { datatype: "varies", .. } = source {
            return self.varies(ty, wanted, span).map(|j| (2, j));
        }
        if let Some(join) = self.element_map(source, wanted) {
            return Some((0, join));
        }
        if let Some(join) = self.primitive(source, ty, wanted, span) {
            return Some((2, join));
        }
        if let Some(join) = self.by_map(source, ty, wanted, span) {
            return Some((4, join));
        }
        if let Some(join) = self.builtin_concept(source, ty, wanted) {
            return Some((4, join));
        }
        if ty.name() == "Reference" {
            return self.reference(source, wanted, None, span).map(|j| (5, j));
        }
        None
    }

    /// The most specific: a map to this very element.
    fn element_map(&mut self, source: &Ty, wanted: &Wanted) -> Option<Join> {
        let (found, _) = self.maps_to_element(&wanted.path).find(|(_, m)| fits(source, &m.from))?;
        Some(self.call_map(found, source, wanted))
    }

    fn by_map(&mut self, source: &Ty, ty: Type, wanted: &Wanted, span: Span) -> Option<Join> {
        if ty.kind() == Kind::Resource {
            return None;
        }
        let found = {
            let exact = || self.maps_to(ty.name(), None).filter(|(_, m)| m.target.element.is_empty());
            let same = exact().find(|(_, m)| bare(&m.from) == bare(source));
            same.or_else(|| exact().find(|(_, m)| fits(source, &m.from))).map(|(n, _)| n)?
        };
        let join = self.call_map(found, source, wanted);
        if let Join::Map { coded: Some(coded), .. } = &join
            && coded.translate.is_none()
            && let (Ty::V2 { table, .. }, Some(binding)) = (source, wanted.binding())
        {
            let translate = self.table_for(*table, binding.value_set, span);
            if let Join::Map { map, arguments, coded: Some(coded) } = join {
                return Some(Join::Map { map, arguments, coded: Some(Coded { translate, ..coded }) });
            }
        }
        Some(join)
    }

    /// A coded primitive or text where no map says more.
    fn builtin_concept(&mut self, source: &Ty, ty: Type, wanted: &Wanted) -> Option<Join> {
        let coding = match ty.name() {
            "CodeableConcept" => false,
            "Coding" => true,
            _ => return None,
        };
        let (table, text) = match source {
            Ty::V2 { datatype, table } if self.v2.is_primitive(datatype) && !matches!(*datatype, "DT" | "DTM" | "TM" | "TS" | "varies") => {
                (*table, table.is_none())
            }
            Ty::Text => (None, true),
            _ => return None,
        };
        if coding && text && table.is_none() && !matches!(source, Ty::V2 { datatype: "ID" | "IS", .. }) {
            return None;
        }
        let translate = match (table, wanted.binding()) {
            (Some(table), Some(binding)) => {
                self.tables.iter().position(|t| t.from.contains(&table) && t.to.is_some_and(|to| to.url() == binding.value_set.url()))
            }
            _ => None,
        };
        if let Some(n) = translate {
            self.uses_table(n);
        }
        Some(Join::Concept { coding, table: table.map(CodeTable::new), translate, text })
    }

    /// Step 5: a map that makes a resource which the element may refer to.
    fn reference(&mut self, source: &Ty, wanted: &Wanted, only: Option<&Target>, span: Span) -> Option<Join> {
        let targets: Vec<&str> = wanted.element.map(|e| e.targets().collect()).unwrap_or_default();
        let fits_target = |name: &str| targets.is_empty() || targets.contains(&"Resource") || targets.contains(&name);
        let found: Vec<usize> = match only {
            Some(target) => self.maps_to_target(target).filter(|(_, m)| m.resource.is_some() && fits(source, &m.from)).map(|(n, _)| n).collect(),
            None => self.maps_to_resources().filter(|(_, m)| m.resource.is_some_and(fits_target) && fits(source, &m.from)).map(|(n, _)| n).collect(),
        };
        if found.len() > 1 {
            let names: Vec<String> = found.iter().filter_map(|n| self.maps[*n].resource).map(|r| format!("as {r}")).collect();
            self.report(
                Diagnostic::error("K402", span, format!("several maps lead from {} to {}", source.name(), wanted.path))
                    .label("ambiguous")
                    .help(format!("choose one: {}", names.join(", "))),
            );
        }
        let map = *found.first()?;
        let resource = self.maps[map].resource?;
        if !fits_target(resource) {
            self.report(
                Diagnostic::error("K309", span, format!("{} cannot refer to {resource}", wanted.path))
                    .label("wrong kind of resource")
                    .help(format!("it refers to: {}", targets.join(", "))),
            );
        }
        let arguments = self.arguments(map);
        Some(Join::Reference { map, arguments, resource })
    }

    /// `x as Target`, with or without an element that wants it.
    pub(crate) fn join_to(&mut self, mut raw: Compiled, target: &Target, wanted: Option<&Wanted>, span: Span) -> Compiled {
        if raw.typed.ty == Ty::Nothing {
            return Compiled { converted: true, ..raw };
        }
        if let Some(cast) = self.fhir_cast(&mut raw, target, span) {
            return match wanted {
                Some(wanted) => self.join(cast, wanted, span),
                None => cast,
            };
        }
        let Some(ty) = fhir::type_named(&target.name) else {
            let names: Vec<&str> = fhir::types().map(|t| t.name()).collect();
            let help = crate::diagnostic::suggest(&target.name, names.iter().copied()).map_or_else(String::new, |n| format!("did you mean {n}?"));
            self.report(Diagnostic::error("K302", target.span, format!("FHIR R4 has no type {}", target.name)).label("unknown type").help(help));
            return Compiled::nothing();
        };
        let reference = fhir::type_named("Reference").unwrap_or(ty);
        if ty.kind() == Kind::Resource {
            let place = match wanted {
                Some(w) => w.clone(),
                None => Wanted::bare(reference),
            };
            if !place.types.iter().any(|t| t.name() == "Reference") {
                self.report(
                    Diagnostic::error("K309", span, format!("{} is no reference, so it cannot be a {}", place.path, ty.name())).label("makes a resource"),
                );
                return Compiled::nothing();
            }
            return match self.reference(&raw.typed.ty, &place, Some(target), span) {
                Some(join) => {
                    let mut compiled = self.convert(raw, join, reference, &place, span);
                    compiled.typed.ty = if wanted.is_some() { Ty::Fhir(reference) } else { Ty::Resource(vec![ty.name()]) };
                    compiled
                }
                None => {
                    self.no_map(&raw.typed.ty, target, span);
                    Compiled::nothing()
                }
            };
        }
        let found = self.maps_to_target(target).find(|(_, m)| m.target.element.is_empty() && fits(&raw.typed.ty, &m.from)).map(|(n, _)| n);
        let place = match wanted {
            Some(w) => w.clone(),
            None => Wanted::bare(ty),
        };
        if !place.types.contains(&ty) {
            self.report(
                Diagnostic::error(
                    "K401",
                    span,
                    format!("{} wants {}, not {}", place.path, place.types.iter().map(|t| t.name()).collect::<Vec<_>>().join(" or "), ty.name()),
                )
                .label("another type"),
            );
            return Compiled::nothing();
        }
        if let Some(map) = found {
            let mut join = self.call_map(map, &raw.typed.ty, &place);
            if let (Join::Map { coded: Some(coded), .. }, Ty::V2 { table, .. }, Some(binding)) = (&mut join, &raw.typed.ty, place.binding()) {
                coded.translate = self.table_for(*table, binding.value_set, span);
            }
            return self.convert(raw, join, ty, &place, span);
        }
        if target.variant.is_none()
            && let Some((_, join)) = self.find_join(&raw.typed.ty.clone(), ty, &place, span)
        {
            return self.convert(raw, join, ty, &place, span);
        }
        self.no_map(&raw.typed.ty, target, span);
        Compiled::nothing()
    }

    fn no_map(&mut self, source: &Ty, target: &Target, span: Span) {
        let mut wanted = target.name.clone();
        if let Some(variant) = &target.variant {
            wanted.push('-');
            wanted.push_str(variant);
        }
        let from: Vec<String> = (0..self.maps.len()).filter(|n| fits(source, &self.maps[*n].from)).map(|n| self.map_name(n)).collect();
        let help = if from.is_empty() { format!("add `map: {} -> {wanted}`", bare(source)) } else { format!("there are: {}", from.join(", ")) };
        self.report(Diagnostic::error("K401", span, format!("there is no map {} -> {wanted}", bare(source))).label("no way").help(help));
    }

    /// `value[x]: OBX-5`: for each type that OBX-2 may name, the branch that suits it best.
    fn varies_choice(&mut self, raw: Compiled, wanted: &Wanted, span: Span) -> Compiled {
        let mut joins = HashMap::new();
        for datatype in VARIES {
            let source = Ty::V2 { datatype: crate::route::names::intern(datatype), table: None };
            let mut found: Vec<(u8, Type, Join)> = Vec::new();
            for ty in &wanted.types {
                if let Some((rank, join)) = self.find_join(&source, *ty, wanted, span) {
                    found.push((rank + preference(datatype, ty.name()), *ty, join));
                }
            }
            found.sort_by_key(|(rank, ..)| *rank);
            if let Some((_, ty, join)) = found.into_iter().next() {
                joins.insert(crate::route::names::intern(datatype), (join, wanted.name_for(ty)));
            }
        }
        let Some(ty) = wanted.types.first().copied().filter(|_| !joins.is_empty()) else {
            self.no_join(&raw.typed.ty, wanted, span);
            return Compiled::nothing();
        };
        self.convert(raw, Join::Varies(joins), ty, wanted, span)
    }

    /// OBX-5: one join per type that OBX-2 may name.
    fn varies(&mut self, ty: Type, wanted: &Wanted, span: Span) -> Option<Join> {
        let mut joins = HashMap::new();
        for datatype in VARIES {
            let source = Ty::V2 { datatype: crate::route::names::intern(datatype), table: None };
            if let Some((_, join)) = self.find_join(&source, ty, wanted, span) {
                joins.insert(crate::route::names::intern(datatype), (join, wanted.name_for(ty)));
            }
        }
        (!joins.is_empty()).then_some(Join::Varies(joins))
    }

    fn no_join(&mut self, source: &Ty, wanted: &Wanted, span: Span) {
        let types: Vec<&str> = wanted.types.iter().map(|t| t.name()).collect();
        let composite = matches!(source, Ty::V2 { datatype, .. } if !self.v2.is_primitive(datatype));
        let code = wanted.types.iter().any(|t| t.name() == "code");
        let help = if *source == Ty::Bool {
            "a condition belongs behind `$when` or `if`".to_owned()
        } else if composite && types.contains(&"string") {
            let written = self.sources.text(span.source).get(span.start as usize..span.end as usize).unwrap_or_default();
            let path = if written.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) { written.to_owned() } else { bare(source) };
            format!("a composite has no one text: take a component ({path}.1), or text() for what a person reads")
        } else if let (true, Some(binding), Ty::V2 { table: Some(table), .. }) = (code, wanted.binding(), source) {
            format!("add a table `from: [\"{table}\"]` `to: {}`, or choose one with `via`", binding.value_set.name())
        } else {
            format!("add `map: {} -> {}`, or take another part of the value", bare(source), types.first().unwrap_or(&"?"))
        };
        self.report(
            Diagnostic::error("K401", span, format!("no way leads from {} to {}", source.name(), wanted.path))
                .label(format!("{} wants {}", wanted.path, types.join(" or ")))
                .help(help),
        );
    }
}

/// The types that OBX-2 may name (table 0125).
const VARIES: &[&str] = &[
    "AD", "CE", "CF", "CK", "CN", "CNE", "CP", "CQ", "CWE", "CX", "DR", "DT", "DTM", "ED", "EI", "FC", "FN", "FT", "HD", "ID", "IS", "MO", "NA", "NM", "NR",
    "PL", "PN", "RP", "SI", "SN", "ST", "TM", "TN", "TS", "TX", "VR", "XAD", "XCN", "XON", "XPN", "XTN",
];

/// Of two branches that a type could go to, the one that keeps its meaning comes first.
fn preference(datatype: &str, ty: &str) -> u8 {
    let best = match datatype {
        "NM" | "CQ" | "MO" => "Quantity",
        "CE" | "CWE" | "CNE" | "CF" | "ID" | "IS" => "CodeableConcept",
        "DT" | "DTM" | "TS" => "dateTime",
        "TM" => "time",
        "SN" => "Quantity",
        "NR" => "Range",
        "DR" => "Period",
        _ => "string",
    };
    if ty == best { 0 } else { 10 }
}

pub(crate) fn fits(source: &Ty, from: &Ty) -> bool {
    match (source, from) {
        (Ty::V2 { datatype: a, .. }, Ty::V2 { datatype: b, .. }) => same_type(a, b),
        (Ty::Segment(a), Ty::Segment(b)) => a == b,
        (Ty::Fhir(a), Ty::Fhir(b)) => a == b,
        _ => false,
    }
}

pub(crate) fn bare(source: &Ty) -> String {
    match source {
        Ty::V2 { datatype, .. } => (*datatype).to_owned(),
        Ty::Segment(name) => (*name).to_owned(),
        other => other.name(),
    }
}

/// May it have digits behind the point? A field of type NM is judged when it comes: what is not whole is a finding.
fn may_be_fraction(x: &X) -> bool {
    match x {
        X::Call(Function::Number, _) | X::Arithmetic(Op::Divide, ..) => true,
        X::Arithmetic(_, a, b) | X::Else(a, b) | X::If(_, a, b) => may_be_fraction(a) || may_be_fraction(b),
        X::Call(Function::First | Function::Last, arguments) => arguments.iter().any(may_be_fraction),
        X::Let(named) => may_be_fraction(&named.x),
        X::Number(n) => !n.is_integer(),
        _ => false,
    }
}
