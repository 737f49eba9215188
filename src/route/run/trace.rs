//! The recorder: what a run notes down when somebody asks how its result came about. Absent when nobody asks.

mod births;
mod draft;

use crate::fhir::Node;
use crate::hl7v2::Part;
use crate::route::code::{BodyLine, Said};
use crate::route::lineage::{Spot, Step};
pub(crate) use draft::{DraftNotes, Drafts, Source};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that one run noted.
#[derive(Default)]
pub(crate) struct Trace {
    /// What was read, in order.
    pub(crate) reads: Vec<Read>,
    /// Each time that a line ran.
    pub(crate) runs: Vec<LineRun>,
    /// Each condition: how often it held and how often not.
    pub(crate) conditions: BTreeMap<Spot, (String, u64, u64)>,
    /// The run's resources by their entry.
    pub(crate) resources: BTreeMap<usize, Record>,
    /// What became of each entry.
    pub(crate) fates: Vec<Fate>,
    /// Name, type and way of saving of each entry.
    pub(crate) names: BTreeMap<usize, Facts>,
    /// Elements that `""` deletes: entry, element, line, map, what held the `""`.
    pub(crate) deletes: Vec<(usize, String, Spot, Arc<str>, Vec<Part>)>,
    /// The entry being made.
    pub(crate) entry: usize,
    steps: Vec<(Step, Option<Part>)>,
    /// Lines under way, innermost last.
    lines: Vec<OpenLine>,
    /// Maps under way.
    heads: Vec<OpenMap>,
    /// What was made for the lines under way.
    births: Vec<Vec<Birth>>,
    /// Made by expressions, and not yet put anywhere.
    loose: Vec<Birth>,
    /// Evaluations under way.
    evaluated: Vec<Evaluated>,
    /// Resources inside the one being made.
    contained: Vec<Birth>,
    /// What the map that was called last made its value of.
    child: Option<Inner>,
    conditions_deep: u32,
    identity: bool,
    derived: bool,
    translated: bool,
    /// Resources that were described more than once in the same words: the later descriptions.
    pub(crate) again: Vec<(usize, Birth)>,
    nulls: Vec<Part>,
    /// Messages that are made.
    pub(crate) drafts: Drafts,
}

/// What a value is owed to.
pub(crate) struct Account {
    part: Option<Part>,
    reads: Vec<Part>,
    steps: Vec<Step>,
}

/// A place that was read.
#[derive(Clone, Copy)]
pub(crate) struct Read {
    pub(crate) part: Part,
    pub(crate) how: How,
    deep: usize,
    /// Which of `runs` read it.
    pub(crate) run: Option<usize>,
}

/// What for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum How {
    Value,
    Condition,
    Identity,
}

/// One run of a line.
pub(crate) struct LineRun {
    pub(crate) spot: Spot,
    pub(crate) head: Arc<str>,
    pub(crate) name: &'static str,
    pub(crate) made: usize,
    pub(crate) steps: Vec<Step>,
}

/// A resource of the run.
pub(crate) struct Record {
    pub(crate) root: Birth,
    pub(crate) why_gone: &'static str,
}

/// What is known of an entry.
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) resource_type: &'static str,
    pub(crate) save: &'static str,
}

/// What became of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Saved(usize),
    Joined(usize),
    Gone,
}

/// How a node was made.
#[derive(Clone)]
pub(crate) struct Birth {
    pub(crate) node: Node,
    /// Its JSON name.
    pub(crate) name: &'static str,
    /// The v2 value that was converted, if it was one.
    pub(crate) part: Option<Part>,
    /// What was read for it.
    pub(crate) reads: Vec<Part>,
    pub(crate) steps: Vec<Step>,
    pub(crate) spot: Option<Spot>,
    pub(crate) head: Arc<str>,
    pub(crate) inner: Inner,
    /// A table replaced its first coding.
    pub(crate) translated: bool,
}

/// What a node consists of.
#[derive(Clone)]
pub(crate) enum Inner {
    Leaf,
    /// An object, line by line.
    Lines(Vec<Put>),
    /// A map's value.
    Child(Box<Birth>),
}

/// A change of an object under construction; the same as `Building` does.
#[derive(Clone)]
pub(crate) enum Put {
    Line { name: &'static str, list: bool, append: bool, branches: Vec<&'static str>, births: Vec<Birth> },
    Remove { name: &'static str, branches: Vec<&'static str> },
    Taken(Box<Birth>),
    Merged(Vec<Put>),
}

/// A map under way: how many lines and steps there were when it began.
struct OpenMap {
    head: Arc<str>,
    lines: usize,
    steps: usize,
}

struct OpenLine {
    spot: Spot,
    steps: usize,
    loose: usize,
    run: usize,
}

/// A place in the notes.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    reads: usize,
    steps: usize,
}

struct Evaluated {
    from: Mark,
    to: Mark,
    /// One value per step: each value has its own look-up.
    lookups: Vec<(usize, Option<Part>)>,
    values: usize,
    next: usize,
}

impl Trace {
    pub(crate) fn mark(&self) -> Mark {
        Mark { reads: self.reads.len(), steps: self.steps.len() }
    }

    pub(crate) fn read(&mut self, part: Part) {
        let how = if self.conditions_deep > 0 {
            How::Condition
        } else if self.identity {
            How::Identity
        } else {
            How::Value
        };
        self.note_read(part, how);
    }

    /// Looked at, but not taken.
    pub(crate) fn touch(&mut self, part: Part) {
        self.note_read(part, How::Condition);
    }

