//! Evaluating compiled expressions. Total: what cannot be said yields nothing.

use crate::hl7v2::{Message, Part};
use crate::route::code::Let;
use crate::route::code::{self, Path, Root, Said, X};
use crate::route::decimal::{Decimal, decimal, is_decimal};
use crate::route::lineage::Step;
use crate::route::run::out::Out;
use crate::route::run::value::{Value, Values};
use crate::route::run::{EVALUATION, Env, Run};
use crate::route::tree::{Index, Op};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

impl<'m> Run<'m> {
    pub(crate) fn eval(&mut self, x: &'m X, env: &Env<'_, 'm>) -> Values<'m> {
        if !self.spend(EVALUATION) {
            return Values::none();
        }
        match x {
            X::Nothing => Values::none(),
            X::Null => Values::constant(Value::Null),
            X::Text(text) => Values::constant(Value::Text(Cow::Borrowed(text))),
            X::Number(n) => Values::constant(Value::Number(Box::new(n.clone()))),
            X::Whole(n) => Values::constant(Value::Whole(*n)),
            X::Let(named) => self.named_value(named, env),
            X::Bool(b) => Values::constant(Value::Bool(*b)),
            X::Node(name, node) => Values::constant(Value::Node(Box::new((*name, node.clone())))),
            X::Path(path) => self.path(path, env),
            X::Argument(n) => match (env.caller, env.arguments.get(*n)) {
                // Whoever passes a constant means it to be written: `type: { text: $role }` is no body of constants.
                (Some(caller), Some(argument)) => {
                    let mut values = self.eval(argument, caller);
                    values.alive |= !values.is_empty();
                    values
                }
                _ => Values::none(),
            },
            X::Said(..) => {
                let holds = self.holds(x, env);
                Values::one(Value::Bool(holds))
            }
            X::If(condition, then, otherwise) => {
                if self.holds(condition, env) {
                    self.eval(then, env)
                } else {
                    self.eval(otherwise, env)
                }
            }
            X::Else(a, b) => {
                let first = self.eval(a, env);
                if !first.is_empty() {
                    return first;
                }
                self.note(|t| t.step(Step::Otherwise, None));
                self.eval(b, env)
            }
            X::Where(inner, slot, condition) => self.filter(inner, *slot, condition, env),
            X::Or(..)
            | X::And(..)
            | X::Not(_)
            | X::Compare(..)
            | X::In(..)
            | X::InSystems(..)
            | X::InListed(..)
            | X::InCodes(..)
            | X::InTable(..)
            | X::Valued(..)
            | X::Deleted(_) => {
                let holds = self.holds(x, env);
                Values::one(Value::Bool(holds))
            }
            X::Arithmetic(op, a, b) => self.arithmetic(*op, a, b, env),
            X::Call(function, arguments) => self.call(function, arguments, env),
            X::Asked(n) => self.asked(*n),
            X::Elements(inner, steps) => self.elements(inner, steps, env),
            X::Steps(inner, steps) => {
                let values = self.eval(inner, env);
                self.steps(values, steps)
            }
            X::Via(inner, table, column) => self.via(inner, *table, *column, env),
            X::Convert(inner, conversion) => {
                let mark = self.noted(|t| t.mark());
                let values = self.eval(inner, env);
                self.note(|t| mark.iter().for_each(|m| t.evaluated(*m, values.len())));
                let values = self.convert(values, conversion, env);
                self.note(|t| t.converted());
                values
            }
            X::Out(inner, join) => self.out(inner, join, env),
            X::OutBody(body) => self.out_body(body, env),
            X::OutConstant(pieces) => {
                let mut values = Values::none();
                pieces.iter().for_each(|p| values.push(Value::Piece(Box::new(p.clone()))));
                values
            }
            X::Body(body, name) => {
                let mut out = Vec::new();
                self.note(|t| t.collect());
                let alive = self.body(body, env, name, &mut Out::Elements(&mut out));
                self.note(|t| t.loosen());
                let mut values = Values::none();
                values.alive = alive;
                for (name, node) in out {
                    values.push(Value::Node(Box::new((name, node))));
                }
                values
            }
            X::Resource { index, all, place, from, own } => {
                let here = from.and_then(|slot| self.segment_of(env.slot(slot))).filter(|_| !*all);
                self.resource_reference(*index, place, here, *own)
            }
        }
    }

    /// What a `$let` comes to, evaluated once for the values that it reads.
    fn named_value(&mut self, named: &'m Arc<Let>, env: &Env<'_, 'm>) -> Values<'m> {
        // What is read in one place only need not be remembered; and whoever wants notes wants them of each use.
        if self.trace.is_some() || Arc::strong_count(named) == 1 {
            return self.eval(&named.x, env);
        }
        if let Some((values, local)) = env.remembered(named.id) {
            if local {
                self.depends_on_place();
            }
            return values;
        }
        let before = self.local.get();
        let values = self.eval(&named.x, env);
        env.remember(named, &values, self.local.get() != before);
        values
    }

    /// Is the condition true? What is not true or false is false.
    pub(crate) fn holds(&mut self, x: &'m X, env: &Env<'_, 'm>) -> bool {
        match x {
            X::Bool(b) => *b,
            X::Said(inner, said) => self.answered(inner, said, None, env),
            X::Or(a, b) => self.holds(a, env) || self.holds(b, env),
            X::And(a, b) => self.holds(a, env) && self.holds(b, env),
            X::Not(a) => !self.holds(a, env),
            X::Valued(inner, wanted) => self.has_value(inner, env) == *wanted,
            X::Deleted(inner) => self.is_deleted(inner, env),
            X::Compare(op @ (Op::Equal | Op::NotEqual), a, b) if let X::Text(text) = &**b => {
                self.any_text(a, env, |sent| sent == &**text) == (*op == Op::Equal)
            }
            X::Compare(op, a, b) => {
                let a = self.eval(a, env);
                let b = self.eval(b, env);
                self.compare(*op, &a, &b)
            }
            X::In(inner, words, negated) => {
                let found = self.any_text(inner, env, |text| words.iter().any(|w| **w == *text));
                found != *negated
            }
            X::InSystems(inner, negated) => {
                let values = self.eval(inner, env);
                let found = values.as_slice().iter().any(|v| self.is_known_system(v));
                found != *negated
            }
            X::InListed(inner, negated) => {
                let values = self.eval(inner, env);
                let found = values.as_slice().iter().any(|v| self.is_listed_system(v));
                found != *negated
            }
            X::InCodes(inner, set, negated) => {
                let found = self.any_text(inner, env, |text| set.find(text).is_some());
                found != *negated
            }
            X::InTable(inner, table, negated) => {
                let rows = self.code.tables.get(*table).map(|t| &t.rows);
                let found = self.any_text(inner, env, |text| rows.is_some_and(|r| r.contains_key(text)));
                found != *negated
            }
            other => matches!(self.eval(other, env).first(), Some(Value::Bool(true))),
        }
    }

    /// A condition that somebody wrote; `about` is the candidate of a `where`.
    pub(crate) fn answered(&mut self, inner: &'m X, said: &'m Said, about: Option<Part>, env: &Env<'_, 'm>) -> bool {
        let asked = self.noted(|t| t.ask());
        let holds = self.holds(inner, env);
        self.note(|t| asked.iter().for_each(|m| t.answer(*m, said, holds, about)));
        holds
    }

    /// Does the text of any of the values fit?
    fn any_text(&mut self, x: &'m X, env: &Env<'_, 'm>, fits: impl Fn(&str) -> bool) -> bool {
        if let Some(found) = self.one_part(x, env) {
            return found.is_some_and(|part| fits(&self.leaf_text(part)));
        }
        let values = self.eval(x, env);
        values.as_slice().iter().any(|v| fits(&self.text_of(v)))
    }

    fn has_value(&mut self, x: &'m X, env: &Env<'_, 'm>) -> bool {
        if let (X::Call(code::Function::Number, arguments), None) = (x, self.trace) {
            return arguments.first().is_some_and(|inner| self.any_text(inner, env, is_decimal));
        }
        if let Some(found) = self.one_part(x, env) {
            return found.is_some();
        }
        let values = self.eval(x, env);
        values.as_slice().iter().any(|v| match v {
            Value::Part(part) => {
                self.note(|t| t.touch(*part));
                self.is_valued(*part)
            }
            Value::Fhir(json, _) => !json.is_null() && json.as_str() != Some(""),
            Value::Segment(_) | Value::Node(_) | Value::Piece(_) | Value::Made(_) | Value::Number(_) | Value::Whole(_) | Value::Duration(_) => true,
            Value::Bool(_) | Value::Row(_) | Value::Sn(_) | Value::Group(_) => true,
            Value::Text(t) | Value::Moment(t) => !t.is_empty(),
            Value::Null => false,
        })
    }

    /// Did the sender write `""` there?
    pub(crate) fn is_deleted(&mut self, x: &'m X, env: &Env<'_, 'm>) -> bool {
        match x {
            X::Path(path) => self.raw_parts(path, env).into_iter().any(|p| {
                let null = self.message.is_null(p);
                self.note(|t| {
                    if null {
                        t.null(p)
                    }
                });
                null
            }),
            X::Convert(inner, _) | X::Out(inner, _) | X::Where(inner, ..) => self.is_deleted(inner, env),
            X::Call(_, arguments) if arguments.len() == 1 => arguments.first().is_some_and(|a| self.is_deleted(a, env)),
            // The first of a chain that says anything decides.
            X::Else(a, b) => self.is_deleted(a, env) || (!self.has_value(a, env) && self.is_deleted(b, env)),
            X::If(condition, then, otherwise) => {
                if self.holds(condition, env) {
                    self.is_deleted(then, env)
                } else {
                    self.is_deleted(otherwise, env)
                }
            }
            X::Null => true,
            X::Let(named) => self.is_deleted(&named.x, env),
            _ => false,
        }
    }

    /// Valued parts only.
    pub(crate) fn path(&mut self, path: &'m Path, env: &Env<'_, 'm>) -> Values<'m> {
        let Some(field) = path.field else { return self.path_from_value(path, env) };
        self.depends_on_place();
        let mut values = Values { alive: true, ..Values::none() };
        match path.root {
            // The common case: a field of the segment at hand.
            Root::Slot(slot) | Root::SegmentOf(slot) => match env.group(slot) {
                Some(group) => {
                    for segment in distinct_segments(&group, self.message) {
                        self.push_field(segment, field, &path.steps, &mut values);
                    }
                }
                None => {
                    if let Some(segment) = env.segment(slot, self.message) {
                        self.push_field(segment, field, &path.steps, &mut values);
                    }
                }
            },
            Root::Lookup { .. } => {
                for segment in self.root_segments(path.root, env) {
                    self.push_field(segment, field, &path.steps, &mut values);
                }
            }
        }
        values
    }

    /// A path without a field: the current value or a part of it, or whole segments.
    fn path_from_value(&mut self, path: &'m Path, env: &Env<'_, 'm>) -> Values<'m> {
        let Root::Slot(slot) = path.root else {
            let mut values = Values { alive: true, ..Values::none() };
            for segment in self.root_segments(path.root, env) {
                values.push(Value::Segment(segment));
            }
            return values;
        };
        if let Some(mut part) = env.part(slot) {
            for step in &path.steps {
                match step {
                    code::Step::Down(n) => part = self.down(part, *n),
                    code::Step::Index(Index::Last | Index::Nth(1)) => {}
                    code::Step::Index(_) => return Values::none(),
                }
            }
            return if self.is_valued(part) { Values::one(Value::Part(part)) } else { Values::none() };
        }
        match env.slot(slot) {
            Some(Value::Group(group)) => {
                let mut values = Values { alive: true, ..Values::none() };
                group.iter().for_each(|value| values.push(value.clone()));
                self.steps(values, &path.steps)
            }
            Some(value) if path.steps.is_empty() => Values::one(value),
            Some(value) => self.steps(Values::one(value), &path.steps),
            None => Values::none(),
        }
    }

    fn push_field(&self, segment: u32, field: u16, steps: &[code::Step], values: &mut Values<'m>) {
        let whole = self.message.field(segment as usize, usize::from(field));
        if whole.start == whole.end {
            return;
        }
        match steps.split_first() {
            Some((code::Step::Index(Index::Nth(n)), rest)) => {
                let part = self.message.repetition(whole, *n as usize);
                self.push_part(part, rest, values);
            }
            Some((code::Step::Index(Index::Last), rest)) => {
                if let Some(part) = self.message.repetitions(whole).last() {
                    self.push_part(part, rest, values);
                }
            }
            _ => {
                for part in self.message.repetitions(whole) {
                    self.push_part(part, steps, values);
                }
            }
        }
    }

    fn push_part(&self, part: Part, steps: &[code::Step], values: &mut Values<'m>) {
        let mut part = part;
        let mut pick = None;
        for step in steps {
            match step {
                code::Step::Down(n) => part = self.down(part, *n),
                code::Step::Index(index) => pick = Some(*index),
            }
        }
        if self.is_valued(part) && !matches!(pick, Some(Index::Nth(n)) if n > 1) {
            values.push(Value::Part(part));
        }
    }

    /// The parts as sent, `""` included.
    fn raw_parts(&mut self, path: &'m Path, env: &Env<'_, 'm>) -> Vec<Part> {
        let mut starts = Vec::new();
        if path.field.is_none() {
            if let Root::Slot(slot) = path.root {
                match env.slot(slot) {
                    Some(Value::Part(part)) => starts.push(part),
                    Some(Value::Group(group)) => starts.extend(group.iter().filter_map(|v| if let Value::Part(part) = v { Some(*part) } else { None })),
                    _ => {}
                }
            }
        } else if let Some(field) = path.field {
            self.depends_on_place();
            for segment in self.root_segments(path.root, env) {
                starts.extend(self.message.repetitions(self.message.field(segment as usize, usize::from(field))));
            }
        }
        let down = |mut part: Part| {
            for step in &path.steps {
                if let code::Step::Down(n) = step {
                    part = self.down(part, *n);
                }
            }
            part
        };
        starts.into_iter().map(down).collect()
    }

    fn root_segments(&mut self, root: Root, env: &Env<'_, 'm>) -> Vec<u32> {
        self.depends_on_place();
        match root {
            Root::Slot(slot) | Root::SegmentOf(slot) => match env.group(slot) {
                Some(group) => distinct_segments(&group, self.message),
                None => env.segment(slot, self.message).into_iter().collect(),
            },
            Root::Lookup { lookup, from, index } => {
                let found = self.segments(lookup, self.segment_in(from, env));
                match index {
                    None => found.to_vec(),
                    Some(Index::Nth(n)) => (n as usize).checked_sub(1).and_then(|n| found.get(n).copied()).into_iter().collect(),
                    Some(Index::Last) => found.last().copied().into_iter().collect(),
                }
            }
        }
    }

    /// The segment that the value in a slot is, or stands in.
    pub(crate) fn segment_in(&self, slot: Option<usize>, env: &Env<'_, 'm>) -> Option<u32> {
        slot.and_then(|slot| env.segment(slot, self.message))
    }

    pub(crate) fn segment_of(&self, value: Option<Value<'m>>) -> Option<u32> {
        value.and_then(|v| v.segment(self.message))
    }

    pub(crate) fn steps(&mut self, values: Values<'m>, steps: &[code::Step]) -> Values<'m> {
        let mut values = values;
        for step in steps {
            let alive = values.alive;
            values = match step {
                code::Step::Index(Index::Nth(n)) => Values::option((*n as usize).checked_sub(1).and_then(|n| values.into_iter().nth(n)), alive),
                code::Step::Index(Index::Last) => Values::option(values.last(), alive),
                code::Step::Down(n) => {
                    let mut below = Values { alive, ..Values::none() };
                    for value in values {
                        match value {
                            Value::Part(part) => {
                                let part = self.down(part, *n);
                                if self.is_valued(part) {
                                    below.push(Value::Part(part));
                                }
                            }
                            Value::Sn(sn) => {
                                if let Some(text) = usize::from(*n).checked_sub(1).and_then(|n| sn.get(n)).filter(|t| !t.is_empty()) {
                                    below.push(Value::Text(text.clone()));
                                }
                            }
                            other if *n == 1 => below.push(other),
                            _ => {}
                        }
                    }
                    below
                }
            };
        }
        values
    }

    /// `=` holds if some pair fits; `!=` is its negation, so true of nothing.
    fn compare(&self, op: Op, a: &Values<'m>, b: &Values<'m>) -> bool {
        if op == Op::NotEqual {
            return !self.compare(Op::Equal, a, b);
        }
        a.as_slice().iter().any(|a| b.as_slice().iter().any(|b| self.compare_one(op, a, b)))
    }

    fn compare_one(&self, op: Op, a: &Value<'m>, b: &Value<'m>) -> bool {
        if matches!((a, b), (Value::Null, _) | (_, Value::Null)) {
            let null = |v: &Value<'m>| match v {
                Value::Null => true,
                Value::Part(part) => self.message.is_null(*part),
                _ => false,
            };
            return op == Op::Equal && null(a) && null(b);
        }
        let fits = |order: Option<Ordering>| {
            matches!(
                (op, order),
                (Op::Equal, Some(Ordering::Equal))
                    | (Op::Less, Some(Ordering::Less))
                    | (Op::LessEqual, Some(Ordering::Less | Ordering::Equal))
                    | (Op::Greater, Some(Ordering::Greater))
                    | (Op::GreaterEqual, Some(Ordering::Greater | Ordering::Equal))
            )
        };
        if let (Value::Whole(a), Value::Whole(b)) = (a, b) {
            return fits(Some(a.cmp(b)));
        }
        let (left, right) = (self.text_of(a), self.text_of(b));
        let number = |v: &Value<'m>, text: &str| match v {
            Value::Number(n) => Some((**n).clone()),
            Value::Whole(n) => Some(Decimal::from(*n)),
            _ => decimal(text),
        };
        let is_number = |v: &Value<'m>| matches!(v, Value::Number(_) | Value::Whole(_) | Value::Fhir(serde_json::Value::Number(_), _));
        let is_moment = |v: &Value<'m>| match v {
            Value::Moment(_) => true,
            Value::Fhir(_, ty) => matches!(ty.name(), "date" | "dateTime" | "instant"),
            _ => false,
        };
        let numeric = is_number(a) || is_number(b) || !matches!(op, Op::Equal);
        let moments = is_moment(a) || is_moment(b);
        let order = if moments {
            // Times compare as far as both are precise.
            let common = left.len().min(right.len());
            left.get(..common).zip(right.get(..common)).map(|(l, r)| l.cmp(r))
        } else if numeric {
            match (number(a, &left), number(b, &right)) {
                (Some(l), Some(r)) => l.partial_cmp(&r),
                _ if matches!(op, Op::Equal) => Some(left.cmp(&right)),
                _ => None,
            }
        } else {
            Some(left.cmp(&right))
        };
        fits(order)
    }

    fn arithmetic(&mut self, op: Op, a: &'m X, b: &'m X, env: &Env<'_, 'm>) -> Values<'m> {
        let left = self.eval(a, env);
        let right = self.eval(b, env);
        let alive = left.alive || right.alive;
        let (Some(left), Some(right)) = (left.first(), right.first()) else { return Values::none() };
        if let Value::Duration(span) = right {
            let text = self.text_of(&left);
            let moved = crate::route::run::moment::add(&text, *span, op == Op::Subtract);
            return Values::option(moved.map(|m| Value::Moment(Cow::Owned(m))), alive);
        }
        let number = |run: &Self, v: &Value<'m>| match v {
            Value::Number(n) => Some((**n).clone()),
            Value::Whole(n) => Some(Decimal::from(*n)),
            other => decimal(&run.text_of(other)),
        };
        let (Some(l), Some(r)) = (number(self, &left), number(self, &right)) else { return Values::none() };
        let result = match op {
            Op::Add => Some(l + r),
            Op::Subtract => Some(l - r),
            Op::Multiply => Some(l * r),
            Op::Divide if r == 0 => None,
            Op::Divide => Some((l / r).with_scale_round(20, bigdecimal::RoundingMode::HalfUp).normalized()),
            _ => None,
        };
        Values::option(result.map(|n| Value::Number(Box::new(n))), alive)
    }

