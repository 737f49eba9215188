//! The functions of section 7, each total.

use crate::fhir::is_ucum;
use crate::hl7v2::{Level, Part, Piece};
use crate::route::code::{Function, X};
use crate::route::decimal::{Decimal, decimal, is_decimal};
use crate::route::lineage::Step;
use crate::route::run::moment;
use crate::route::run::value::{Value, Values};
use crate::route::run::{Env, Run};
use base64::Engine;
use bigdecimal::ToPrimitive;
use std::borrow::Cow;
use std::rc::Rc;

impl<'m> Run<'m> {
    pub(crate) fn call(&mut self, function: &'m Function, arguments: &'m [X], env: &Env<'_, 'm>) -> Values<'m> {
        let argument = |n: usize| arguments.get(n).unwrap_or(&X::Nothing);
        match function {
            Function::Count => {
                let values = self.eval(argument(0), env);
                let n = values.len();
                self.note(|t| {
                    for value in values {
                        if let Value::Part(part) = value {
                            t.touch(part);
                        }
                    }
                });
                Values::one(Value::Whole(n as i64))
            }
            Function::Length => {
                let values = self.eval(argument(0), env);
                let n = values.as_slice().first().map_or(0, |v| self.text_of(v).chars().count());
                Values::one(Value::Whole(n as i64))
            }
            Function::First => {
                let values = self.eval(argument(0), env);
                let alive = values.alive;
                Values::option(values.first(), alive)
            }
            Function::Last => {
                let values = self.eval(argument(0), env);
                let alive = values.alive;
                Values::option(values.last(), alive)
            }
            Function::Distinct => {
                let values = self.eval(argument(0), env);
                let mut seen: Vec<String> = Vec::new();
                let mut kept = Values { alive: values.alive, ..Values::none() };
                for value in values {
                    let text = self.raw_of(&value).into_owned();
                    if !seen.contains(&text) {
                        seen.push(text);
                        kept.push(value);
                    }
                }
                kept
            }
            Function::Join => self.join_texts(arguments, env),
            Function::Text(datatype) => {
                let values = self.eval(argument(0), env);
                let mut out = Values { alive: values.alive, ..Values::none() };
                for value in values {
                    let text = self.readable(&value, *datatype);
                    if !text.is_empty() {
                        out.push(Value::Text(text));
                    }
                }
                out
            }
            Function::Raw if arguments.is_empty() => {
                self.note(|t| (0..self.message.segment_count()).for_each(|n| t.read(self.whole(n))));
                Values::one(Value::Text(String::from_utf8_lossy(self.message.bytes())))
            }
            Function::Raw => {
                let values = self.eval(argument(0), env);
                let mut out = Values { alive: values.alive, ..Values::none() };
                for value in values {
                    let text = self.raw_of(&value);
                    out.push(Value::Text(text));
                }
                out
            }
            Function::Trim => self.each_text(argument(0), env, |t| t.trim().to_owned()),
            Function::Ucum => self.ucum(argument(0), env),
            Function::Upper => self.each_text(argument(0), env, str::to_uppercase),
            Function::Lower => self.each_text(argument(0), env, str::to_lowercase),
            Function::Digits => self.each_text(argument(0), env, |t| t.chars().filter(char::is_ascii_digit).collect()),
            Function::Replace => {
                let old = self.one_text(argument(1), env);
                let new = self.one_text(argument(2), env);
                self.each_text(argument(0), env, |t| if old.is_empty() { t.to_owned() } else { t.replace(&*old, &new) })
            }
            Function::Pad => {
                let width = self.one_number(argument(1), env).unwrap_or(0).min(MOST_PADDING);
                let fill = self.one_text(argument(2), env).chars().next().unwrap_or(' ');
                self.each_text(argument(0), env, |t| {
                    let missing = width.saturating_sub(t.chars().count());
                    std::iter::repeat_n(fill, missing).chain(t.chars()).collect()
                })
            }
            Function::Substring => {
                let start = self.one_number(argument(1), env).unwrap_or(1).max(1);
                let length = self.one_number(argument(2), env).unwrap_or(0);
                self.each_text(argument(0), env, |t| t.chars().skip(start - 1).take(length).collect())
            }
            Function::Before => {
                let separator = self.one_text(argument(1), env);
                self.each_text(argument(0), env, |t| t.split_once(&*separator).map_or(t, |(b, _)| b).to_owned())
            }
            Function::After => {
                let separator = self.one_text(argument(1), env);
                self.each_text(argument(0), env, |t| t.split_once(&*separator).map_or("", |(_, a)| a).to_owned())
            }
            Function::Starts => self.any_fits(arguments, env, |t, p| t.starts_with(p)),
            Function::Contains => self.any_fits(arguments, env, |t, p| t.contains(p)),
            Function::Matches(pattern) => {
                let values = self.eval(argument(0), env);
                let found = values.as_slice().iter().any(|v| pattern.is_match(&self.text_of(v)));
                Values::one(Value::Bool(found))
            }
            Function::Number => {
                let values = self.eval(argument(0), env);
                let mut out = Values { alive: values.alive, ..Values::none() };
                for value in values {
                    if let Some(n) = decimal(&self.text_of(&value)) {
                        out.push(Value::Number(Box::new(n)));
                    }
                }
                out
            }
            Function::Round => {
                let places = self.one_number(argument(1), env).unwrap_or(0).min(30);
                let values = self.eval(argument(0), env);
                let alive = values.alive;
                let number = values.first().and_then(|v| match v {
                    Value::Number(n) => Some(*n),
                    Value::Whole(n) => Some(Decimal::from(n)),
                    other => decimal(&self.text_of(&other)),
                });
                let rounded = number.map(|n| Value::Number(Box::new(n.with_scale_round(places as i64, bigdecimal::RoundingMode::HalfUp))));
                Values::option(rounded, alive)
            }
            Function::Sn => {
                let values = self.eval(argument(0), env);
                let mut out = Values { alive: values.alive, ..Values::none() };
                for value in values {
                    if let Some(sn) = structured_numeric(self.text_of(&value)) {
                        out.push(Value::Sn(Rc::new(sn)));
                    }
                }
                out
            }
            Function::Duration => {
                let number = self.eval(argument(0), env);
                let alive = number.alive;
                let number = number.first().map(|v| self.text_of(&v).trim().to_owned());
                let unit = self.one_text(argument(1), env);
                let span = number.and_then(|n| moment::span(&n, &unit));
                Values::option(span.map(|s| Value::Duration(Box::new(s))), alive)
            }
            Function::Date => self.moments(argument(0), env, |t| t.get(..t.len().min(8)).map(str::to_owned)),
            Function::Time => self.moments(argument(0), env, |t| t.get(8..).filter(|t| !t.is_empty()).map(str::to_owned)),
            Function::Received => Values::constant(Value::Moment(Cow::Owned(moment::from_timestamp(self.context.received)))),
            Function::Event => Values::option(self.event(), false),
            Function::Sender => Values::option(self.sender(), false),
            Function::Place => {
                let values = self.eval(argument(0), env);
                let mut out = Values { alive: values.alive, ..Values::none() };
                values.as_slice().iter().filter_map(|value| self.location(value)).for_each(|piece| out.push(Value::Piece(Box::new(piece))));
                out
            }
            Function::Total(n) => {
                let total = self.context.answers.found(*n).and_then(|found| found.total);
                Values::option(total.map(|total| Value::Number(Box::new(Decimal::from(total)))), true)
            }
            Function::More(n) => {
                let more = self.context.answers.found(*n).and_then(|found| found.more.as_deref());
                Values::option(more.map(|more| Value::Text(Cow::Borrowed(more))), true)
            }
            Function::Bytes => self.bytes(argument(0), argument(1), env),
            Function::Uuid => {
                let mut name = Vec::new();
                for x in arguments {
                    for value in self.eval(x, env) {
                        name.extend_from_slice(self.raw_of(&value).as_bytes());
                        name.push(0);
                    }
                }
                Values::one(Value::Text(Cow::Owned(uuid::Uuid::new_v5(&NAMESPACE, &name).to_string())))
            }
            Function::Derived => Values::constant(Value::Text(Cow::Owned(self.derived("value")))),
        }
    }

    /// A segment from its first field to its last.
    pub(crate) fn whole(&self, segment: usize) -> Part {
        let (first, last) = (self.message.field(segment, 1), self.message.field(segment, self.message.field_count(segment)));
        Part { start: first.start, end: last.end.max(first.end), level: Level::Field }
    }

    fn raw_of(&self, value: &Value<'m>) -> Cow<'m, str> {
        match value {
            Value::Part(part) => {
                self.note(|t| t.read(*part));
                self.message.raw_text(*part)
            }
            Value::Segment(n) => {
                self.note(|t| t.read(self.whole(*n as usize)));
                String::from_utf8_lossy(self.message.segment_bytes(*n as usize))
            }
            Value::Fhir(json, _) if !json.is_string() => Cow::Owned(json.to_string()),
            other => self.text_of(other),
        }
    }

    /// An ERL (chapter 2A): segment, which of that name, field, repetition, component and subcomponent, as deep as the message goes there.
    fn location(&self, value: &Value<'m>) -> Option<Piece> {
        self.depends_on_place();
        let (segment, part) = match value {
            Value::Part(part) => (self.message.place_of(*part).0, Some(*part)),
            Value::Segment(n) => (*n as usize, None),
            _ => return None,
        };
        let number = |n: u32| Piece::Text(n.to_string());
        let of_segment = self.message.address_of_segment(segment);
        let mut parts = vec![Piece::Text(of_segment.segment.clone()), number(of_segment.occurrence.unwrap_or(1))];
        if let Some(part) = part {
            let field = u16::try_from(self.message.place_of(part).1).ok()?;
            let address = self.message.address_within(of_segment, segment, field, part);
            parts.extend([number(u32::from(field)), number(address.repetition.unwrap_or(1))]);
            parts.extend([address.component, address.subcomponent].into_iter().map_while(|n| n.map(|n| number(u32::from(n)))));
        }
        Some(Piece::Parts(parts))
    }

    fn join_texts(&mut self, arguments: &'m [X], env: &Env<'_, 'm>) -> Values<'m> {
        let Some((separator, rest)) = arguments.split_first() else { return Values::none() };
        let separator = self.one_text(separator, env);
        let mut text = String::new();
        let mut any = false;
        let mut alive = false;
        for x in rest {
            let mut add = |piece: &str| {
                if piece.is_empty() {
                    return;
                }
                if any {
                    text.push_str(&separator);
                }
                any = true;
                text.push_str(piece);
            };
            if let Some(found) = self.one_part(x, env) {
                alive |= found.is_some();
                found.iter().for_each(|part| add(&self.leaf_text(*part)));
                continue;
            }
            let values = self.eval(x, env);
            alive |= values.alive && !values.is_empty();
            values.as_slice().iter().for_each(|value| add(&self.text_of(value)));
        }
        if any { Values::option(Some(Value::Text(Cow::Owned(text))), alive) } else { Values::none() }
    }

    fn each_text(&mut self, x: &'m X, env: &Env<'_, 'm>, change: impl Fn(&str) -> String) -> Values<'m> {
        let values = self.eval(x, env);
        let mut out = Values { alive: values.alive, ..Values::none() };
        for value in values {
            let text = change(&self.text_of(&value));
            if !text.is_empty() {
                out.push(Value::Text(Cow::Owned(text)));
            }
        }
        out
    }

    /// What is a unit of UCUM. Results name few units many times.
    fn ucum(&mut self, x: &'m X, env: &Env<'_, 'm>) -> Values<'m> {
        let values = self.eval(x, env);
        let mut out = Values { alive: values.alive, ..Values::none() };
        for value in values {
            let text = self.text_of(&value);
            let known = self.units.iter().find(|(unit, _)| *unit == text).map(|(_, fits)| *fits);
            let fits = known.unwrap_or_else(|| {
                let fits = is_ucum(&text);
                if self.units.len() < UNITS_MAX {
                    self.units.push((text.clone(), fits));
                }
                fits
            });
            if fits && !text.is_empty() {
                out.push(Value::Text(text));
            }
        }
        out
    }

    fn any_fits(&mut self, arguments: &'m [X], env: &Env<'_, 'm>, fits: impl Fn(&str, &str) -> bool) -> Values<'m> {
        let (Some(x), Some(pattern)) = (arguments.first(), arguments.get(1)) else { return Values::none() };
        let pattern = self.one_text(pattern, env);
        let values = self.eval(x, env);
        let found = !pattern.is_empty() && values.as_slice().iter().any(|v| fits(&self.text_of(v), &pattern));
        Values::one(Value::Bool(found))
    }

    pub(crate) fn one_text(&mut self, x: &'m X, env: &Env<'_, 'm>) -> Cow<'m, str> {
        if let X::Text(text) = x {
            return Cow::Borrowed(text);
        }
        if let Some(found) = self.one_part(x, env) {
            return found.map_or(Cow::Borrowed(""), |part| self.leaf_text(part));
        }
        let value = self.eval(x, env).first();
        value.map_or(Cow::Borrowed(""), |v| self.text_of(&v))
    }

    fn one_number(&mut self, x: &'m X, env: &Env<'_, 'm>) -> Option<usize> {
        match self.eval(x, env).first()? {
            Value::Number(n) => n.to_usize(),
            Value::Whole(n) => usize::try_from(n).ok(),
            other => self.text_of(&other).trim().parse().ok(),
        }
    }

    fn moments(&mut self, x: &'m X, env: &Env<'_, 'm>, change: impl Fn(&str) -> Option<String>) -> Values<'m> {
        let values = self.eval(x, env);
        let mut out = Values { alive: values.alive, ..Values::none() };
        for value in values {
            let text = self.text_of(&value);
            let digits = text.split(['+', '-', '.']).next().unwrap_or("");
            if let Some(changed) = change(digits) {
                out.push(Value::Moment(Cow::Owned(changed)));
            }
        }
        out
    }

    /// The trigger event: MSH-9.2, or EVN-1 where the sender leaves it out.
    pub(crate) fn event(&self) -> Option<Value<'m>> {
        let part = self.message.component(self.message.field(0, 9), 2);
        if self.message.is_valued(part) {
            return Some(Value::Part(part));
        }
        let evn = self.message.segments_named("EVN").next()?;
        let part = self.message.field(evn, 1);
        self.message.is_valued(part).then_some(Value::Part(part))
    }

    /// MSH-4, else MSH-3.
    pub(crate) fn sender(&self) -> Option<Value<'m>> {
        [4u16, 3].into_iter().find_map(|field| {
            let part = self.message.repetition(self.message.field(0, usize::from(field)), 1);
            self.message.is_valued(part).then_some(Value::Part(part))
        })
    }

    /// Table 0299 to base64: `A` is text as it is, `Hex` pairs of digits, `Base64` already is.
    fn bytes(&mut self, data: &'m X, encoding: &'m X, env: &Env<'_, 'm>) -> Values<'m> {
        let values = self.eval(data, env);
        let alive = values.alive;
        let Some(value) = values.first() else { return Values::none() };
        let text = self.text_of(&value);
        let encoding = self.one_text(encoding, env);
        let standard = base64::engine::general_purpose::STANDARD;
        let encoded = match &*encoding.to_ascii_lowercase() {
            "" | "a" => Some(standard.encode(text.as_bytes())),
            "hex" => {
                let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
                let pair = |c: &[u8]| u8::from_str_radix(std::str::from_utf8(c).ok()?, 16).ok();
                digits.chunks(2).map(pair).collect::<Option<Vec<u8>>>().map(|b| standard.encode(b))
            }
            "base64" => {
                // A document may be as large as a message may be: what is base64 already is not copied.
                let compact = if text.bytes().all(|b| b.is_ascii_graphic()) { text } else { Cow::Owned(text.chars().filter(|c| !c.is_whitespace()).collect()) };
                self.note(|t| t.step(Step::Converted("written as base64".to_owned()), None));
                return Values::option(is_base64(&compact).then_some(Value::Text(compact)), alive);
            }
            _ => None,
        };
        self.note(|t| t.step(Step::Converted("written as base64".to_owned()), None));
        Values::option(encoded.map(|e| Value::Text(Cow::Owned(e))), alive)
    }

    /// A UUID from sender, control ID, route and a place in the message: the same for the same message, whenever it comes again.
    pub(crate) fn derived(&self, place: &str) -> String {
        self.depends_on_place();
        let mut name = Vec::new();
        for field in [3usize, 4, 7, 10] {
            name.extend_from_slice(self.message.raw(self.message.field(0, field)));
            name.push(0);
        }
        // Without a control ID the content itself is what stays the same.
        if !self.message.is_valued(self.message.field(0, 10)) {
            name.extend_from_slice(blake3::hash(self.message.bytes()).as_bytes());
        }
        name.extend_from_slice(self.route_name.as_bytes());
        name.push(0);
        name.extend_from_slice(place.as_bytes());
        uuid::Uuid::new_v5(&NAMESPACE, &name).to_string()
    }
}

/// Of all UUIDs that Kiln derives from messages.
const NAMESPACE: uuid::Uuid = uuid::uuid!("7b0f9a4e-5f0d-4c63-9d39-1f6a2f7f5a52");

/// Can all of it be decoded? Piece by piece, so that it needs no room of its size.
fn is_base64(text: &str) -> bool {
    const PIECE: usize = 4096;
    let mut room = [0; PIECE];
    let mut pieces = text.as_bytes().chunks(PIECE).peekable();
    while let Some(piece) = pieces.next() {
        let padded = pieces.peek().is_some() && piece.contains(&b'=');
        if padded || base64::engine::general_purpose::STANDARD.decode_slice(piece, &mut room).is_err() {
            return false;
        }
    }
    true
}

/// So many units are remembered.
const UNITS_MAX: usize = 32;

/// `pad()` never makes a text longer than this.
const MOST_PADDING: usize = 1000;

/// `<10`, `>= 5`, `3.5 - 5.0`, `1:128`, `2+`, `12`.
fn structured_numeric(text: Cow<'_, str>) -> Option<[Cow<'_, str>; 4]> {
    match text {
        Cow::Borrowed(text) => numeric_parts(text).map(|parts| parts.map(Cow::Borrowed)),
        Cow::Owned(text) => numeric_parts(&text).map(|parts| parts.map(|part| Cow::Owned(part.to_owned()))),
    }
}

/// Comparator, first number, separator, second number.
fn numeric_parts(text: &str) -> Option<[&str; 4]> {
    let text = text.trim();
    let comparators = ["<=", ">=", "<>", "<", ">", "="];
    let comparator = comparators.into_iter().find(|c| text.starts_with(c)).unwrap_or("");
    let rest = text.get(comparator.len()..)?.trim();
    let comparator = if comparator == "=" { "" } else { comparator };
    if is_decimal(rest) {
        return Some([comparator, rest, "", ""]);
    }
    if let Some(first) = rest.strip_suffix('+').map(str::trim).filter(|t| is_decimal(t)) {
        return Some([comparator, first, "+", ""]);
    }
    for separator in ["-", ":", "/"] {
        for (at, _) in rest.match_indices(separator) {
            let (first, second) = (rest.get(..at)?.trim(), rest.get(at + separator.len()..)?.trim());
            if is_decimal(first) && is_decimal(second) {
                return Some([comparator, first, separator, second]);
            }
        }
    }
    None
}
