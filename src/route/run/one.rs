//! Expressions that lead to one part at most, evaluated without a list of values: what most lines say.

use crate::hl7v2::{Level, Part};
use crate::route::code::{Function, Path, Root, Step, X};
use crate::route::run::{EVALUATION, Env, Run};
use crate::route::tree::Index;

impl<'m> Run<'m> {
    /// The valued part that an expression leads to, or that there is none: what most expressions say, without a list of values for it.
    /// Nothing where it has to be evaluated, since there may be several, or something else; or since somebody wants notes.
    #[inline(always)]
    pub(crate) fn one_part(&self, x: &'m X, env: &Env<'_, 'm>) -> Option<Option<Part>> {
        let (level, place) = self.find_one(x, env)?;
        let part = |level| Part { start: (place >> 32) as u32, end: place as u32, level };
        Some(level.map(part))
    }

    /// The part's level, and its start and end in one number: as such they are returned in registers.
    fn find_one(&self, x: &'m X, env: &Env<'_, 'm>) -> Option<(Option<Level>, u64)> {
        if self.trace.is_some() {
            return None;
        }
        match x {
            X::Path(path) => {
                let found = self.one_part_of(path, env)?;
                Some((found.map(|part| part.level), found.map_or(0, |part| u64::from(part.start) << 32 | u64::from(part.end))))
            }
            X::Argument(n) => match (env.caller, env.arguments.get(*n)) {
                (Some(caller), Some(argument)) => self.find_one(argument, caller),
                _ => Some((None, 0)),
            },
            X::Else(a, b) => match self.find_one(a, env)? {
                (None, _) => self.find_one(b, env),
                found => Some(found),
            },
            X::Steps(inner, steps) => {
                let (Some(level), place) = self.find_one(inner, env)? else { return Some((None, 0)) };
                let mut part = Part { start: (place >> 32) as u32, end: place as u32, level };
                for step in steps {
                    match step {
                        Step::Down(n) => part = self.down(part, *n),
                        Step::Index(Index::Last | Index::Nth(1)) => {}
                        Step::Index(_) => return Some((None, 0)),
                    }
                }
                let found = self.is_valued(part).then_some(part.level);
                Some((found, u64::from(part.start) << 32 | u64::from(part.end)))
            }
            X::Call(Function::First | Function::Last, arguments) => match arguments.as_slice() {
                [one] => self.find_one(one, env),
                _ => None,
            },
            _ => None,
        }
    }

    #[inline(always)]
    fn one_part_of(&self, path: &'m Path, env: &Env<'_, 'm>) -> Option<Option<Part>> {
        if !self.spend(EVALUATION) {
            return Some(None);
        }
        let segment = match path.root {
            Root::Slot(0) | Root::SegmentOf(0) if env.lacks(path) => return Some(None),
            Root::Slot(slot) | Root::SegmentOf(slot) => match path.field {
                None => None,
                Some(_) => Some(env.whole_segment(slot)?),
            },
            // A look-up that finds one segment is as good as that segment.
            Root::Lookup { lookup, from, index: None } if path.field.is_some() => match *self.segments(lookup, self.segment_in(from, env)) {
                [] => return Some(None),
                [one] => Some(one),
                _ => return None,
            },
            Root::Lookup { .. } => return None,
        };
        let mut part = match (path.field, path.root) {
            (None, Root::Slot(slot) | Root::SegmentOf(slot)) => env.part(slot)?,
            (None, Root::Lookup { .. }) => return None,
            (Some(field), _) => {
                self.depends_on_place();
                let whole = self.message.field(segment? as usize, usize::from(field));
                let repeats = self.message.delimiters().repetition.is_some_and(|d| self.message.raw(whole).contains(&d));
                if repeats {
                    return None;
                }
                Part { level: Level::Repetition, ..whole }
            }
        };
        for step in &path.steps {
            match step {
                Step::Down(n) => part = self.down(part, *n),
                Step::Index(Index::Last | Index::Nth(1)) if path.field.is_none() => {}
                Step::Index(_) => return None,
            }
        }
        Some(self.is_valued(part).then_some(part))
    }
}
