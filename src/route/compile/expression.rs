//! Expressions: each gets a static type, and where an element wants one, the way to it.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir;
use crate::route::code::{Function, Said, Step, X};
use crate::route::compile::path::same_type;
use crate::route::compile::scope::{Entry, Scope};
use crate::route::compile::{Compiler, Wanted};
use crate::route::decimal::Decimal;
use crate::route::tree::{Expr, ExprKind, Key, Literal, Op, PathStep, Target, Test};
use crate::route::types::{Ty, Typed};
use std::str::FromStr;
use std::sync::Arc;

/// A compiled expression with what later checks need.
pub(crate) struct Compiled {
    pub(crate) x: X,
    pub(crate) typed: Typed,
    /// The field that the values come from, when there is one: segment, field.
    pub(crate) origin: Option<(String, u16)>,
    /// The segment that the values are or stand in.
    pub(crate) segment: Option<&'static str>,
    /// Every v2 place that is read, as written: `PID-5.1`.
    pub(crate) places: Vec<String>,
    /// The FHIR element that a source's value stands in.
    pub(crate) element: Option<fhir::Element>,
    /// The route's questions that found the values.
    pub(crate) asked: Vec<usize>,
    /// Made of constants alone.
    pub(crate) constant: bool,
    /// Already converted to what was wanted.
    pub(crate) converted: bool,
}

impl Compiled {
    pub(crate) fn new(x: X, typed: Typed) -> Self {
        Self { x, typed, origin: None, segment: None, places: Vec::new(), element: None, asked: Vec::new(), constant: false, converted: false }
    }

    pub(crate) fn nothing() -> Self {
        Self { constant: true, converted: true, ..Self::new(X::Nothing, Typed::one(Ty::Nothing)) }
    }

    fn merge(mut self, other: &Compiled) -> Self {
        for place in &other.places {
            if !self.places.contains(place) {
                self.places.push(place.clone());
            }
        }
        self
    }
}

impl<'a> Compiler<'a> {
    /// An expression for an element: converted to what the element wants.
    pub(crate) fn wanted(&mut self, scope: &mut Scope<'a>, expr: &'a Expr, wanted: &Wanted) -> Compiled {
        self.check_reach(expr);
        self.check_via(expr, wanted);
        match &expr.kind {
            ExprKind::If(condition, then, otherwise) => {
                let condition = self.condition(scope, condition);
                let then = self.wanted(scope, then, wanted);
                let otherwise = match otherwise {
                    Some(e) => self.wanted(scope, e, wanted),
                    None => Compiled::nothing(),
                };
                Self::choose(condition, then, otherwise)
            }
            ExprKind::Else(a, b) => {
                let a = self.wanted(scope, a, wanted);
                let b = self.wanted(scope, b, wanted);
                Self::fall_back(a, b)
            }
            ExprKind::Literal(Literal::Nothing | Literal::Null) => Compiled::nothing(),
            ExprKind::Literal(literal) => self.literal_wanted(literal, wanted, expr.span),
            ExprKind::Variable(name) => self.variable(scope, name, Some(wanted), expr.span),
            ExprKind::As(inner, target) => {
                let raw = self.raw(scope, inner);
                self.join_as(raw, target, Some(wanted), expr.span)
            }
            ExprKind::Name(name, all) => self.resource(scope, name, *all, Some(wanted), expr.span),
            ExprKind::Call(name, arguments) if matches!(name.text.as_str(), "first" | "last") && arguments.len() == 1 && is_conversion(&arguments[0]) => {
                let inner = self.wanted(scope, &arguments[0], wanted);
                let function = if name.text == "first" { Function::First } else { Function::Last };
                let typed = Typed::one(inner.typed.ty.clone());
                Compiled { x: X::Call(function, vec![inner.x]), typed, ..Compiled { x: X::Nothing, ..inner } }
            }
            _ => {
                let raw = self.raw(scope, expr);
                if raw.converted { raw } else { self.join(raw, wanted, expr.span) }
            }
        }
    }

