//! v2 as a target: the lines of segments and composites against the dictionary, and the ways from a value to a v2 type.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir;
use crate::hl7v2::Level;
use crate::route::code::{Path, Root, UnmappedX, X};
use crate::route::compile::Compiler;
use crate::route::compile::expression::Compiled;
use crate::route::compile::join::{bare, fits};
use crate::route::compile::path::same_type;
use crate::route::compile::scope::{Entry, Let, Scope};
use crate::route::names::intern;
use crate::route::outgoing::{OutJoin, OutTable, ValueBody, ValueItem, ValueLine};
use crate::route::tree::{self, Expr, ExprKind, Item, Key, Literal, Target};
use crate::route::types::{FieldType, Ty, Typed};

/// What a field or component wants.
#[derive(Clone, Debug)]
pub(crate) struct Out {
    pub(crate) datatype: &'static str,
    pub(crate) table: Option<&'static str>,
    pub(crate) repeats: bool,
    pub(crate) length: Option<u32>,
    pub(crate) level: Level,
    /// `PID-3.4`.
    pub(crate) path: String,
}

impl Out {
    pub(crate) fn of(facts: FieldType, level: Level, path: String) -> Self {
        Self { datatype: facts.datatype, table: facts.table, repeats: facts.repeats, length: None, level, path }
    }
}

/// A compiled right side.
pub(crate) struct Made {
    pub(crate) item: ValueItem,
    pub(crate) many: bool,
    pub(crate) constant: bool,
    /// The v2 places that it reads.
    pub(crate) places: Vec<String>,
}

impl Made {
    fn nothing() -> Self {
        Self { item: ValueItem::Nothing, many: false, constant: true, places: Vec::new() }
    }
}

/// One level further down.
pub(crate) fn below(level: Level) -> Level {
    match level {
        Level::Field | Level::Repetition => Level::Component,
        Level::Component | Level::Subcomponent => Level::Subcomponent,
    }
}

impl<'a> Compiler<'a> {
    /// A line whose place is known: any right side for it.
    pub(crate) fn value_line(&mut self, scope: &mut Scope<'a>, line: &'a tree::Line, at: Vec<u16>, out: &Out) -> (ValueLine, bool) {
        let made = self.value_item(scope, &line.item, out);
        let is_list = matches!(line.item, Item::List(..));
        if (is_list || line.append) && !out.repeats {
            self.report(
                Diagnostic::error("K303", if is_list { line.item.span() } else { line.element.span }, format!("{} does not repeat", out.path))
                    .label(if is_list { "a list" } else { "nothing can be appended" })
                    .help("write the fall-backs with ??: `a ?? b`"),
            );
        } else if made.many && !out.repeats {
            let span = line.item.span();
            let text = self.sources.text(span.source).get(span.start as usize..span.end as usize).unwrap_or_default().trim().to_owned();
            let short = text.len() < 60 && !text.contains('\n') && matches!(line.item, Item::Expr(_));
            let help = if short { format!("say which: first({text}), or join(\" \", {text})") } else { "say which: first(...), [1] or join(...)".to_owned() };
            self.report(Diagnostic::error("K405", span, format!("{} takes one value, and this may yield several", out.path)).label("may be many").help(help));
        }
        let (place, column) = self.spot(line.element.span);
        let compiled =
            ValueLine { at, append: line.append, repeats: out.repeats, item: made.item, place: intern(&out.path), line: place, column, places: made.places };
        (compiled, made.constant)
    }

    /// Any right side, for a field or component.
    pub(crate) fn value_item(&mut self, scope: &mut Scope<'a>, item: &'a Item, out: &Out) -> Made {
        match item {
            Item::Expr(Expr { kind: ExprKind::Literal(Literal::Nothing), .. }) => Made::nothing(),
            Item::Expr(Expr { kind: ExprKind::Literal(Literal::Null), .. }) => Made { item: ValueItem::X(X::Null), ..Made::nothing() },
            Item::Expr(expr) => {
                let compiled = self.out_wanted(scope, expr, out);
                Made { many: compiled.typed.many, constant: compiled.constant, item: ValueItem::X(compiled.x), places: compiled.places }
            }
            Item::Constant(key) => match self.out_constant(&key.text, out, key.span) {
                Some(x) => Made { item: ValueItem::X(x), ..Made::nothing() },
                None => Made::nothing(),
            },
            Item::List(items, _) => {
                let made: Vec<Made> = items.iter().map(|i| self.value_item(scope, i, out)).collect();
                let constant = made.iter().all(|m| m.constant);
                let places = made.iter().flat_map(|m| m.places.clone()).collect();
                Made { item: ValueItem::List(made.into_iter().map(|m| m.item).collect()), many: true, constant, places }
            }
            Item::Body(body) => {
                let (compiled, many) = self.value_body(scope, body, out);
                Made { constant: compiled.constant, item: ValueItem::Body(Box::new(compiled)), many, places: Vec::new() }
            }
        }
    }