    fn via(&mut self, inner: &'m X, table: usize, column: Option<usize>, env: &Env<'_, 'm>) -> Values<'m> {
        let values = self.eval(inner, env);
        let mut out = Values { alive: values.alive, ..Values::none() };
        for value in values {
            let text = self.text_of(&value).into_owned();
            let row = self.row(table, &text, env);
            self.note(|t| {
                let found = row.map(|r| column.map_or_else(|| r.code.clone(), |c| r.columns.get(c).cloned().flatten().unwrap_or_default()));
                let name = self.code.tables.get(table).map_or_else(|| Arc::from(""), |t| Arc::clone(&t.name));
                let about = if let Value::Part(part) = &value { Some(*part) } else { None };
                t.step(Step::Table { table: name, code: text.clone(), found, unmapped: row.is_none().then_some("nothing") }, about);
            });
            let Some(row) = row else { continue };
            match column {
                Some(column) => {
                    if let Some(text) = row.columns.get(column).cloned().flatten() {
                        // A column of numbers holds nothing else: that was checked when the table was loaded.
                        match decimal(&text).filter(|_| self.code.tables.get(table).is_some_and(|t| t.numbers.get(column) == Some(&true))) {
                            Some(number) => out.push(Value::Number(Box::new(number))),
                            None => out.push(Value::Text(Cow::Owned(text))),
                        }
                    }
                }
                None => out.push(Value::Row(Box::new(row.clone()))),
            }
        }
        out
    }
}

/// The segments of a group's values, each once.
fn distinct_segments(group: &[Value<'_>], message: &Message) -> Vec<u32> {
    let mut segments: Vec<u32> = group.iter().filter_map(|value| value.segment(message)).collect();
    segments.dedup();
    segments
}