    /// An expression as it is, without conversion: in conditions, functions, paths.
    pub(crate) fn raw(&mut self, scope: &mut Scope<'a>, expr: &'a Expr) -> Compiled {
        match &expr.kind {
            ExprKind::If(condition, then, otherwise) => {
                let condition = self.condition(scope, condition);
                let then = self.raw(scope, then);
                let otherwise = match otherwise {
                    Some(e) => self.raw(scope, e),
                    None => Compiled { converted: false, ..Compiled::nothing() },
                };
                Self::choose(condition, then, otherwise)
            }
            ExprKind::Else(a, b) => {
                let a = self.raw(scope, a);
                let b = self.raw(scope, b);
                Self::fall_back(a, b)
            }
            ExprKind::As(inner, target) => {
                let raw = self.raw(scope, inner);
                self.join_as(raw, target, None, expr.span)
            }
            ExprKind::Via(inner, table, column) => self.via(scope, inner, table, column.as_ref()),
            ExprKind::Where(inner, condition) => self.filter(scope, inner, condition),
            ExprKind::Binary(op, a, b) => self.binary(scope, *op, a, b, expr.span),
            ExprKind::Not(inner) => {
                let inner = self.truth(scope, inner);
                Compiled { x: X::Not(Box::new(inner.x)), ..Compiled { x: X::Nothing, ..inner } }
            }
            ExprKind::Test(test, inner) => {
                let inner = self.raw(scope, inner);
                let x = match test {
                    Test::Valued => X::Valued(Box::new(inner.x), true),
                    Test::NotValued => X::Valued(Box::new(inner.x), false),
                    Test::Deleted => X::Deleted(Box::new(inner.x)),
                };
                Compiled { places: inner.places, ..Compiled::new(x, Typed::one(Ty::Bool)) }
            }
            ExprKind::InList(inner, list, negated) => {
                let inner = self.raw(scope, inner);
                let words = list.iter().filter_map(|(literal, _)| literal_text(literal)).map(Arc::from).collect();
                Compiled { places: inner.places, ..Compiled::new(X::In(Box::new(inner.x), words, *negated), Typed::one(Ty::Bool)) }
            }
            ExprKind::InName(inner, name, negated) => self.in_name(scope, inner, name, *negated),
            ExprKind::Literal(literal) => self.literal(literal),
            ExprKind::Call(name, arguments) => self.call(scope, name, arguments, expr.span),
            ExprKind::Variable(name) => self.variable(scope, name, None, expr.span),
            ExprKind::Name(name, all) => self.resource(scope, name, *all, None, expr.span),
            ExprKind::Segment { all, anchors, segment, index, field, tail } => {
                self.segment_path(scope, *all, anchors, segment, *index, *field, tail, expr.span)
            }
            ExprKind::Type { name, tail } => self.type_path(scope, name, tail, expr.span),
            ExprKind::Tail(inner, tail) => {
                let inner = self.raw(scope, inner);
                self.tail(inner, tail, expr.span)
            }
        }
    }

    /// A condition: it must be true or false. It keeps its words, for lineage.
    pub(crate) fn condition(&mut self, scope: &mut Scope<'a>, expr: &'a Expr) -> Compiled {
        let compiled = self.truth(scope, expr);
        self.check_holds(scope, expr);
        if matches!(compiled.x, X::Bool(_) | X::Nothing) {
            return compiled;
        }
        let text = self.sources.text(expr.span.source).get(expr.span.start as usize..expr.span.end as usize).unwrap_or_default();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (line, column) = self.spot(expr.span);
        Compiled { x: X::Said(Box::new(compiled.x), Box::new(Said { text, line, column })), ..Compiled { x: X::Nothing, ..compiled } }
    }

    /// The same as a part of a condition.
    fn truth(&mut self, scope: &mut Scope<'a>, expr: &'a Expr) -> Compiled {
        let compiled = self.raw(scope, expr);
        if !matches!(compiled.typed.ty, Ty::Bool | Ty::Nothing) {
            let text = self.sources.text(expr.span.source).get(expr.span.start as usize..expr.span.end as usize).unwrap_or_default().trim().to_owned();
            self.report(
                Diagnostic::error("K406", expr.span, format!("{} is no condition", compiled.typed.ty.name()))
                    .label("a condition is true or false")
                    .help(format!("write `{text} valued` to ask whether it has content")),
            );
        }
        compiled
    }

    pub(crate) fn choose(condition: Compiled, then: Compiled, otherwise: Compiled) -> Compiled {
        let ty = if then.typed.ty == Ty::Nothing { otherwise.typed.ty.clone() } else { then.typed.ty.clone() };
        let typed = Typed { ty, many: then.typed.many || otherwise.typed.many };
        let constant = then.constant && otherwise.constant;
        let converted = then.converted && otherwise.converted;
        let segment = then.segment.or(otherwise.segment);
        let asked = [then.asked.as_slice(), &otherwise.asked].concat();
        let merged = Compiled::new(X::Nothing, typed).merge(&condition).merge(&then).merge(&otherwise);
        Compiled { x: X::If(Box::new(condition.x), Box::new(then.x), Box::new(otherwise.x)), constant, converted, segment, asked, ..merged }
    }