    /// `{ $from: PID-3, CX.4: ... }`; says too whether it may make several values.
    pub(crate) fn value_body(&mut self, scope: &mut Scope<'a>, body: &'a tree::Body, out: &Out) -> (ValueBody, bool) {
        let depth = scope.entries.len();
        let lets = scope.lets.len();
        scope.lets.extend(body.lets.iter().map(|(name, item)| Let { name, item, entries: depth }));
        let mut made = ValueBody { slot: depth, from_slot: depth, ..ValueBody::default() };
        let mut many = false;
        if let Some(each) = &body.each {
            let (values, _, several) = self.each(scope, each);
            made.each = Some(values);
            made.from_slot += 1;
            many = several;
        }
        let reach = scope.entries.len();
        scope.lets.iter_mut().skip(lets).for_each(|l| l.entries = reach);
        let with = self.push_with(scope, body);
        if let Some(when) = &body.when {
            made.when = Some(self.condition(scope, when).x);
        }
        if let Some(from) = &body.from {
            let (inner, target) = match &from.values.kind {
                ExprKind::As(inner, target) => (&**inner, Some(target)),
                _ => (&from.values, None),
            };
            let mut value = self.raw(scope, inner);
            many |= value.typed.many;
            let slot = scope.push(Entry::of(&value));
            // The conversion reads the current value, so that the lines and it see the same one.
            let values = std::mem::replace(&mut value.x, X::Path(Path { root: Root::Slot(slot), field: None, steps: Vec::new() }));
            value.typed.many = false;
            let joined = match target {
                Some(target) => self.out_join_as(value, target, out, from.values.span),
                None => self.out_join(value, out, from.values.span),
            };
            made.from = Some((values, joined.x));
        }
        self.check_alternatives(body);
        for item in body.first.iter().flatten() {
            let compiled = self.value_item(scope, item, out);
            many |= compiled.many;
            made.first.push(compiled.item);
        }
        if let Some(value) = &body.value {
            let compiled = self.value_item(scope, value, out);
            many |= compiled.many;
            made.value = Some(Box::new(compiled.item));
        }
        made.constant = made.from.is_none() && made.value.is_none() && made.first.is_empty();
        for line in &body.lines {
            let Some((at, component)) = self.component_key(&line.element, out) else { continue };
            let (line, constant) = self.value_line(scope, line, at, &component);
            made.constant &= constant;
            made.lines.push(line);
        }
        if with {
            self.pop_with();
        }
        scope.entries.truncate(depth);
        scope.lets.truncate(lets);
        (made, many)
    }

    /// `CX.4.1` in the body of a CX.
    fn component_key(&mut self, key: &Key, out: &Out) -> Option<(Vec<u16>, Out)> {
        let mut parts = key.text.split('.');
        let name = parts.next().unwrap_or_default();
        let numbers: Option<Vec<u16>> = parts.map(|n| n.parse::<u16>().ok().filter(|n| *n > 0)).collect();
        let numbers = numbers.filter(|n| !n.is_empty() && n.len() <= 2);
        let own = out.datatype == "varies" && self.v2.is_datatype(name) || same_type(name, out.datatype);
        let Some(numbers) = numbers.filter(|_| own) else {
            let fault = Diagnostic::error("K213", key.span, format!("{} is no component of {}, a {}", key.text, out.path, out.datatype));
            let help = if self.v2.is_primitive(out.datatype) {
                format!("{} has no components: give it an expression", out.datatype)
            } else {
                format!("its components are written {0}.1, {0}.2 and so on", out.datatype)
            };
            self.report(fault.label("which component?").help(help));
            return None;
        };
        let datatype = if out.datatype == "varies" { intern(name) } else { out.datatype };
        let start = FieldType { datatype, table: None, repeats: false };
        let facts = self.walk(start, &numbers, key.span)?;
        let level = numbers.iter().fold(out.level, |level, _| below(level));
        Some((numbers, Out { repeats: false, ..Out::of(facts, level, key.text.clone()) }))
    }

