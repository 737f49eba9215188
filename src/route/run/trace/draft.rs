//! The recorder's notes on messages that are made: which line or copy each segment and each value of it is owed to.

use crate::hl7v2::{Charset, Level, Message, Part, Piece};
use crate::route::lineage::{Spot, Step};
use crate::route::run::trace::{LineRun, Mark, OpenLine, Trace};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a value, or a segment as a whole, came about.
#[derive(Clone)]
pub(crate) struct Source {
    /// The v2 value that the line took.
    pub(crate) part: Option<Part>,
    /// It is that value, leaf for leaf.
    whole: bool,
    reads: Vec<Part>,
    pub(crate) steps: Vec<Step>,
    pub(crate) spot: Option<Spot>,
    pub(crate) head: Arc<str>,
    /// What lines set in it afterwards, by component and subcomponent; `None` empties.
    puts: Vec<(Vec<u16>, Option<Source>)>,
    /// What a map made it of, or what stands in the line below.
    child: Option<Box<Source>>,
}

/// A segment of a message that is made.
pub(crate) struct SegmentNotes {
    /// The segment of the message that it is a copy of.
    origin: Option<u32>,
    made: Source,
    /// Fields that lines set, repetition by repetition.
    fields: BTreeMap<u16, Vec<Source>>,
}

/// A message that was made.
pub(crate) struct DraftNotes {
    pub(crate) bytes: Vec<u8>,
    /// What its letters are written in.
    pub(crate) charset: Charset,
    /// Its segments, by the tags of their drafts.
    pub(crate) tags: Vec<u32>,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Drafts {
    segments: Vec<SegmentNotes>,
    pub(crate) messages: Vec<DraftNotes>,
    /// What lines took away: the place, the line and its map.
    pub(crate) dropped: Vec<(Part, Spot, Arc<str>)>,
    /// What maps made and nobody has put anywhere yet, with the value that each was called for.
    loose: Vec<(Piece, Source, Option<Part>)>,
    /// Conditions around the lines under way.
    around: Vec<Source>,
}

impl Source {
    fn leaf(&self, path: &[u16], message: &Message) -> Vec<Part> {
        match self.part {
            Some(part) if self.whole => vec![descend(message, part, path)],
            Some(part) if self.reads.is_empty() => vec![descend(message, part, &[])],
            _ => self.reads.clone(),
        }
    }

    /// What the leaf at `path` was made of, and how, outermost first.
    fn trail<'t>(&'t self, path: &[u16], message: &Message, stages: &mut Vec<&'t Source>) -> Vec<Part> {
        stages.push(self);
        // A value without components is its first one.
        let covers = |at: &[u16]| at.iter().enumerate().all(|(n, a)| path.get(n).copied().unwrap_or(1) == *a);
        match self.puts.iter().rev().find(|(at, _)| covers(at)) {
            Some((at, Some(source))) => return source.trail(path.get(at.len()..).unwrap_or_default(), message, stages),
            Some((_, None)) => return Vec::new(),
            None => {}
        }
        match &self.child {
            Some(child) => child.trail(path, message, stages),
            None => self.leaf(path, message),
        }
    }
}

impl SegmentNotes {
    /// What a leaf of the field's `repetition` (from 0) was made of, and how.
    pub(crate) fn trail<'t>(&'t self, field: u16, repetition: usize, path: &[u16], message: &Message) -> (Vec<Part>, Vec<&'t Source>) {
        let mut stages = Vec::new();
        if let Some(sources) = self.fields.get(&field) {
            // What Kiln fills in is owed to no line.
            let own = |s: &Source| s.spot.is_none() && s.child.is_none();
            let by_line = self.origin.is_none() && !sources.iter().all(own);
            stages.extend(by_line.then_some(&self.made));
            let found = sources.get(repetition).map(|s| s.trail(path, message, &mut stages)).unwrap_or_default();
            return (found, stages);
        }
        stages.push(&self.made);
        let Some(origin) = self.origin else { return (Vec::new(), stages) };
        let part = message.repetition(message.field(origin as usize, usize::from(field)), repetition + 1);
        (vec![descend(message, part, path)], stages)
    }
}