    pub(crate) fn fall_back(mut a: Compiled, b: Compiled) -> Compiled {
        // An authority that is missing on the left falls back to the right, not to the listener's.
        if let X::Convert(_, conversion) = &mut a.x
            && let crate::route::code::Join::System { identifier, .. } = &mut conversion.join
        {
            *identifier = false;
        }
        let ty = if a.typed.ty == Ty::Nothing { b.typed.ty.clone() } else { a.typed.ty.clone() };
        let typed = Typed { ty, many: a.typed.many || b.typed.many };
        let constant = a.constant && b.constant;
        let converted = a.converted && b.converted;
        let segment = a.segment.or(b.segment);
        let asked = [a.asked.as_slice(), &b.asked].concat();
        let merged = Compiled::new(X::Nothing, typed).merge(&a).merge(&b);
        Compiled { x: X::Else(Box::new(a.x), Box::new(b.x)), constant, converted, segment, asked, ..merged }
    }

    fn filter(&mut self, scope: &mut Scope<'a>, inner: &'a Expr, condition: &'a Expr) -> Compiled {
        if let Some(compiled) = self.filter_whole(scope, inner, condition) {
            return compiled;
        }
        let named = if let ExprKind::Name(name, _) = &inner.kind { scope.resources.iter().find(|r| r.name == *name).and_then(|r| r.segment) } else { None };
        let inner = self.raw(scope, inner);
        // A resource is chosen by the segment that it is made from.
        let entry = match named {
            Some(segment) => Entry::one(Ty::Segment(segment), None, Some(segment)),
            None => Entry::of(&inner),
        };
        let slot = scope.push(entry);
        let condition = self.condition(scope, condition);
        scope.pop();
        let x = X::Where(Box::new(inner.x), slot, Box::new(condition.x));
        Compiled { x, ..Compiled { x: X::Nothing, ..inner } }
    }

    /// `QPD-3.2 where QIP.1 = "x"`: where the condition names the type of the whole value, the whole is what it chooses, and the parts follow.
    fn filter_whole(&mut self, scope: &mut Scope<'a>, inner: &'a Expr, condition: &'a Expr) -> Option<Compiled> {
        let ExprKind::Segment { all, anchors, segment, index, field: Some(field), tail } = &inner.kind else { return None };
        let [PathStep::Component(first), ..] = tail.as_slice() else { return None };
        let whole = self.v2.field(&segment.text, *field)?.datatype;
        let part = self.v2.component(whole, *first)?.datatype;
        if same_type(whole, part) || !names_type(condition, whole) || tail.iter().any(|step| matches!(step, PathStep::Index(_))) {
            return None;
        }
        let values = self.segment_path(scope, *all, anchors, segment, *index, Some(*field), &[], inner.span);
        let slot = scope.push(Entry::of(&values));
        let condition = self.condition(scope, condition);
        scope.pop();
        let chosen = Compiled { x: X::Where(Box::new(values.x), slot, Box::new(condition.x)), ..Compiled { x: X::Nothing, ..values } };
        Some(self.tail(chosen, tail, inner.span))
    }

    fn binary(&mut self, scope: &mut Scope<'a>, op: Op, a: &'a Expr, b: &'a Expr, span: Span) -> Compiled {
        match op {
            Op::Or | Op::And => {
                let a = self.truth(scope, a);
                let b = self.truth(scope, b);
                let merged = Compiled::new(X::Nothing, Typed::one(Ty::Bool)).merge(&a).merge(&b);
                let x = if op == Op::Or { X::Or(Box::new(a.x), Box::new(b.x)) } else { X::And(Box::new(a.x), Box::new(b.x)) };
                Compiled { x, ..merged }
            }
            Op::Add | Op::Subtract | Op::Multiply | Op::Divide => {
                let a = self.raw(scope, a);
                let b = self.raw(scope, b);
                let ty = match (is_moment(&a.typed.ty), &b.typed.ty) {
                    (true, Ty::Duration) if matches!(op, Op::Add | Op::Subtract) => Ty::Moment,
                    (false, _) if is_number(&a.typed.ty) && is_number(&b.typed.ty) => Ty::Number,
                    _ => {
                        self.report(
                            Diagnostic::error("K407", span, format!("cannot calculate with {} and {}", a.typed.ty.name(), b.typed.ty.name()))
                                .label("numbers with numbers, or a time plus or minus a duration")
                                .help("use number() for text, duration() for a length of time"),
                        );
                        Ty::Nothing
                    }
                };
                let merged = Compiled::new(X::Nothing, Typed::one(ty)).merge(&a).merge(&b);
                Compiled { x: X::Arithmetic(op, Box::new(a.x), Box::new(b.x)), ..merged }
            }
            _ => {
                let a = self.raw(scope, a);
                let b = self.raw(scope, b);
                let merged = Compiled::new(X::Nothing, Typed::one(Ty::Bool)).merge(&a).merge(&b);
                Compiled { x: X::Compare(op, Box::new(a.x), Box::new(b.x)), ..merged }
            }
        }
    }