    /// Down the components; `None` after a diagnostic.
    pub(crate) fn walk(&mut self, start: FieldType, numbers: &[u16], span: Span) -> Option<FieldType> {
        let mut facts = start;
        for n in numbers {
            match self.v2.component(facts.datatype, *n) {
                Some(found) => facts = FieldType { repeats: false, ..found },
                None => {
                    self.component_type(&Ty::V2 { datatype: facts.datatype, table: None }, *n, span);
                    return None;
                }
            }
        }
        Some(facts)
    }

    /// An expression, converted to what the field wants.
    pub(crate) fn out_wanted(&mut self, scope: &mut Scope<'a>, expr: &'a Expr, out: &Out) -> Compiled {
        self.check_reach(expr);
        match &expr.kind {
            ExprKind::If(condition, then, otherwise) => {
                let condition = self.condition(scope, condition);
                let then = self.out_wanted(scope, then, out);
                let otherwise = match otherwise {
                    Some(e) => self.out_wanted(scope, e, out),
                    None => Compiled::nothing(),
                };
                Self::choose(condition, then, otherwise)
            }
            ExprKind::Else(a, b) => {
                let mut a = self.out_wanted(scope, a, out);
                let b = self.out_wanted(scope, b, out);
                // What a table drops goes on to the right side.
                if let X::Out(_, join) = &mut a.x
                    && let OutJoin::Table(by) = &mut **join
                {
                    by.undecided |= matches!(self.tables.get(by.table).map(|t| &t.unmapped), Some(UnmappedX::Drop | UnmappedX::Absent));
                }
                Self::fall_back(a, b)
            }
            ExprKind::Literal(Literal::Nothing) => Compiled::nothing(),
            ExprKind::Literal(Literal::Null) => Compiled { x: X::Null, ..Compiled::nothing() },
            ExprKind::Literal(Literal::Text(text) | Literal::Number(text)) => match self.out_constant(text, out, expr.span) {
                Some(x) => Compiled { x, ..Compiled::nothing() },
                None => Compiled::nothing(),
            },
            ExprKind::Variable(name) => self.out_variable(scope, name, expr, out),
            ExprKind::Via(..) => {
                let raw = self.raw(scope, expr);
                let joined = self.out_join(raw, out, expr.span);
                self.by_table(joined, out, expr.span)
            }
            ExprKind::As(inner, target) => {
                let raw = self.raw(scope, inner);
                self.out_join_as(raw, target, out, expr.span)
            }
            _ => {
                let raw = self.raw(scope, expr);
                self.out_join(raw, out, expr.span)
            }
        }
    }

    /// `$name`: a constant and a body are made for the field that wants them.
    fn out_variable(&mut self, scope: &mut Scope<'a>, name: &str, expr: &'a Expr, out: &Out) -> Compiled {
        let plain = scope.takes.iter().any(|(n, ..)| n == name) || scope.entries.iter().any(|e| e.variable.as_deref() == Some(name));
        if !plain && matches!(scope.find_let(name), Some((Item::Constant(_) | Item::Body(_) | Item::Expr(_), _))) {
            let Some((item, mut inner)) = self.expand(scope, name, expr.span) else { return Compiled::nothing() };
            return match item {
                Item::Constant(key) => match self.out_constant(&key.text, out, key.span) {
                    Some(x) => Compiled { x, ..Compiled::nothing() },
                    None => Compiled::nothing(),
                },
                Item::Body(body) => {
                    let (body, many) = self.value_body(&mut inner, body, out);
                    let typed = Typed { ty: Ty::V2 { datatype: out.datatype, table: out.table }, many };
                    Compiled { constant: body.constant, converted: true, ..Compiled::new(X::OutBody(Box::new(body)), typed) }
                }
                Item::Expr(expr) => self.out_wanted(&mut inner, expr, out),
                Item::List(..) => Compiled::nothing(),
            };
        }
        let raw = self.raw(scope, expr);
        self.out_join(raw, out, expr.span)
    }