fn descend(message: &Message, mut part: Part, path: &[u16]) -> Part {
    for n in path.iter().copied().chain([1, 1]) {
        part = match part.level {
            Level::Field | Level::Repetition => message.component(part, usize::from(n)),
            Level::Component => message.subcomponent(part, usize::from(n)),
            Level::Subcomponent => return part,
        };
    }
    part
}

impl Trace {
    /// A line under way that is not an element's.
    pub(crate) fn open_at(&mut self, spot: Spot, name: &'static str) {
        let head = self.head();
        self.lines.push(OpenLine { spot: spot.clone(), steps: self.steps.len(), loose: self.loose.len(), run: self.runs.len() });
        self.runs.push(LineRun { spot, head, name, made: 0, steps: Vec::new() });
        self.births.push(Vec::new());
    }

    /// It has made so many.
    pub(crate) fn close_at(&mut self, made: usize) {
        let Some(open) = self.lines.pop() else { return };
        self.births.pop();
        let steps: Vec<Step> = self.steps.drain(open.steps.min(self.steps.len())..).map(|(s, _)| s).collect();
        self.loose.truncate(open.loose);
        if self.lines.is_empty() {
            self.drafts.loose.clear();
        }
        if let Some(run) = self.runs.get_mut(open.run) {
            run.made = made;
            run.steps = steps;
        }
    }

    /// A message begins: what decided that there is one is said once, and not of each of its values.
    pub(crate) fn begin_message(&mut self) {
        self.steps.clear();
    }

    /// The line under way and what happened in it so far.
    pub(crate) fn frame(&self) -> Source {
        let steps = self.steps.iter().skip(self.steps_from()).map(|(s, _)| s.clone()).collect();
        Source { part: None, whole: false, reads: Vec::new(), steps, spot: self.spot(), head: self.head(), puts: Vec::new(), child: None }
    }

    /// One value of an expression is put into place. `whole`: as it was sent.
    pub(crate) fn source(&mut self, since: Mark, part: Option<Part>, piece: &Piece) -> Source {
        let found = self.drafts.loose.iter().position(|(p, ..)| p == piece).filter(|_| part.is_none());
        let (child, of) = match found.map(|n| self.drafts.loose.remove(n)) {
            Some((_, child, of)) => (Some(Box::new(child)), of),
            None => (None, None),
        };
        let account = self.account(since, part);
        let nulls = std::mem::take(&mut self.nulls);
        let reads = if *piece == Piece::Null && account.reads.is_empty() { nulls } else { account.reads };
        let whole = part.is_some() && child.is_none();
        let part = of.or(account.part);
        Source { whole, part, reads, steps: account.steps, spot: self.spot(), head: self.head(), puts: Vec::new(), child }
    }

    /// What a map made of the value at hand.
    pub(crate) fn loose_piece(&mut self, piece: &Piece, source: Option<Source>, of: Option<Part>) {
        if let Some(source) = source {
            self.drafts.loose.push((piece.clone(), source, of));
        }
    }

    /// A segment comes into being; its tag.
    pub(crate) fn segment(&mut self, origin: Option<u32>, made: Source) -> u32 {
        self.drafts.segments.push(SegmentNotes { origin, made, fields: BTreeMap::new() });
        u32::try_from(self.drafts.segments.len()).unwrap_or(0)
    }

    /// The segment of that tag, a map's, was made by the line under way.
    pub(crate) fn made_by(&mut self, tag: u32, frame: &Source) {
        if let Some(notes) = self.notes_mut(tag) {
            let inner = std::mem::replace(&mut notes.made, frame.clone());
            notes.made.child = Some(Box::new(inner));
        }
    }

    fn notes_mut(&mut self, tag: u32) -> Option<&mut SegmentNotes> {
        (tag as usize).checked_sub(1).and_then(|n| self.drafts.segments.get_mut(n))
    }

    pub(crate) fn notes(&self, tag: u32) -> Option<&SegmentNotes> {
        (tag as usize).checked_sub(1).and_then(|n| self.drafts.segments.get(n))
    }

