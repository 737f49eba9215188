//! `where`: of the candidates, those that fit. Of many, an index finds them: a report whose results each look for their like among all others would
//! cost the square of their number.

use crate::hl7v2::NodeId;
use crate::route::code::{Function, Path, Root, X};
use crate::route::run::value::{Value, Values};
use crate::route::run::{Env, Run};
use crate::route::tree::Op;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::rc::Rc;

/// So many candidates make it worth while to look at what the condition says.
const MANY: usize = 12;

/// What a condition says: what hangs on the candidate, and what does not.
pub(crate) struct Plan<'m> {
    condition: &'m X,
    /// The same for all candidates.
    fixed: Vec<&'m X>,
    /// A text of the candidate must be one that is the same for all: the candidate's, and the wanted one.
    key: Option<(&'m X, &'m X)>,
    /// What else must hold.
    rest: Vec<&'m X>,
}

/// The candidates of one group, by the text that a condition asks of them.
pub(crate) struct Indexed<'m> {
    condition: &'m X,
    group: (u32, NodeId),
    candidates: Vec<Value<'m>>,
    by_text: HashMap<String, Vec<usize>>,
}

impl<'m> Run<'m> {
    pub(crate) fn filter(&mut self, inner: &'m X, slot: usize, condition: &'m X, env: &Env<'_, 'm>) -> Values<'m> {
        let plan = self.plans.iter().find(|plan| std::ptr::eq(plan.condition, condition)).map(Rc::clone);
        if let Some(plan) = &plan {
            if !plan.fixed.iter().all(|x| self.holds(x, env)) {
                return Values::none();
            }
            if let Some(found) = self.find(inner, slot, plan, env) {
                return found;
            }
        }
        let candidates = self.eval(inner, env);
        if plan.is_none() && candidates.len() >= MANY && self.trace.is_none() {
            self.plans.push(Rc::new(Plan::of(condition, slot)));
            return self.filter(inner, slot, condition, env);
        }
        let mut kept = Values { alive: candidates.alive, ..Values::none() };
        for candidate in candidates {
            // A resource is judged by the segment that it is made from.
            let current = match &candidate {
                Value::Made(entry) => self.segment_of_made(*entry).map(Value::Segment),
                other => Some(other.clone()),
            };
            let before = env.set(slot, current);
            let fits = match (condition, &candidate) {
                (X::Said(inner, said), Value::Part(part)) => self.answered(inner, said, Some(*part), env),
                _ => self.holds(condition, env),
            };
            if fits {
                kept.push(candidate);
            }
            env.set(slot, before);
        }
        kept
    }

    /// By the index, where the candidates are the segments or fields that a look-up finds from one group.
    fn find(&mut self, inner: &'m X, slot: usize, plan: &Plan<'m>, env: &Env<'_, 'm>) -> Option<Values<'m>> {
        let (own, wanted) = plan.key?;
        let X::Path(Path { root: Root::Lookup { lookup, from, .. }, .. }) = inner else { return None };
        let group = self.searched(*lookup, from.and_then(|slot| self.segment_of(env.slot(slot))));
        let wanted = texts_only(self.eval(wanted, env))?;
        let known = |i: &Indexed<'m>| std::ptr::eq(i.condition, plan.condition) && i.group == group;
        let at = match self.indexes.iter().position(known) {
            Some(at) => at,
            None => {
                let candidates: Vec<Value<'m>> = self.eval(inner, env).into_iter().collect();
                let mut by_text: HashMap<String, Vec<usize>> = HashMap::new();
                for (n, candidate) in candidates.iter().enumerate() {
                    let before = env.set(slot, Some(candidate.clone()));
                    let values = texts_only(self.eval(own, env));
                    env.set(slot, before);
                    for value in values?.as_slice() {
                        let places = by_text.entry(self.text_of(value).into_owned()).or_default();
                        if places.last() != Some(&n) {
                            places.push(n);
                        }
                    }
                }
                self.indexes.push(Indexed { condition: plan.condition, group, candidates, by_text });
                self.indexes.len() - 1
            }
        };
        self.depends_on_place();
        let index = self.indexes.get(at)?;
        let mut places: Vec<usize> = wanted.as_slice().iter().filter_map(|v| index.by_text.get(&*self.text_of(v))).flatten().copied().collect();
        places.sort_unstable();
        places.dedup();
        let found: Vec<Value<'m>> = places.iter().filter_map(|n| index.candidates.get(*n).cloned()).collect();
        let mut kept = Values { alive: true, ..Values::none() };
        for candidate in found {
            let before = env.set(slot, Some(candidate.clone()));
            let fits = plan.rest.iter().all(|x| self.holds(x, env));
            env.set(slot, before);
            if fits {
                kept.push(candidate);
            }
        }
        Some(kept)
    }
}

/// Values that are equal if their texts are; numbers and times are compared in other ways.
fn texts_only(values: Values<'_>) -> Option<Values<'_>> {
    values.as_slice().iter().all(|v| matches!(v, Value::Part(_) | Value::Text(_))).then_some(values)
}

impl<'m> Plan<'m> {
    fn of(condition: &'m X, slot: usize) -> Self {
        let mut plan = Self { condition, fixed: Vec::new(), key: None, rest: Vec::new() };
        plan.add(condition, slot);
        plan
    }

    fn add(&mut self, x: &'m X, slot: usize) {
        match x {
            X::Said(inner, _) => self.add(inner, slot),
            X::And(a, b) => {
                self.add(a, slot);
                self.add(b, slot);
            }
            _ if reads(x).is_some_and(|slots| !slots.contains(&slot)) => self.fixed.push(x),
            X::Compare(Op::Equal, a, b) if self.key.is_none() => {
                let of_candidate = |x: &X| reads(x).is_some_and(|slots| !slots.is_empty() && slots.iter().all(|s| *s == slot));
                let same_for_all = |x: &X| reads(x).is_some_and(|slots| !slots.contains(&slot));
                if of_candidate(a) && same_for_all(b) {
                    self.key = Some((a, b));
                } else if of_candidate(b) && same_for_all(a) {
                    self.key = Some((b, a));
                } else {
                    self.rest.push(x);
                }
            }
            _ => self.rest.push(x),
        }
    }
}

/// The slots that an expression reads; nothing if it holds more than paths, texts, conditions and functions of them.
fn reads(x: &X) -> Option<SmallVec<[usize; 8]>> {
    let mut slots = SmallVec::new();
    collect(x, &mut slots).then_some(slots)
}

fn collect(x: &X, slots: &mut SmallVec<[usize; 8]>) -> bool {
    match x {
        X::Nothing | X::Text(_) | X::Number(_) | X::Whole(_) | X::Bool(_) => true,
        X::Let(named) => collect(&named.x, slots),
        X::Path(path) => {
            match path.root {
                Root::Slot(slot) | Root::SegmentOf(slot) => slots.push(slot),
                Root::Lookup { from, .. } => slots.extend(from),
            }
            true
        }
        X::Said(a, _) | X::Not(a) | X::Valued(a, _) | X::In(a, ..) | X::InCodes(a, ..) | X::Steps(a, _) => collect(a, slots),
        X::Else(a, b) | X::Or(a, b) | X::And(a, b) | X::Compare(_, a, b) => collect(a, slots) && collect(b, slots),
        X::If(a, b, c) => collect(a, slots) && collect(b, slots) && collect(c, slots),
        X::Call(function, arguments) => !matches!(function, Function::Derived) && arguments.iter().all(|a| collect(a, slots)),
        _ => false,
    }
}