    /// `PID-8 via sex`: the table's row as the field wants it, and its `unmapped:` for a code without a row.
    fn by_table(&mut self, joined: Compiled, out: &Out, span: Span) -> Compiled {
        let (inner, table) = match joined.x {
            X::Via(inner, table, None) => (inner, table),
            X::Out(via, join) if matches!(*join, OutJoin::Coded) && matches!(*via, X::Via(_, _, None)) => match *via {
                X::Via(inner, table, _) => (inner, table),
                other => return Compiled { x: X::Out(Box::new(other), join), ..Compiled { x: X::Nothing, ..joined } },
            },
            x => return Compiled { x, ..Compiled { x: X::Nothing, ..joined } },
        };
        let undecided = self.undecided.get(table).copied().unwrap_or(true);
        let join = OutTable { table, coded: is_coded(out.datatype), undecided, place: intern(&out.path), line: self.line(span) };
        Compiled { x: X::Out(inner, Box::new(OutJoin::Table(Box::new(join)))), ..Compiled { x: X::Nothing, ..joined } }
    }

    fn out_join_as(&mut self, mut raw: Compiled, target: &Target, out: &Out, span: Span) -> Compiled {
        if let Some(cast) = self.fhir_cast(&mut raw, target, span) {
            return self.out_join(cast, out, span);
        }
        if raw.typed.ty == Ty::Nothing {
            return raw;
        }
        if !same_type(&target.name, out.datatype) && out.datatype != "varies" {
            self.report(Diagnostic::error("K401", span, format!("{} wants {}, not {}", out.path, out.datatype, target.name)).label("another type"));
            return Compiled::nothing();
        }
        let found = (0..self.v2_maps.len()).find(|n| {
            let map = &self.v2_maps[*n];
            map.target.name == target.name && map.target.variant == target.variant && fits(&raw.typed.ty, &map.from)
        });
        match found {
            Some(map) => self.by_v2_map(raw, map, out),
            None if target.variant.is_none() => self.out_join(raw, &Out { datatype: intern(&target.name), ..out.clone() }, span),
            None => {
                self.no_out_join(&raw.typed.ty, out, span);
                Compiled::nothing()
            }
        }
    }

    fn by_v2_map(&mut self, raw: Compiled, map: usize, out: &Out) -> Compiled {
        let arguments = self.v2_arguments(map);
        let typed = Typed { ty: Ty::V2 { datatype: out.datatype, table: out.table }, many: raw.typed.many };
        Compiled { x: X::Out(Box::new(raw.x), Box::new(OutJoin::Map(map, arguments))), typed, ..Compiled { x: X::Nothing, ..raw } }
    }

    /// What `$with` passes to a map's parameters, in their order.
    pub(crate) fn v2_arguments(&mut self, map: usize) -> Vec<X> {
        if let Some(current) = self.current_v2_map {
            self.v2_maps[current].calls.push(map);
        }
        let takes = self.v2_maps[map].takes.clone();
        takes.iter().map(|(name, ty, wanted)| self.argument(name, ty, wanted.as_ref())).collect()
    }

    /// The only way from a value to a v2 type: a map, the same type, a primitive, or a first component.
    fn out_join(&mut self, raw: Compiled, out: &Out, span: Span) -> Compiled {
        if raw.typed.ty == Ty::Nothing {
            return raw;
        }
        let map = (0..self.v2_maps.len()).find(|n| {
            let map = &self.v2_maps[*n];
            // A map that says `$from: CX` in `map: CX -> CX` starts with what it was given.
            map.target.variant.is_none() && same_type(map.into, out.datatype) && fits(&raw.typed.ty, &map.from) && self.current_v2_map != Some(*n)
        });
        if let Some(map) = map {
            return self.by_v2_map(raw, map, out);
        }
        match self.plain_join(&raw.typed.ty, out.datatype) {
            Some(None) => raw,
            Some(Some(join)) => Compiled { x: X::Out(Box::new(raw.x), Box::new(join)), ..Compiled { x: X::Nothing, ..raw } },
            None => {
                self.no_out_join(&raw.typed.ty, out, span);
                Compiled::nothing()
            }
        }
    }

