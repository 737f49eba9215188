//! What an expression is made of: the v2 places whose content it is, those that it only asks, and constants.

use crate::fhir::Node;
use crate::route::code::{Body, Code, Function, Item, Path, Root, Step, X};
use std::collections::BTreeSet;

pub(crate) type Places = BTreeSet<String>;

/// The values in reach.
#[derive(Clone)]
pub(crate) struct Env<'e, 'c> {
    pub(crate) slots: Vec<Places>,
    pub(crate) arguments: &'c [X],
    pub(crate) caller: Option<&'e Env<'e, 'c>>,
}

impl Env<'_, '_> {
    pub(crate) fn set(&mut self, slot: usize, places: Places) {
        while self.slots.len() <= slot {
            self.slots.push(Places::new());
        }
        if let Some(known) = self.slots.get_mut(slot) {
            *known = places;
        }
    }
}

/// What an expression is made of.
#[derive(Clone, Default)]
pub(crate) struct Sym {
    pub(crate) places: Places,
    pub(crate) asked: Places,
    pub(crate) constants: Vec<Node>,
}

impl Sym {
    fn add(&mut self, other: Sym) {
        self.places.extend(other.places);
        self.asked.extend(other.asked);
        self.constants.extend(other.constants);
    }

    pub(crate) fn all(self) -> impl Iterator<Item = String> {
        self.places.into_iter().chain(self.asked)
    }
}

/// Reads expressions of a program.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'c> {
    pub(crate) code: &'c Code,
}

impl<'c> Reader<'c> {
    pub(crate) fn eval(&self, x: &'c X, env: &Env<'_, 'c>) -> Sym {
        let mut out = Sym::default();
        match x {
            X::Text(text) => out.constants.push(Node::Text(text.to_string())),
            X::Node(_, node) => out.constants.push(node.clone()),
            X::Path(path) => out.places = self.path(path, env),
            X::Argument(n) => {
                if let (Some(caller), Some(argument)) = (env.caller, env.arguments.get(*n)) {
                    return self.eval(argument, caller);
                }
            }
            X::Let(named) => return self.eval(&named.x, env),
            X::If(condition, a, b) => {
                out.asked.extend(self.eval(condition, env).all());
                out.add(self.eval(a, env));
                out.add(self.eval(b, env));
            }
            X::Where(a, slot, condition) => {
                out.add(self.eval(a, env));
                let mut inner = env.clone();
                inner.set(*slot, out.places.clone());
                out.asked.extend(self.eval(condition, &inner).all());
            }
            X::Steps(a, steps) => {
                out.add(self.eval(a, env));
                out.places = out.places.iter().map(|p| down(p, steps)).collect();
            }
            X::Call(function, arguments) => {
                match function {
                    Function::Event => out.places.extend(["MSH-9.2".to_owned(), "EVN-1".to_owned()]),
                    Function::Sender => out.places.extend(["MSH-4".to_owned(), "MSH-3".to_owned()]),
                    _ => {}
                }
                for argument in arguments {
                    out.add(self.eval(argument, env));
                }
                if !matches!(function, Function::First | Function::Last | Function::Distinct) {
                    out.constants.clear();
                }
            }
            X::Body(body, _) => {
                out.add(self.body(body, env.clone()));
            }
            other => other.children().into_iter().for_each(|inner| out.add(self.eval(inner, env))),
        }
        out
    }

    fn path(&self, path: &Path, env: &Env<'_, 'c>) -> Places {
        let slot = |n: usize| env.slots.get(n).cloned().unwrap_or_default();
        let bases: Places = match path.root {
            Root::Slot(n) => slot(n),
            Root::SegmentOf(n) => slot(n).iter().map(|p| segment(p).to_owned()).collect(),
            Root::Lookup { lookup, .. } => self.code.lookups.get(lookup).map(|l| l.segment.clone()).into_iter().collect(),
        };
        let bases: Places = match path.field {
            Some(field) => bases.iter().map(|b| format!("{}-{field}", segment(b))).collect(),
            None => bases,
        };
        bases.iter().map(|b| down(b, &path.steps)).collect()
    }

    /// What a body reads that is a value.
    fn body(&self, body: &'c Body, mut env: Env<'_, 'c>) -> Sym {
        let mut out = Sym::default();
        if let Some((each, _)) = &body.each {
            let each = self.eval(each, &env);
            env.set(body.slot, each.places.clone());
            out.add(each);
        }
        if let Some(values) = &body.from_values {
            let values = self.eval(values, &env);
            env.set(body.slot + usize::from(body.each.is_some()), values.places.clone());
            out.add(values);
        }
        for item in body.first.iter().chain(body.value.as_deref()).chain(body.lines.iter().map(|l| &l.item)) {
            out.add(self.item(item, &env));
        }
        out
    }

    /// What an item reads.
    pub(crate) fn item(&self, item: &'c Item, env: &Env<'_, 'c>) -> Sym {
        let mut out = Sym::default();
        match item {
            Item::X(x) => out = self.eval(x, env),
            Item::Body(_, body) => out = self.body(body, env.clone()),
            Item::List(items) => items.iter().for_each(|i| out.add(self.item(i, env))),
            Item::Extension(_, inner) => out = self.item(inner, env),
            Item::Constant(..) | Item::Nothing => {}
        }
        out
    }
}

/// `PID` of `PID-5.1`.
pub(crate) fn segment(place: &str) -> &str {
    place.split('-').next().unwrap_or(place)
}

fn down(place: &str, steps: &[Step]) -> String {
    let mut place = place.to_owned();
    for step in steps {
        if let Step::Down(n) = step {
            place.push_str(&format!(".{n}"));
        }
    }
    place
}
