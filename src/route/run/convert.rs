//! Values to FHIR. What does not convert yields nothing, and a finding that says where.

use crate::fhir::{Node, SharedText, is_plain};
use crate::hl7v2::{Moment, Part, Precision};
use crate::route::code::{Conversion, Join};
use crate::route::decimal::{decimal, is_decimal};
use crate::route::lineage::Step;
use crate::route::run::body::named;
use crate::route::run::out::Out;
use crate::route::run::text::{is_blank, trimmed, without_blanks};
use crate::route::run::trace::Inner;
use crate::route::run::value::{Value, Values};
use crate::route::run::{Env, Run, fhir_value};
use std::borrow::Cow;

/// JSON names for what a value becomes: the join's own, and that of the line for those that have none.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    pub(crate) own: &'static str,
    pub(crate) outer: &'static str,
}

impl Names {
    pub(crate) fn name(self) -> &'static str {
        named(self.own, self.outer)
    }

    pub(crate) fn branch(self, own: &'static str) -> &'static str {
        named(own, self.outer)
    }
}

impl<'m> Run<'m> {
    pub(crate) fn convert(&mut self, values: Values<'m>, conversion: &'m Conversion, env: &Env<'_, 'm>) -> Values<'m> {
        if values.is_empty() {
            // An identifier without an authority takes the listener's; that alone makes no identifier.
            if let Join::System { identifier: true, .. } = conversion.join {
                let uri = self.missing_system(&self.identifier_kind(env));
                return Values::option(uri.map(|u| Value::Node(Box::new((conversion.name, Node::Text(u))))), false);
            }
            return Values::none();
        }
        let mut made = self.spare.pop().unwrap_or_default();
        let mut out = Values { alive: values.alive, ..Values::none() };
        self.convert_all(values, conversion, env, Names { own: conversion.name, outer: "value" }, &mut Out::Elements(&mut made), true);
        made.drain(..).for_each(|node| out.push(Value::Node(Box::new(node))));
        self.spare.push(made);
        out
    }

    /// The same, straight into an element: what nearly every line does.
    pub(crate) fn convert_into(&mut self, values: Values<'m>, conversion: &'m Conversion, env: &Env<'_, 'm>, name: &'static str, out: &mut Out<'_>) -> bool {
        if values.is_empty() {
            self.convert_nothing(conversion, env, name, out);
            return false;
        }
        let alive = values.alive;
        let from = out.len();
        self.convert_all(values, conversion, env, Names { own: conversion.name, outer: name }, out, false);
        alive && out.len() > from
    }

    /// The same for the one part that a path led to.
    pub(crate) fn convert_part(&mut self, part: Part, conversion: &'m Conversion, env: &Env<'_, 'm>, name: &'static str, out: &mut Out<'_>) -> bool {
        let from = out.len();
        self.convert_one(&Value::Part(part), &conversion.join, conversion, env, Names { own: conversion.name, outer: name }, out);
        out.len() > from
    }

    /// An identifier without an authority takes the listener's.
    pub(crate) fn convert_nothing(&mut self, conversion: &'m Conversion, env: &Env<'_, 'm>, name: &'static str, out: &mut Out<'_>) {
        if let Join::System { identifier: true, .. } = conversion.join
            && let Some(uri) = self.missing_system(&self.identifier_kind(env))
        {
            let node = Node::Text(uri);
            self.note(|t| t.node(name, &node, Inner::Leaf));
            out.push(name, node);
        }
    }

    /// `loose`: it is not yet known where they go.
    fn convert_all(&mut self, values: Values<'m>, conversion: &'m Conversion, env: &Env<'_, 'm>, names: Names, out: &mut Out<'_>, loose: bool) {
        let from = out.len();
        let mut rest = 0;
        for value in values {
            let before = out.len();
            if conversion.single && before > from {
                rest += 1;
                continue;
            }
            let (mark, part) = (self.noted(|t| t.next_value()), part_of(&value));
            match value {
                Value::Node(node) => out.push(names.name(), node.1),
                // What a function made is taken, not copied: it may be a large document.
                Value::Text(Cow::Owned(text)) if self.trace.is_none() && matches!(conversion.join, Join::Text) && is_plain(&text) => {
                    if !is_blank(&text) {
                        out.push(names.name(), Node::Text(text));
                    }
                }
                other => self.convert_one(&other, &conversion.join, conversion, env, names, out),
            }
            self.note(|t| match out.get_mut(before) {
                Some((name, node)) => {
                    let name = name.map_or(names.own, |n| *n);
                    mark.iter().for_each(|m| t.born(*m, part, name, node, loose));
                }
                None if !loose => t.forget_child(),
                None => {}
            });
        }
        if rest > 0 {
            self.finding("not-carried", format!("{rest} more than the one value that fits"), &conversion.place, &conversion.line);
        }
    }

    /// One value, that is no node yet, to at most one node.
    fn convert_one(&mut self, value: &Value<'m>, join: &'m Join, conversion: &'m Conversion, env: &Env<'_, 'm>, names: Names, out: &mut Out<'_>) {
        if let Value::Part(part) = value {
            self.at = Some(*part);
        }
        let node = match join {
            Join::Text => {
                let text = self.text_of(value);
                if self.trace.is_none() && is_plain(&text) {
                    if !is_blank(&text) {
                        out.push(names.name(), self.text_node(text));
                    }
                    return;
                }
                self.string(value, text, conversion)
            }
            Join::Same => match value {
                Value::Made(entry) => self.reference_node(*entry),
                Value::Fhir(json, ty) => fhir_value::node(json, *ty),
                _ => None,
            },
            Join::Found => match value {
                Value::Fhir(json, ty) => Self::found_reference(json, *ty),
                _ => None,
            },
            Join::Code => {
                let text = self.text_of(value);
                let code = without_blanks(&text);
                self.note(|t| {
                    if code != text {
                        t.step(Step::Converted("blanks were taken out of the code".to_owned()), None)
                    }
                });
                (!code.is_empty()).then(|| Node::Text(code.into_owned()))
            }
            Join::SameCodes(set) => {
                let text = self.text_of(value);
                let code = text.trim();
                if set.find(code).is_some() {
                    self.note(|t| t.step(Step::Converted(format!("the same code in {}", set.name())), None));
                    Some(Node::Text(code.to_owned()))
                } else {
                    if !code.is_empty() {
                        self.note(|t| t.step(Step::Failed(format!("the code is not in {}", set.name())), None));
                        self.finding("unmapped-code", format!("a code that is not in {}", set.name()), &conversion.place, &conversion.line);
                    }
                    None
                }
            }
            Join::Table(table) => return self.by_table(value, *table, conversion, env, names, out),
            Join::Boolean => self.boolean(value, conversion),
            Join::BooleanTable(table) => {
                let text = self.text_of(value);
                let row = self.row(*table, text.trim(), env);
                self.looked_up(*table, text.trim(), row);
                match row.map(|r| r.code.as_str()) {
                    Some("true") => Some(Node::Bool(true)),
                    Some("false") => Some(Node::Bool(false)),
                    _ => self.failed("no true or false for this code", conversion),
                }
            }
            Join::Decimal => {
                let text = self.text_of(value);
                match number(&text) {
                    Some(n) => {
                        self.note(|t| {
                            if n != text {
                                t.step(Step::Converted("written as JSON writes numbers".to_owned()), None)
                            }
                        });
                        Some(Node::Number(n))
                    }
                    None if text.trim().is_empty() => None,
                    None => self.failed("not a number", conversion),
                }
            }
            Join::Integer(least) => {
                let text = self.text_of(value);
                let whole = decimal(&text).filter(|d| d.is_integer()).and_then(|d| bigdecimal::ToPrimitive::to_i64(&d));
                match whole.filter(|n| n >= least && i32::try_from(*n).is_ok()) {
                    Some(n) => Some(Node::Number(n.to_string())),
                    None if text.trim().is_empty() => None,
                    None => self.failed("not a whole number in range", conversion),
                }
            }
            Join::NumberText => Some(Node::Text(self.text_of(value).into_owned())),
            Join::Date | Join::DateTime | Join::Instant | Join::Time => self.time(value, join, conversion),
            Join::System { identifier, entity } => {
                let kind = if *identifier { self.identifier_kind(env) } else { Cow::Borrowed("") };
                let uri = self.system_uri(value, &kind, *entity);
                self.note(|t| {
                    let sent = part_of(value).map_or_else(|| self.text_of(value), |p| self.message.raw_text(p)).into_owned();
                    t.step(Step::System { sent, uri: uri.clone() }, None);
                });
                match uri {
                    Some(uri) => Some(Node::Text(uri)),
                    None if *entity => None,
                    None => {
                        self.finding("missing-authority", "no system URI for this authority or coding system", &conversion.place, &conversion.line);
                        None
                    }
                }
            }
            Join::Uri => self.uri(value, conversion),
            Join::Concept { coding, table, translate, text } => self.concept(value, *coding, table.as_ref(), *translate, *text, conversion, env),
            Join::Map { map, arguments, coded } => return self.by_map(value, *map, arguments, coded.as_ref(), conversion, env, names, out),
            Join::Reference { map, arguments, .. } => self.refer(*map, value, arguments, env),
            Join::Varies(joins) => {
                let Value::Part(part) = value else { return };
                self.depends_on_place();
                let kind = self.message.component(self.message.field(self.message.place_of(*part).0, 2), 1);
                self.note(|t| t.touch(kind));
                let kind = self.text_at(kind);
                self.note(|t| t.step(Step::Converted(format!("OBX-2 says that it is {}", kind.trim())), None));
                // A value whose type nobody named is text: nothing else can be said of it, and it must not be lost.
                let kind = if kind.trim().is_empty() { "ST" } else { kind.trim() };
                match joins.get(kind) {
                    Some((join, own)) => return self.convert_one(value, join, conversion, env, Names { own, ..names }, out),
                    None => self.failed("the type that OBX-2 names has no way here", conversion),
                }
            }
            Join::Duration => match value {
                Value::Duration(span) => Some(Node::Object(vec![
                    ("value", Node::Number(span.count.to_string())),
                    ("unit", Node::Text(span.unit.to_owned())),
                    ("system", Node::Text("http://unitsofmeasure.org".to_owned())),
                    ("code", Node::Text(span.unit.to_owned())),
                ])),
                _ => None,
            },
        };
        if let Some(node) = node {
            out.push(names.name(), node);
        }
    }

    /// A text; a large one that stands in the message stays there.
    fn text_node(&self, text: Cow<'m, str>) -> Node {
        if let Cow::Borrowed(text) = text
            && text.len() >= SharedText::BYTES_MIN
            && let Some(shared) = self.message.share(text).and_then(SharedText::new)
        {
            return Node::Shared(shared);
        }
        Node::Text(text.into_owned())
    }

    /// `unmapped: refuse`: the delivery waits until somebody adds the row.
    pub(crate) fn refuse_code(&mut self, table: &str, conversion: &Conversion) {
        self.note(|t| t.step(Step::Failed(format!("table {table} refuses codes that it does not have")), None));
        let text = format!("{} has a code that table {table} does not have, and the table refuses unknown codes; add a row", conversion.place);
        self.halt("unmapped-code", text, vec![conversion.place.to_string()], &conversion.line);
    }

    pub(crate) fn failed(&mut self, what: &str, conversion: &Conversion) -> Option<Node> {
        if self.route.refuse_invalid {
            self.halt("invalid", format!("{}: {what}", conversion.place), vec![conversion.place.to_string()], &conversion.line);
        }
        self.note(|t| t.step(Step::Failed(what.to_owned()), None));
        self.finding("conversion", what.to_owned(), &conversion.place, &conversion.line);
        None
    }

    /// Text as FHIR allows it: no control characters but tab and line ends, and never empty.
    fn string(&mut self, value: &Value<'m>, text: Cow<'m, str>, conversion: &'m Conversion) -> Option<Node> {
        if text.trim().is_empty() {
            return None;
        }
        let forbidden = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
        if text.contains(forbidden) {
            self.note(|t| t.step(Step::Converted("control characters were left out".to_owned()), None));
            self.finding("conversion", "control characters that FHIR does not allow were left out", &conversion.place, &conversion.line);
            return Some(Node::Text(text.chars().filter(|c| !forbidden(*c)).collect()));
        }
        self.note(|t| {
            let escaped = part_of(value).is_some_and(|p| self.message.raw(self.leaf(p)).contains(&self.message.delimiters().escape.unwrap_or(b'\\')));
            if escaped {
                t.step(Step::Converted("escape sequences were resolved".to_owned()), None);
            }
        });
        Some(Node::Text(text.into_owned()))
    }

    fn boolean(&mut self, value: &Value<'m>, conversion: &'m Conversion) -> Option<Node> {
        if let Value::Bool(b) = value {
            return Some(Node::Bool(*b));
        }
        match self.text_of(value).trim() {
            "" => None,
            yes @ ("Y" | "y" | "N" | "n") => {
                let yes = yes.eq_ignore_ascii_case("Y");
                self.note(|t| t.step(Step::Converted(format!("table 0136: {yes}")), None));
                Some(Node::Bool(yes))
            }
            _ => self.failed("neither Y nor N (table 0136)", conversion),
        }
    }

    fn time(&mut self, value: &Value<'m>, join: &Join, conversion: &'m Conversion) -> Option<Node> {
        let text = self.text_of(value);
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        if let Join::Time = join {
            let clock =
                crate::hl7v2::ClockTime::read(text).map(|c| c.fhir_time()).or_else(|| Moment::read(text).filter(Moment::has_time).map(|m| m.clock.fhir_time()));
            return match clock {
                Some(time) => Some(Node::Text(time)),
                None => self.failed("not a time", conversion),
            };
        }
        let Some(moment) = Moment::read(text).filter(|m| m.year > 0) else { return self.failed("not a date or time", conversion) };
        match join {
            Join::Date => {
                self.note(|t| {
                    if moment.has_time() {
                        t.step(Step::Converted("to a date: the time of day is left out".to_owned()), None)
                    }
                });
                Some(Node::Text(moment.fhir_date()))
            }
            Join::DateTime => {
                let offset = if moment.has_time() { Some(self.offset_for(&moment)) } else { None };
                Some(Node::Text(moment.fhir_datetime(offset)))
            }
            _ => {
                let offset = self.offset_for(&moment);
                // Senders write SCH-11.4 to the minute, and an Appointment without a start is invalid (app-3): zero seconds, as in a dateTime.
                if moment.precision >= Precision::Minute {
                    Some(Node::Text(moment.fhir_datetime(Some(offset))))
                } else {
                    self.failed("an instant needs at least minutes", conversion)
                }
            }
        }
    }

    fn uri(&mut self, value: &Value<'m>, conversion: &'m Conversion) -> Option<Node> {
        let text = self.text_of(value);
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        if text.contains(char::is_whitespace) {
            return self.failed("not a URI", conversion);
        }
        Some(Node::Text(text.to_owned()))
    }

    /// CX.5 of the identifier whose map is running.
    fn identifier_kind(&self, env: &Env<'_, 'm>) -> Cow<'m, str> {
        let Some(part) = env.part(0) else { return Cow::Borrowed("") };
        let kind = self.down(part, 5);
        self.note(|t| t.touch(kind));
        if self.message.is_valued(kind) { trimmed(self.text_at(self.leaf(kind))) } else { Cow::Borrowed("") }
    }
}

fn part_of(value: &Value<'_>) -> Option<Part> {
    if let Value::Part(part) = value { Some(*part) } else { None }
}

/// NM as a JSON number: as written, where JSON allows it (`1.50` stays), else with the zeros that it asks for.
fn number(text: &str) -> Option<String> {
    if !is_decimal(text) {
        return None;
    }
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}
