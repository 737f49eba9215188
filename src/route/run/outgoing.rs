//! Values of a message that is being written: expressions and bodies become pieces without delimiters.

use crate::hl7v2::{DraftSegment, Level, Piece};
use crate::route::code::{Row, X};
use crate::route::outgoing::{OutJoin, SegmentBody, SegmentSource, V2MapBody, ValueBody, ValueItem, ValueLine};
use crate::route::run::value::{Value, Values};
use crate::route::run::{Env, Run};
use std::borrow::Cow;

/// What a right side made.
#[derive(Default)]
pub(crate) struct Pieces {
    pub(crate) pieces: Vec<Piece>,
    /// Did the message contribute?
    pub(crate) alive: bool,
}

impl<'m> Run<'m> {
    /// Values that a v2 field wants: what needs a conversion gets it.
    pub(crate) fn out(&mut self, inner: &'m X, join: &'m OutJoin, env: &Env<'_, 'm>) -> Values<'m> {
        let values = self.eval(inner, env);
        let mut out = Values { alive: values.alive, ..Values::none() };
        for value in values {
            match join {
                OutJoin::Date => {
                    let text = self.text_of(&value);
                    let day = text.trim().chars().take(8).collect();
                    out.push(Value::Text(Cow::Owned(day)));
                }
                OutJoin::YesNo => {
                    let word = if matches!(value, Value::Bool(true)) { "Y" } else { "N" };
                    out.push(Value::Text(Cow::Borrowed(word)));
                }
                OutJoin::Coded => match value {
                    Value::Row(row) => out.push(Value::Piece(Box::new(coded(&row)))),
                    other => out.push(other),
                },
                OutJoin::Map(map, arguments) => {
                    let Some(V2MapBody::Value(body)) = self.code.v2_maps.get(*map).map(|m| &m.body) else { continue };
                    let inner = Env::map(Some(value), arguments, Some(env));
                    let made = self.value_body(body, &inner);
                    for piece in made.pieces {
                        out.push(Value::Piece(Box::new(piece)));
                    }
                }
            }
        }
        out
    }

    /// One value as it will be written; nothing for what has no v2 form.
    pub(crate) fn piece_of(&mut self, value: Value<'m>) -> Option<Piece> {
        match value {
            Value::Part(part, _) => Some(self.message.draft_piece(part, &self.coding)),
            Value::Piece(piece) => Some(*piece),
            Value::Null => Some(Piece::Null),
            Value::Segment(_) | Value::Node(_) | Value::Made(_) => None,
            Value::Sn(sn) => Some(Piece::Parts(sn.iter().map(|t| Piece::Text(t.clone())).collect())),
            Value::Bool(b) => Some(Piece::Text(if b { "Y" } else { "N" }.to_owned())),
            other => {
                let text = self.text_of(&other).into_owned();
                (!text.is_empty()).then_some(Piece::Text(text))
            }
        }
    }

    pub(crate) fn value_item(&mut self, item: &'m ValueItem, env: &Env<'_, 'm>) -> Pieces {
        match item {
            ValueItem::Nothing => Pieces::default(),
            ValueItem::X(x) => {
                let values = self.eval(x, env);
                let mut made = Pieces { alive: values.alive, pieces: Vec::new() };
                for value in values {
                    made.pieces.extend(self.piece_of(value).filter(|p| !p.is_empty()));
                }
                // The sender's "" is carried on.
                if made.pieces.is_empty() && self.is_deleted(x, env) {
                    return Pieces { alive: true, pieces: vec![Piece::Null] };
                }
                made.alive &= !made.pieces.is_empty();
                made
            }
            ValueItem::List(items) => {
                let mut made = Pieces::default();
                for item in items {
                    let more = self.value_item(item, env);
                    made.alive |= more.alive;
                    made.pieces.extend(more.pieces);
                }
                made
            }
            ValueItem::Body(body) => self.value_body(body, env),
        }
    }

    /// Makes what the body says, once per value of `$each` and `$from`.
    pub(crate) fn value_body(&mut self, body: &'m ValueBody, env: &Env<'_, 'm>) -> Pieces {
        let Some(each) = &body.each else { return self.value_once(body, env) };
        let mut made = Pieces::default();
        for value in self.eval(each, env) {
            let before = env.set(body.slot, Some(value));
            let more = self.value_once(body, env);
            made.alive |= more.alive;
            made.pieces.extend(more.pieces);
            env.set(body.slot, before);
        }
        made
    }

    fn value_once(&mut self, body: &'m ValueBody, env: &Env<'_, 'm>) -> Pieces {
        if let Some(when) = &body.when
            && !self.holds(when, env)
        {
            return Pieces::default();
        }
        for item in &body.first {
            let made = self.value_item(item, env);
            if !made.pieces.is_empty() {
                return made;
            }
        }
        if !body.first.is_empty() {
            return Pieces::default();
        }
        if let Some(value) = &body.value {
            return self.value_item(value, env);
        }
        let Some((values, conversion)) = &body.from else {
            let forced = matches!(body.when, Some(X::Bool(true)));
            let mut piece = Piece::empty();
            let alive = self.value_lines(&body.lines, env, &mut piece);
            let made = (alive || body.constant || forced) && !piece.is_empty();
            return Pieces { alive: made && (alive || forced), pieces: if made { vec![piece] } else { Vec::new() } };
        };
        let mut made = Pieces::default();
        for value in self.eval(values, env) {
            let before = env.set(body.from_slot, Some(value));
            for converted in self.eval(conversion, env) {
                let Some(mut piece) = self.piece_of(converted) else { continue };
                self.value_lines(&body.lines, env, &mut piece);
                made.pieces.push(piece);
                made.alive = true;
            }
            env.set(body.from_slot, before);
        }
        if made.pieces.is_empty() && self.is_deleted(values, env) {
            return Pieces { alive: true, pieces: vec![Piece::Null] };
        }
        made
    }

    /// Lines of a composite; true if the message contributed.
    fn value_lines(&mut self, lines: &'m [ValueLine], env: &Env<'_, 'm>, piece: &mut Piece) -> bool {
        let mut alive = false;
        for line in lines {
            if matches!(line.item, ValueItem::Nothing) {
                piece.set(&line.at, Piece::empty(), &self.coding.delimiters);
                continue;
            }
            let made = self.value_item(&line.item, env);
            self.too_many(line, made.pieces.len());
            if let Some(value) = made.pieces.into_iter().next() {
                alive |= made.alive;
                piece.set(&line.at, value, &self.coding.delimiters);
            }
        }
        alive
    }

    fn too_many(&mut self, line: &'m ValueLine, count: usize) {
        if count > 1 {
            self.finding("not-carried", format!("{} more than the one value that fits", count - 1), &line.place, &line.line);
        }
    }

    /// Lines of a segment; true if the message contributed.
    pub(crate) fn field_lines(&mut self, lines: &'m [ValueLine], env: &Env<'_, 'm>, segment: &mut DraftSegment) -> bool {
        let delimiters = self.coding.delimiters;
        let mut alive = false;
        for line in lines {
            let Some((field, rest)) = line.at.split_first() else { continue };
            let nothing = matches!(line.item, ValueItem::Nothing);
            let mut made = if nothing { Pieces::default() } else { self.value_item(&line.item, env) };
            if made.pieces.is_empty() && !nothing {
                continue;
            }
            alive |= made.alive;
            if !line.repeats {
                self.too_many(line, made.pieces.len());
                made.pieces.truncate(1);
            }
            if rest.is_empty() {
                let mut repetitions = if line.append { segment.repetitions(*field, &delimiters) } else { Vec::new() };
                repetitions.extend(made.pieces);
                segment.set(*field, repetitions);
                continue;
            }
            let value = made.pieces.into_iter().next().unwrap_or(Piece::empty());
            let mut repetitions = segment.repetitions(*field, &delimiters);
            if repetitions.is_empty() {
                repetitions.push(Piece::empty());
            }
            repetitions.iter_mut().for_each(|r| r.set(rest, value.clone(), &delimiters));
            segment.set(*field, repetitions);
        }
        alive
    }

    /// Whole segments from values: as they are, or by a map. Each with the segment of the message that it stands for.
    pub(crate) fn segments_from(&mut self, source: &'m SegmentSource, name: &'static str, env: &Env<'_, 'm>) -> Vec<(Option<u32>, DraftSegment)> {
        let mut made = Vec::new();
        for value in self.eval(&source.values, env) {
            let origin = if let Value::Segment(n) = value { Some(n) } else { None };
            match &source.map {
                Some((map, arguments)) => {
                    let Some(V2MapBody::Segment(body)) = self.code.v2_maps.get(*map).map(|m| &m.body) else { continue };
                    let inner = Env::map(Some(value), arguments, Some(env));
                    let segments = self.new_segments(body, &inner);
                    made.extend(segments.into_iter().map(|s| (origin, s)));
                }
                None => made.extend(origin.map(|n| (origin, self.message.draft_segment(n as usize, &self.coding)))),
            }
        }
        made.retain(|(_, segment)| segment.name().eq_ignore_ascii_case(name));
        made
    }

    /// New segments that a body makes.
    pub(crate) fn new_segments(&mut self, body: &'m SegmentBody, env: &Env<'_, 'm>) -> Vec<DraftSegment> {
        let mut made = Vec::new();
        let values: Vec<Option<Value<'m>>> = match &body.each {
            Some(each) => self.eval(each, env).into_iter().map(Some).collect(),
            None => vec![None],
        };
        for value in values {
            let before = body.each.is_some().then(|| env.set(body.slot, value));
            self.new_segment(body, env, &mut made);
            if let Some(before) = before {
                env.set(body.slot, before);
            }
        }
        made
    }

    fn new_segment(&mut self, body: &'m SegmentBody, env: &Env<'_, 'm>, made: &mut Vec<DraftSegment>) {
        if let Some(when) = &body.when
            && !self.holds(when, env)
        {
            return;
        }
        if let Some(from) = &body.from {
            for (origin, mut segment) in self.segments_from(from, body.name, env) {
                let before = env.set(body.from_slot, origin.map(Value::Segment));
                self.field_lines(&body.lines, env, &mut segment);
                env.set(body.from_slot, before);
                made.push(segment);
            }
            return;
        }
        let mut segment = DraftSegment::new(body.name);
        let alive = self.field_lines(&body.lines, env, &mut segment);
        let forced = matches!(body.when, Some(X::Bool(true)));
        if (alive || body.constant || forced) && !segment.is_empty() {
            made.push(segment);
        }
    }
}

/// A row as a coded value: code, text, coding system by its name in HL7's table 0396 where a URI stands in the row.
fn coded(row: &Row) -> Piece {
    let text = |t: Option<&str>| t.map_or(Piece::empty(), |t| Piece::Text(t.to_owned()));
    let system = row.system.as_deref().and_then(|s| match s {
        "http://loinc.org" => Some("LN"),
        "http://snomed.info/sct" => Some("SCT"),
        "http://unitsofmeasure.org" => Some("UCUM"),
        uri if uri.contains(':') => None,
        name => Some(name),
    });
    Piece::Parts(vec![Piece::Text(row.code.clone()), text(row.display.as_deref()), text(system)])
}

/// Where a value stands among the places that tell drafts apart.
pub(crate) fn place(value: Option<&Value<'_>>, n: usize) -> String {
    match value {
        None => String::new(),
        Some(Value::Segment(segment)) => segment.to_string(),
        Some(Value::Part(part, at)) => format!("{}.{}.{}.{}", at.segment, at.field, part.start, if part.level == Level::Field { 0 } else { 1 }),
        Some(_) => format!("n{n}"),
    }
}