    fn in_name(&mut self, scope: &mut Scope<'a>, inner: &'a Expr, name: &Key, negated: bool) -> Compiled {
        let inner = self.raw(scope, inner);
        let value = Box::new(inner.x);
        let x = if name.text == "systems" {
            X::InSystems(value, negated)
        } else if name.text == "ucum" {
            X::Valued(Box::new(X::Call(Function::Ucum, vec![*value])), !negated)
        } else if name.text == "listed-systems" {
            X::InListed(value, negated)
        } else if let Some(table) = self.tables.iter().position(|t| *t.name == *name.text) {
            self.uses_table(table);
            X::InTable(value, table, negated)
        } else if let Some(set) = fhir::value_set(&name.text) {
            X::InCodes(value, set, negated)
        } else {
            let mut names: Vec<String> = self.tables.iter().map(|t| t.name.to_string()).collect();
            names.extend(fhir::value_set_names().map(str::to_owned));
            let help = crate::diagnostic::suggest(&name.text, names.iter().map(String::as_str)).map_or_else(
                || "write a table, a value set, `ucum` or `systems` after `in`, or a list: (\"A\", \"B\")".to_owned(),
                |n| format!("did you mean {n}?"),
            );
            self.report(Diagnostic::error("K504", name.span, format!("there is no table or value set {}", name.text)).label("unknown").help(help));
            X::Bool(false)
        };
        Compiled { places: inner.places, ..Compiled::new(x, Typed::one(Ty::Bool)) }
    }

    fn via(&mut self, scope: &mut Scope<'a>, inner: &'a Expr, table: &Key, column: Option<&Key>) -> Compiled {
        let inner = self.raw(scope, inner);
        let Some(index) = self.tables.iter().position(|t| *t.name == *table.text) else {
            let names: Vec<&str> = self.tables.iter().map(|t| &*t.name).collect();
            let help = crate::diagnostic::suggest(&table.text, names.iter().copied())
                .map_or_else(|| "add a document that begins with `table:`".to_owned(), |n| format!("did you mean {n}?"));
            self.report(Diagnostic::error("K504", table.span, format!("there is no table {}", table.text)).label("unknown table").help(help));
            return Compiled { converted: true, ..inner };
        };
        self.uses_table(index);
        let column_index = column.and_then(|c| self.tables[index].columns.iter().position(|n| *n == c.text));
        if let (Some(column), None) = (column, column_index) {
            let columns = self.tables[index].columns.join(", ");
            self.report(
                Diagnostic::error("K506", column.span, format!("table {} has no column {}", table.text, column.text))
                    .label("unknown column")
                    .help(if columns.is_empty() { "the table has no columns".to_owned() } else { format!("it has: {columns}") }),
            );
        }
        let ty = match column_index.and_then(|c| self.table_docs.get(index)?.columns.get(c)).map(|(_, ty)| ty.text.as_str()) {
            Some("decimal" | "integer") => Ty::Number,
            Some(_) => Ty::Text,
            None if column.is_some() => Ty::Nothing,
            None => Ty::V2 { datatype: "ID", table: None },
        };
        let typed = Typed { ty, many: inner.typed.many };
        Compiled { x: X::Via(Box::new(inner.x), index, column_index), typed, ..Compiled { x: X::Nothing, ..inner } }
    }

    pub(crate) fn literal(&mut self, literal: &Literal) -> Compiled {
        self.says_null |= matches!(literal, Literal::Null);
        let (x, ty) = match literal {
            Literal::Text(text) => (X::Text(Arc::from(text.as_str())), Ty::Text),
            Literal::Number(text) => match text.parse() {
                Ok(whole) => (X::Whole(whole), Ty::Number),
                Err(_) => (Decimal::from_str(text).map_or(X::Nothing, X::Number), Ty::Number),
            },
            Literal::Bool(b) => (X::Bool(*b), Ty::Bool),
            Literal::Nothing => (X::Nothing, Ty::Nothing),
            Literal::Null => (X::Null, Ty::Nothing),
        };
        Compiled { constant: true, ..Compiled::new(x, Typed::one(ty)) }
    }

