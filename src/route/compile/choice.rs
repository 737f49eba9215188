//! Bodies of a choice (`value[x]`): alternatives that each name a branch, or one body that names one.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir::{self, Type};
use crate::route::code::{Body, Item};
use crate::route::compile::body::Part;
use crate::route::compile::scope::{Let, Scope};
use crate::route::compile::{Compiler, Wanted};
use crate::route::tree;
use std::sync::Arc;

impl<'a> Compiler<'a> {
    /// `value[x]: { $first: [ { $when: C, valueQuantity: {...} }, { valueString: X } ] }`: alternatives that name their branches, or one body that names one.
    pub(crate) fn choice_body(&mut self, scope: &mut Scope<'a>, body: &'a tree::Body, wanted: &Wanted, choice: fhir::Element) -> Part {
        let depth = scope.entries.len();
        let lets = scope.lets.len();
        scope.lets.extend(body.lets.iter().map(|(name, item)| Let { name, item, entries: depth }));
        let mut out = Body { path: Arc::from(wanted.path.as_str()), slot: depth, ..Body::default() };
        if let Some(each) = &body.each {
            let (values, by, many) = self.each(scope, each);
            out.each = Some((values, by));
            out.many = many;
            let reach = scope.entries.len();
            scope.lets.iter_mut().skip(lets).for_each(|l| l.entries = reach);
        }
        let with = self.push_with(scope, body);
        if let Some(when) = &body.when {
            out.when = Some(self.condition(scope, when).x);
        }
        let mut names = Vec::new();
        let mut constant = true;
        let mut add = |part: Part, out: &mut Body| {
            out.places.extend(part.places);
            names.extend(part.names);
            constant &= part.constant;
            out.many |= part.many && part_repeats(&part.item);
            out.first.push(part.item);
        };
        for item in body.first.iter().flatten() {
            let part = self.item(scope, item, wanted);
            add(part, &mut out);
        }
        self.check_alternatives(body);
        let mut before: Option<Span> = None;
        for line in &body.lines {
            let branch = branch_of(&line.element.text, wanted, choice);
            match (branch, before, &body.first) {
                (Some(ty), None, None) => {
                    let branch = Wanted {
                        name: choice.json_name(ty),
                        companion: choice.companion(ty),
                        types: vec![ty],
                        path: format!("{}.{}", wanted.path.rsplit_once('.').map_or("", |(parent, _)| parent), choice.json_name(ty)),
                        ..wanted.clone()
                    };
                    let part = self.item(scope, &line.item, &branch);
                    if part.many && !wanted.list && !matches!(line.item, tree::Item::List(..)) {
                        self.many_into_one(&line.item, &branch);
                    }
                    add(part, &mut out);
                    before = Some(line.element.span);
                }
                (_, Some(first), _) => self.report(
                    Diagnostic::error("K312", line.element.span, format!("two branches of {} in one body", choice.name()))
                        .label("the second")
                        .related(first, "the first")
                        .help("write each in an alternative of its own: `$first: [{ $when: COND, A: ... }, { B: ... }]`"),
                ),
                _ => self.report(
                    Diagnostic::error("K402", line.element.span, format!("beside `$first`, {} takes no lines of its own", wanted.path))
                        .label("belongs into an alternative")
                        .help(format!("each alternative names a branch: `- {}: ...`", choice.types().next().map_or("", |t| choice.json_name(t)))),
                ),
            }
        }
        if with {
            self.with.pop();
        }
        scope.entries.truncate(depth);
        scope.lets.truncate(lets);
        let (many, places) = (out.many, out.places.clone());
        Part { item: Item::Body("value", Box::new(out)), many, constant, places, names }
    }
}

/// The type of a branch's JSON name.
fn branch_of(name: &str, wanted: &Wanted, choice: fhir::Element) -> Option<Type> {
    wanted.types.iter().copied().find(|t| choice.json_name(*t) == name)
}

/// Does a body of a choice say `valueQuantity: ...` inside?
pub(crate) fn names_branches(body: &tree::Body, wanted: &Wanted, choice: fhir::Element) -> bool {
    body.from.is_none() && body.value.is_none() && body.lines.iter().any(|line| branch_of(&line.element.text, wanted, choice).is_some())
}

/// May it yield more than one? A list in an alternative does; an alternative itself counts where it stands.
fn part_repeats(item: &Item) -> bool {
    match item {
        Item::List(_) => true,
        Item::Body(_, body) => body.many,
        _ => false,
    }
}

/// The branches that have all elements that the body names, written as they would be; else all branches.
pub(crate) fn which_branch(body: &tree::Body, wanted: &Wanted, branches: &[&str]) -> String {
    let has_all = |t: &&Type| body.lines.iter().all(|line| t.element(&line.element.text).is_some() || t.property(&line.element.text).is_some());
    let fitting: Vec<&str> = wanted.types.iter().filter(has_all).map(|t| wanted.name_for(*t)).collect();
    match fitting.as_slice() {
        [] => format!("name one: {}", branches.join(", ")),
        [one] if !body.lines.is_empty() => format!("write `{one}: {{ ... }}`; where several branches are possible, `$first` with a branch in each alternative"),
        some if !body.lines.is_empty() => format!("write one of these in its place: {}", some.join(", ")),
        _ => format!("name one: {}", branches.join(", ")),
    }
}