    fn note_read(&mut self, part: Part, how: How) {
        self.reads.push(Read { part, how, deep: self.lines.len(), run: self.lines.last().map(|l| l.run) });
    }

    pub(crate) fn null(&mut self, part: Part) {
        self.note_read(part, How::Condition);
        self.nulls.push(part);
    }

    pub(crate) fn step(&mut self, step: Step, about: Option<Part>) {
        self.steps.push((step, about));
    }

    /// Steps of one round of a loop say nothing about the next.
    pub(crate) fn forget_steps(&mut self, mark: Mark) {
        self.steps.truncate(mark.steps);
    }

    pub(crate) fn identity(&mut self, on: bool) {
        self.identity = on;
        if !on {
            self.loose.clear();
        }
    }

    // Conditions

    pub(crate) fn ask(&mut self) -> Mark {
        self.conditions_deep += 1;
        self.mark()
    }

    /// Ends what is no condition, and was only looked at.
    pub(crate) fn answered(&mut self, asked: Mark) {
        self.conditions_deep = self.conditions_deep.saturating_sub(1);
        self.steps.truncate(asked.steps);
    }

    pub(crate) fn answer(&mut self, asked: Mark, said: &Said, holds: bool, about: Option<Part>) {
        self.conditions_deep = self.conditions_deep.saturating_sub(1);
        let spot = Spot { line: said.line.clone(), column: said.column };
        let counted = self.conditions.entry(spot.clone()).or_insert_with(|| (said.text.clone(), 0, 0));
        if holds {
            counted.1 += 1
        } else {
            counted.2 += 1
        }
        self.steps.truncate(asked.steps);
        if self.conditions_deep == 0 && !self.identity {
            self.steps.push((Step::Condition { text: said.text.clone(), holds, at: spot }, about));
        }
    }

    // Maps and lines

    pub(crate) fn enter(&mut self, head: &Arc<str>) {
        self.heads.push(OpenMap { head: Arc::clone(head), lines: self.lines.len(), steps: self.steps.len() });
    }

    pub(crate) fn leave(&mut self) {
        self.heads.pop();
    }

    fn head(&self) -> Arc<str> {
        self.heads.last().map_or_else(|| Arc::from(""), |map| Arc::clone(&map.head))
    }

    /// The line under way, if it is one of the map under way.
    fn spot(&self) -> Option<Spot> {
        let before = self.heads.last().map_or(0, |map| map.lines);
        self.lines.last().filter(|_| self.lines.len() > before).map(|l| l.spot.clone())
    }

    /// Where the steps begin that the value at hand is owed to.
    fn steps_from(&self) -> usize {
        let line = self.lines.last().map_or(0, |l| l.steps);
        self.heads.last().map_or(line, |map| map.steps.max(line))
    }

    pub(crate) fn open(&mut self, line: &BodyLine) {
        let spot = Spot { line: line.line.clone(), column: line.column };
        self.open_at(spot, line.name);
    }

    /// The line has made so many; what it says of them, or nothing if it made none.
    pub(crate) fn close(&mut self, line: &BodyLine, made: &[(&'static str, Node)]) -> Option<Put> {
        let open = self.lines.pop()?;
        let mut births = self.births.pop().unwrap_or_default();
        let steps: Vec<Step> = self.steps.drain(open.steps.min(self.steps.len())..).map(|(s, _)| s).collect();
        self.loose.truncate(open.loose);
        if let Some(run) = self.runs.get_mut(open.run) {
            run.made = made.len();
            run.steps = steps;
        }
        if made.is_empty() {
            return None;
        }
        births.truncate(made.len());
        while let Some((name, node)) = made.get(births.len()) {
            let birth = Birth {
                node: node.clone(),
                name,
                part: None,
                reads: Vec::new(),
                steps: Vec::new(),
                spot: Some(open.spot.clone()),
                head: self.head(),
                inner: Inner::Leaf,
                translated: false,
            };
            births.push(birth);
        }
        Some(Put::Line { name: line.name, list: line.list, append: line.append, branches: line.branches.clone(), births })
    }

    pub(crate) fn delete(&mut self, line: &BodyLine, element: &str) {
        let choice = !line.branches.is_empty() && !element.ends_with("[x]");
        let element = if choice { format!("{element}[x]") } else { element.to_owned() };
        let spot = Spot { line: line.line.clone(), column: line.column };
        let (entry, head, parts) = (self.entry, self.head(), std::mem::take(&mut self.nulls));
        self.deletes.push((entry, element, spot, head, parts));
    }

    /// What is made from here on belongs together.
    pub(crate) fn collect(&mut self) {
        self.births.push(Vec::new());
    }

    pub(crate) fn collected(&mut self) -> Vec<Birth> {
        self.births.pop().unwrap_or_default()
    }

    /// An expression that is converted now was evaluated: since then its values, in order, with what they are.
    pub(crate) fn evaluated(&mut self, from: Mark, values: usize) {
        let to = self.mark();
        let steps = self.steps.get(from.steps..to.steps).unwrap_or_default();
        let lookups: Vec<_> =
            steps.iter().enumerate().filter(|(_, (s, _))| matches!(s, Step::Table { found: Some(_), .. })).map(|(n, (_, p))| (from.steps + n, *p)).collect();
        self.evaluated.push(Evaluated { from, to, lookups, values, next: 0 });
    }

    /// The next of its values.
    pub(crate) fn next_value(&mut self) -> Mark {
        if let Some(evaluated) = self.evaluated.last_mut() {
            evaluated.next += 1;
        }
        self.mark()
    }
}