    /// What stands around the lines that follow: a condition that held.
    pub(crate) fn around(&mut self, frame: Option<Source>) {
        match frame {
            Some(frame) => self.drafts.around.push(frame),
            None => drop(self.drafts.around.pop()),
        }
    }

    /// A field, or a part of each of its repetitions, gets these values; none empties it.
    pub(crate) fn put_field(&mut self, tag: u32, at: &[u16], append: bool, sources: Vec<Source>, message: &Message) {
        let Some((field, rest)) = at.split_first() else { return };
        let around: Vec<Source> = self.drafts.around.iter().filter(|a| !a.steps.is_empty()).cloned().collect();
        let wrap = |source: Source| around.iter().rev().fold(source, |inner, a| Source { child: Some(Box::new(inner)), ..a.clone() });
        let sources: Vec<Source> = sources.into_iter().map(wrap).collect();
        let (spot, head) = (self.spot(), self.head());
        let Some(notes) = self.notes_mut(tag) else { return };
        let (origin, made) = (notes.origin, notes.made.clone());
        let before = notes.fields.contains_key(field);
        let sent = || {
            let whole = origin.map(|o| message.field(o as usize, usize::from(*field)));
            let parts: Vec<Part> = whole.map(|f| message.repetitions(f).collect()).unwrap_or_default();
            parts.into_iter().map(|p| Source { part: Some(p), whole: true, ..made.clone() }).collect::<Vec<_>>()
        };
        let mut gone = Vec::new();
        if rest.is_empty() {
            if append {
                notes.fields.entry(*field).or_insert_with(sent).extend(sources);
            } else {
                gone.extend(origin.filter(|_| !before).map(|o| message.field(o as usize, usize::from(*field))));
                notes.fields.insert(*field, sources);
            }
        } else {
            let there = notes.fields.entry(*field).or_insert_with(sent);
            if there.is_empty() {
                there.push(Source { part: None, whole: false, ..made.clone() });
            }
            let source = sources.into_iter().next();
            for repetition in there {
                if let (Some(part), true) = (repetition.part, repetition.whole) {
                    gone.push(part_at(message, part, rest));
                }
                repetition.puts.push((rest.to_vec(), source.clone()));
            }
        }
        if let Some(spot) = spot {
            self.drafts.dropped.extend(gone.into_iter().filter(|p| !p.is_empty()).map(|p| (p, spot.clone(), Arc::clone(&head))));
        }
    }

    /// A line takes whole segments away.
    pub(crate) fn drop_segments(&mut self, parts: impl Iterator<Item = Part>) {
        if let Some(spot) = self.spot() {
            let head = self.head();
            self.drafts.dropped.extend(parts.map(|p| (p, spot.clone(), Arc::clone(&head))));
        }
    }

    /// A finished message.
    pub(crate) fn draft(&mut self, bytes: Vec<u8>, charset: Charset, tags: Vec<u32>) {
        self.drafts.messages.push(DraftNotes { bytes, charset, tags });
    }
}

impl Source {
    /// A line of a composite set a part of it.
    pub(crate) fn put(&mut self, at: &[u16], source: Option<Source>) {
        self.puts.push((at.to_vec(), source));
    }

    /// Kiln itself filled it in.
    pub(crate) fn own(head: &Arc<str>, text: &str, reads: Vec<Part>) -> Self {
        let steps = vec![Step::Converted(text.to_owned())];
        Self { part: None, whole: false, reads, steps, spot: None, head: Arc::clone(head), puts: Vec::new(), child: None }
    }

    /// From the line's own words: `$copy`, for one.
    pub(crate) fn at(spot: Option<Spot>, head: &Arc<str>) -> Self {
        Self { part: None, whole: false, reads: Vec::new(), steps: Vec::new(), spot, head: Arc::clone(head), puts: Vec::new(), child: None }
    }
}

/// A part by component and subcomponent, as deep as `path` says.
fn part_at(message: &Message, mut part: Part, path: &[u16]) -> Part {
    for n in path {
        part = if part.level <= Level::Repetition { message.component(part, usize::from(*n)) } else { message.subcomponent(part, usize::from(*n)) };
    }
    part
}
