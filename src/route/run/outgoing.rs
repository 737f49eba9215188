//! Values of a message that is being written: expressions and bodies become pieces without delimiters.

use crate::hl7v2::{DraftSegment, Level, Message, Part, Piece};
use crate::route::code::{Row, UnmappedX, X};
use crate::route::lineage::Spot;
use crate::route::outgoing::{OutJoin, OutTable, SegmentBody, SegmentSource, V2Map, V2MapBody, ValueBody, ValueItem, ValueLine};
use crate::route::run::trace::Source;
use crate::route::run::value::{Value, Values};
use crate::route::run::{Env, Run};
use std::borrow::Cow;
use std::sync::Arc;

/// What a right side made.
#[derive(Default)]
pub(crate) struct Pieces {
    pub(crate) pieces: Vec<Piece>,
    /// Did the message contribute?
    pub(crate) alive: bool,
    /// How each came about, when somebody asks.
    pub(crate) sources: Vec<Source>,
    /// A table drops the code: what is there goes.
    pub(crate) emptied: bool,
}

impl Pieces {
    fn extend(&mut self, more: Pieces) {
        self.alive |= more.alive;
        self.pieces.extend(more.pieces);
        self.sources.extend(more.sources);
    }
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
                OutJoin::Authority => {
                    let uri = self.text_of(&value).trim().to_owned();
                    if !uri.is_empty() {
                        out.push(Value::Piece(Box::new(self.authority(&uri))));
                    }
                }
                OutJoin::Table(by) => self.out_table(value, by, env, &mut out),
                OutJoin::Coded => match value {
                    Value::Row(row) => out.push(Value::Piece(Box::new(coded(&row)))),
                    other => out.push(other),
                },
                OutJoin::Map(map, arguments) => {
                    let Some(V2Map { head, body: V2MapBody::Value(body) }) = self.code.v2_maps.get(*map) else { continue };
                    let part = part_of(&value);
                    let inner = Env::map(Some(value), arguments, Some(env));
                    let mark = self.noted(|t| t.mark());
                    self.note(|t| t.enter(head));
                    let made = self.value_body(body, &inner);
                    self.note(|t| {
                        t.leave();
                        mark.iter().for_each(|m| t.forget_steps(*m));
                    });
                    let mut sources = made.sources.into_iter();
                    for piece in made.pieces {
                        self.note(|t| t.loose_piece(&piece, sources.next(), part));
                        out.push(Value::Piece(Box::new(piece)));
                    }
                }
            }
        }
        out
    }

    /// A `$let` with a body.
    pub(crate) fn out_body(&mut self, body: &'m ValueBody, env: &Env<'_, 'm>) -> Values<'m> {
        let made = self.value_body(body, env);
        let mut values = Values { alive: made.alive, ..Values::none() };
        let mut sources = made.sources.into_iter();
        for piece in made.pieces {
            self.note(|t| t.loose_piece(&piece, sources.next(), None));
            values.push(Value::Piece(Box::new(piece)));
        }
        values
    }

    /// A code by a table; without a row, what `unmapped:` says.
    fn out_table(&mut self, value: Value<'m>, by: &'m OutTable, env: &Env<'_, 'm>, out: &mut Values<'m>) {
        let (mark, part) = (self.noted(|t| t.mark()), part_of(&value));
        let text = self.text_of(&value).trim().to_owned();
        if text.is_empty() {
            return;
        }
        let row = self.row(by.table, &text, env);
        self.looked_up(by.table, &text, row);
        let Some(table) = self.code.tables.get(by.table) else { return };
        if row.is_none() && (by.undecided || !matches!(table.unmapped, UnmappedX::Keep)) {
            self.not_known(Some(&table.name), &text, by.place);
            self.finding("unmapped-code", format!("a code that table {} does not have", table.name), by.place, &by.line);
        }
        let of_row = |row: &Row| if by.coded { coded(row) } else { Piece::Text(row.code.clone()) };
        let piece = match (row, &table.unmapped) {
            (Some(row), _) => Some(of_row(row)),
            (None, UnmappedX::Refuse) => {
                let what = format!("{} has a code that table {} does not have, and the table refuses unknown codes; add a row", by.place, table.name);
                self.halt("unmapped-code", what, vec![by.place.to_owned()], &by.line);
                None
            }
            (None, _) if by.undecided => None,
            (None, UnmappedX::Keep) if by.coded => self.piece_of(value),
            (None, UnmappedX::Text) if by.coded => Some(Piece::Parts(vec![Piece::empty(), Piece::Text(text)])),
            (None, UnmappedX::Keep | UnmappedX::Text) => Some(Piece::Text(text)),
            (None, UnmappedX::Code(row)) => Some(of_row(row)),
            // Nothing: also where the copied field has the sender's code.
            (None, UnmappedX::Drop | UnmappedX::Absent) => Some(Piece::empty()),
        };
        let Some(piece) = piece else { return };
        self.note(|t| {
            let source = mark.map(|m| t.source(m, None, &piece));
            t.loose_piece(&piece, source, part);
            mark.iter().for_each(|m| t.forget_steps(*m));
        });
        out.push(Value::Piece(Box::new(piece)));
    }

    /// One value as it will be written; nothing for what has no v2 form.
    pub(crate) fn piece_of(&mut self, value: Value<'m>) -> Option<Piece> {
        match value {
            Value::Part(part) => {
                self.lossy |= !self.message.fits(self.message.raw(part), &self.coding);
                Some(self.message.draft_piece(part, &self.coding))
            }
            Value::Piece(piece) => Some(*piece),
            Value::Null => Some(Piece::Null),
            Value::Fhir(json, ty) => self.fhir_piece(json, ty),
            Value::Segment(_) | Value::Node(_) | Value::Made(_) => None,
            Value::Sn(sn) => Some(Piece::Parts(sn.iter().map(|t| Piece::Text(t.clone().into_owned())).collect())),
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
            // Of several repetitions that a route writes out, empty ones keep their place: `"~^^^^^^S"`.
            ValueItem::X(X::OutConstant(pieces)) if pieces.len() > 1 => {
                let mark = self.noted(|t| t.mark());
                let sources = pieces.iter().filter_map(|piece| mark.and_then(|m| self.noted(|t| t.source(m, None, piece)))).collect();
                Pieces { alive: false, pieces: pieces.to_vec(), sources, emptied: false }
            }
            ValueItem::X(x) => {
                let mark = self.noted(|t| t.mark());
                let values = self.eval(x, env);
                self.note(|t| mark.iter().for_each(|m| t.evaluated(*m, values.len())));
                let mut made = Pieces { alive: values.alive, ..Pieces::default() };
                for value in values {
                    self.put(value, &mut made);
                }
                self.note(|t| t.converted());
                // The sender's "" is carried on.
                if made.pieces.is_empty() && self.is_deleted(x, env) {
                    return self.null();
                }
                made.emptied &= made.pieces.is_empty();
                made.alive &= !made.pieces.is_empty();
                made
            }
            ValueItem::List(items) => {
                let mut made = Pieces::default();
                for item in items {
                    let mark = self.noted(|t| t.mark());
                    made.extend(self.value_item(item, env));
                    self.note(|t| mark.iter().for_each(|m| t.forget_steps(*m)));
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
            let mark = self.noted(|t| t.mark());
            let before = env.set(body.slot, Some(value));
            made.extend(self.value_once(body, env));
            env.set(body.slot, before);
            self.note(|t| mark.iter().for_each(|m| t.forget_steps(*m)));
        }
        made
    }

    /// A value is put into place; nothing for what has no v2 form.
    fn put(&mut self, value: Value<'m>, made: &mut Pieces) {
        let (since, part) = (self.noted(|t| t.next_value()), part_of(&value));
        self.note(|t| part.iter().for_each(|p| t.read(*p)));
        let Some(piece) = self.piece_of(value) else { return };
        if piece.is_empty() {
            made.emptied = true;
            return;
        }
        made.sources.extend(since.and_then(|s| self.noted(|t| t.source(s, part, &piece))));
        made.pieces.push(piece);
    }

    /// `""`, as the sender wrote it.
    fn null(&mut self) -> Pieces {
        let source = self.noted(|t| {
            let mark = t.mark();
            t.source(mark, None, &Piece::Null)
        });
        Pieces { alive: true, pieces: vec![Piece::Null], sources: source.into_iter().collect(), emptied: false }
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
            let mut source = self.noted(|t| t.frame());
            let alive = self.value_lines(&body.lines, env, &mut piece, source.as_mut());
            if !(alive || body.constant || forced) || piece.is_empty() {
                return Pieces::default();
            }
            return Pieces { alive: alive || forced, pieces: vec![piece], sources: source.into_iter().collect(), emptied: false };
        };
        let mut made = Pieces::default();
        let mark = self.noted(|t| t.mark());
        let current = self.eval(values, env);
        self.note(|t| mark.iter().for_each(|m| t.evaluated(*m, current.len())));
        for value in current {
            let mark = self.noted(|t| t.mark());
            let before = env.set(body.from_slot, Some(value));
            for converted in self.eval(conversion, env) {
                let mut base = Pieces::default();
                self.put(converted, &mut base);
                for mut piece in base.pieces {
                    self.value_lines(&body.lines, env, &mut piece, base.sources.first_mut());
                    made.pieces.push(piece);
                    made.alive = true;
                }
                made.sources.append(&mut base.sources);
            }
            env.set(body.from_slot, before);
            self.note(|t| mark.iter().for_each(|m| t.forget_steps(*m)));
        }
        self.note(|t| t.converted());
        if made.pieces.is_empty() && self.is_deleted(values, env) {
            return self.null();
        }
        made
    }

    /// Lines of a composite; true if the message contributed.
    fn value_lines(&mut self, lines: &'m [ValueLine], env: &Env<'_, 'm>, piece: &mut Piece, mut source: Option<&mut Source>) -> bool {
        let mut alive = false;
        for line in lines {
            if matches!(line.item, ValueItem::Nothing) {
                piece.set(&line.at, Piece::empty(), &self.coding.delimiters);
                source.iter_mut().for_each(|s| s.put(&line.at, None));
                continue;
            }
            self.note(|t| t.open_at(line.spot(), line.place));
            let made = self.value_item(&line.item, env);
            self.note(|t| t.close_at(made.pieces.len()));
            self.too_many(line, made.pieces.len());
            if made.emptied {
                piece.set(&line.at, Piece::empty(), &self.coding.delimiters);
                source.iter_mut().for_each(|s| s.put(&line.at, None));
            }
            if let Some(value) = made.pieces.into_iter().next() {
                alive |= made.alive;
                piece.set(&line.at, value, &self.coding.delimiters);
                if let (Some(source), Some(put)) = (&mut source, made.sources.into_iter().next()) {
                    source.put(&line.at, Some(put));
                }
            }
        }
        alive
    }

    fn too_many(&mut self, line: &'m ValueLine, count: usize) {
        if count > 1 {
            self.finding("not-carried", format!("{} more than the one value that fits", count - 1), line.place, &line.line);
        }
    }

    /// Lines of a segment; true if the message contributed.
    pub(crate) fn field_lines(&mut self, lines: &'m [ValueLine], env: &Env<'_, 'm>, segment: &mut DraftSegment) -> bool {
        let delimiters = self.coding.delimiters;
        let mut alive = false;
        for line in lines {
            let Some((field, rest)) = line.at.split_first() else { continue };
            let mut nothing = matches!(line.item, ValueItem::Nothing);
            self.note(|t| t.open_at(line.spot(), line.place));
            let mut made = if nothing { Pieces::default() } else { self.value_item(&line.item, env) };
            nothing |= made.emptied && !line.append;
            let sources = std::mem::take(&mut made.sources);
            self.note(|t| {
                if nothing || !made.pieces.is_empty() {
                    t.put_field(segment.tag(), &line.at, line.append, sources, self.message);
                }
                t.close_at(made.pieces.len());
            });
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
                    let Some(V2Map { head, body: V2MapBody::Segment(body) }) = self.code.v2_maps.get(*map) else { continue };
                    let inner = Env::map(Some(value), arguments, Some(env));
                    let frame = self.noted(|t| t.frame());
                    self.note(|t| t.enter(head));
                    let segments = self.new_segments(body, &inner);
                    self.note(|t| {
                        t.leave();
                        segments.iter().for_each(|(_, s)| frame.iter().for_each(|f| t.made_by(s.tag(), f)));
                    });
                    made.extend(segments.into_iter().map(|(_, s)| (origin, s)));
                }
                None => made.extend(origin.map(|n| (origin, self.copied(n, None)))),
            }
        }
        made.retain(|(_, segment)| segment.name().eq_ignore_ascii_case(name));
        made
    }

    /// A segment of the message for the one that is made; `spot` is the place of what says so, if it is not the line under way.
    pub(crate) fn copied(&mut self, segment: u32, spot: Option<&Source>) -> DraftSegment {
        self.lossy |= !self.message.fits(self.message.segment_bytes(segment as usize), &self.coding);
        let mut draft = self.message.draft_segment(segment as usize, &self.coding);
        self.note(|t| {
            let made = spot.cloned().unwrap_or_else(|| t.frame());
            draft.set_tag(t.segment(Some(segment), made));
        });
        draft
    }

    /// New segments that a body makes.
    pub(crate) fn new_segments(&mut self, body: &'m SegmentBody, env: &Env<'_, 'm>) -> Vec<(Option<u32>, DraftSegment)> {
        let mut made = Vec::new();
        let values: Vec<Option<Value<'m>>> = match &body.each {
            Some(each) => self.eval(each, env).into_iter().map(Some).collect(),
            None => vec![None],
        };
        for value in values {
            let mark = self.noted(|t| t.mark());
            let before = body.each.is_some().then(|| env.set(body.slot, value));
            let from = made.len();
            self.new_segment(body, env, &mut made);
            // What is made of each of a kind of segments stands in its place.
            let each = body.each.as_ref().and_then(|_| env.segment(body.slot, self.message));
            if let Some(origin) = each.filter(|n| self.message.is_segment(*n as usize, body.name)) {
                made.iter_mut().skip(from).filter(|(o, _)| o.is_none()).for_each(|(o, _)| *o = Some(origin));
            }
            if let Some(before) = before {
                env.set(body.slot, before);
            }
            self.note(|t| mark.iter().for_each(|m| t.forget_steps(*m)));
        }
        made
    }

    fn new_segment(&mut self, body: &'m SegmentBody, env: &Env<'_, 'm>, made: &mut Vec<(Option<u32>, DraftSegment)>) {
        if let Some(when) = &body.when
            && !self.holds(when, env)
        {
            return;
        }
        if let Some(value) = &body.value {
            made.extend(self.segments_from(value, body.name, env));
            return;
        }
        for item in &body.first {
            let mut found = Vec::new();
            self.whole_segments(item, body.name, env, &mut found);
            if !found.is_empty() {
                made.append(&mut found);
                return;
            }
        }
        if !body.first.is_empty() {
            return;
        }
        if let Some(from) = &body.from {
            for (origin, mut segment) in self.segments_from(from, body.name, env) {
                let before = env.set(body.from_slot, origin.map(Value::Segment));
                self.field_lines(&body.lines, env, &mut segment);
                env.set(body.from_slot, before);
                made.push((origin, segment));
            }
            return;
        }
        let mut segment = DraftSegment::new(body.name);
        self.note(|t| {
            let made = t.frame();
            segment.set_tag(t.segment(None, made));
        });
        let alive = self.field_lines(&body.lines, env, &mut segment);
        let forced = matches!(body.when, Some(X::Bool(true)));
        if (alive || body.constant || forced) && !segment.is_empty() {
            made.push((None, segment));
        }
    }
}

fn part_of(value: &Value<'_>) -> Option<Part> {
    if let Value::Part(part) = value { Some(*part) } else { None }
}

impl ValueLine {
    fn spot(&self) -> Spot {
        Spot { line: Arc::clone(&self.line), column: self.column }
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
pub(crate) fn place(message: &Message, value: Option<&Value<'_>>, n: usize) -> String {
    match value {
        None => String::new(),
        Some(Value::Segment(segment)) => segment.to_string(),
        Some(Value::Part(part)) => {
            let (segment, field) = message.place_of(*part);
            format!("{segment}.{field}.{}.{}", part.start, if part.level == Level::Field { 0 } else { 1 })
        }
        Some(_) => format!("n{n}"),
    }
}