    /// `Some(None)`: as it is.
    fn plain_join(&self, source: &Ty, to: &'static str) -> Option<Option<OutJoin>> {
        let coded = is_coded(to);
        match source {
            Ty::V2 { datatype, .. } if same_type(datatype, to) || *datatype == "varies" || to == "varies" => Some(None),
            // A row of a table goes into a coded type with its text.
            Ty::V2 { datatype: "ID", table: None } if coded => Some(Some(OutJoin::Coded)),
            Ty::V2 { datatype, .. } if self.v2.is_primitive(datatype) || kind_of(datatype) == Kind::Moment => self.primitive_out(kind_of(datatype), to),
            Ty::V2 { .. } => None,
            Ty::Text => self.primitive_out(Kind::Text, to),
            Ty::Number => self.primitive_out(Kind::Number, to),
            Ty::Moment => self.primitive_out(Kind::Moment, to),
            Ty::Bool => matches!(to, "ID" | "IS" | "ST").then_some(Some(OutJoin::YesNo)),
            Ty::Fhir(ty) => {
                let kind = match ty.name() {
                    // `systems` read backwards.
                    "uri" | "url" | "oid" | "uuid" | "canonical" if to == "HD" => return Some(Some(OutJoin::Authority)),
                    "decimal" | "integer" | "positiveInt" | "unsignedInt" => Kind::Number,
                    "date" | "dateTime" | "instant" => Kind::Moment,
                    "time" => Kind::Clock,
                    "boolean" => Kind::Code,
                    "base64Binary" | "xhtml" => return None,
                    _ if ty.kind() == fhir::Kind::Primitive => Kind::Text,
                    // HL7's own pairs: a code, its text and its system (chapter 2A, CWE).
                    "Coding" | "CodeableConcept" => return coded.then_some(None),
                    _ => return None,
                };
                self.primitive_out(kind, to)
            }
            _ => None,
        }
    }

    fn primitive_out(&self, from: Kind, to: &'static str) -> Option<Option<OutJoin>> {
        if !self.v2.is_primitive(to) && kind_of(to) != Kind::Moment {
            // Component 1 of a composite is the value itself (chapter 2, section 2.5.3).
            let first = self.v2.component(to, 1)?;
            return self.primitive_out(from, first.datatype);
        }
        match (from, kind_of(to)) {
            (Kind::Moment, Kind::Moment) => Some((to == "DT").then_some(OutJoin::Date)),
            (_, Kind::Text | Kind::Code) => Some(None),
            (Kind::Number, Kind::Number) | (Kind::Clock, Kind::Clock) | (Kind::Moment, Kind::Clock) => Some(None),
            _ => None,
        }
    }

    fn no_out_join(&mut self, source: &Ty, out: &Out, span: Span) {
        let composite = matches!(source, Ty::V2 { datatype, .. } if !self.v2.is_primitive(datatype));
        let help = match (source, kind_of(out.datatype)) {
            (Ty::V2 { .. }, _) if composite && self.v2.is_primitive(out.datatype) => {
                let written = self.sources.text(span.source).get(span.start as usize..span.end as usize).unwrap_or_default().trim();
                let path = !written.is_empty() && written.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'[' | b']'));
                let part = if path { format!("{written}.1") } else { format!("{}.1", bare(source)) };
                format!("a composite has no one text: take a component ({part}), or text() for what a person reads")
            }
            (Ty::Text, Kind::Number) if self.v2.is_primitive(out.datatype) => "number() makes a number of text".to_owned(),
            _ => format!("add `map: {} -> {}`, or take another part of the value", bare(source), out.datatype),
        };
        self.report(
            Diagnostic::error("K401", span, format!("no way leads from {} to {}", source.name(), out.path))
                .label(format!("{} wants {}", out.path, out.datatype))
                .help(help),
        );
    }
}

fn is_coded(datatype: &str) -> bool {
    matches!(datatype, "CWE" | "CE" | "CNE" | "CF")
}

/// What kind of primitive a v2 type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Code,
    Number,
    Moment,
    Clock,
}

pub(crate) fn kind_of(datatype: &str) -> Kind {
    match datatype {
        "NM" | "SI" => Kind::Number,
        "DT" | "DTM" | "TS" => Kind::Moment,
        "TM" => Kind::Clock,
        "ID" | "IS" => Kind::Code,
        _ => Kind::Text,
    }
}