    pub(crate) fn literal_wanted(&mut self, literal: &Literal, wanted: &Wanted, span: Span) -> Compiled {
        let text = literal_text(literal).unwrap_or_default();
        match self.constant(&text, wanted, span) {
            Some((name, node)) => Compiled { constant: true, converted: true, ..Compiled::new(X::Node(name, node), Typed::one(Ty::Nothing)) },
            None => Compiled::nothing(),
        }
    }

    fn tail(&mut self, inner: Compiled, tail: &[PathStep], span: Span) -> Compiled {
        if matches!(inner.typed.ty, Ty::Fhir(_) | Ty::Choice(_)) {
            let path = inner.typed.ty.name();
            return self.fhir_steps(inner, path, tail, span);
        }
        let mut typed = inner.typed.clone();
        let mut steps = Vec::new();
        for step in tail {
            match step {
                PathStep::Index(index) => {
                    typed.many = false;
                    steps.push(Step::Index(*index));
                }
                PathStep::Component(n) => {
                    typed.ty = self.component_type(&typed.ty, *n, span);
                    steps.push(Step::Down(*n));
                }
                PathStep::Element(name) => self.no_element(&typed.ty.clone(), name, span),
            }
        }
        Compiled { x: X::Steps(Box::new(inner.x), steps), typed, ..Compiled { x: X::Nothing, ..inner } }
    }

    /// A named element of a v2 value: there is none.
    pub(crate) fn no_element(&mut self, ty: &Ty, name: &str, span: Span) {
        if *ty != Ty::Nothing {
            self.report(
                Diagnostic::error("K301", span, format!("{} has no element {name}", ty.name()))
                    .label("not a FHIR value")
                    .help("parts of a v2 value are numbers: .1"),
            );
        }
    }

    /// `x as Target-Variant` chooses the map.
    fn join_as(&mut self, raw: Compiled, target: &Target, wanted: Option<&Wanted>, span: Span) -> Compiled {
        self.join_to(raw, target, wanted, span)
    }
}

/// Does a path of the expression begin with that data type?
fn names_type(expr: &Expr, datatype: &str) -> bool {
    let names = |e: &Expr| names_type(e, datatype);
    match &expr.kind {
        ExprKind::Type { name, .. } => same_type(&name.text, datatype),
        ExprKind::Binary(_, a, b) | ExprKind::Else(a, b) | ExprKind::Where(a, b) => names(a) || names(b),
        ExprKind::Not(a) | ExprKind::Test(_, a) | ExprKind::InList(a, ..) | ExprKind::InName(a, ..) | ExprKind::Tail(a, _) | ExprKind::Via(a, ..) => names(a),
        ExprKind::Call(_, arguments) => arguments.iter().any(names),
        _ => false,
    }
}

/// Is it converted after it was evaluated, and not branch by branch?
pub(crate) fn converts_as_a_whole(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::If(..) | ExprKind::Else(..) | ExprKind::Literal(_) | ExprKind::Variable(_) | ExprKind::As(..) | ExprKind::Name(..) => false,
        ExprKind::Call(name, arguments) => !(matches!(name.text.as_str(), "first" | "last") && arguments.len() == 1 && is_conversion(&arguments[0])),
        _ => true,
    }
}

fn is_conversion(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::As(..) | ExprKind::If(..) | ExprKind::Else(..) | ExprKind::Name(..))
}

pub(crate) fn is_moment(ty: &Ty) -> bool {
    match ty {
        Ty::Fhir(ty) => matches!(ty.name(), "date" | "dateTime" | "instant"),
        _ => matches!(ty, Ty::Moment | Ty::V2 { datatype: "DT" | "DTM" | "TS", .. }),
    }
}

pub(crate) fn is_number(ty: &Ty) -> bool {
    match ty {
        Ty::Fhir(ty) => matches!(ty.name(), "decimal" | "integer" | "positiveInt" | "unsignedInt"),
        _ => matches!(ty, Ty::Number | Ty::V2 { datatype: "NM" | "SI", .. } | Ty::Nothing),
    }
}

fn literal_text(literal: &Literal) -> Option<String> {
    match literal {
        Literal::Text(text) | Literal::Number(text) => Some(text.clone()),
        Literal::Bool(b) => Some(b.to_string()),
        Literal::Nothing | Literal::Null => None,
    }
}
