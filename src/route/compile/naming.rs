//! Names in expressions: `$name` of a parameter, a `$let` or what is iterated, and a resource of the route.

use crate::diagnostic::{Diagnostic, Span};
use crate::route::code::Let;
use crate::route::code::X;
use crate::route::compile::expression::{Compiled, converts_as_a_whole};
use crate::route::compile::scope::Scope;
use crate::route::compile::{Compiler, Wanted};
use crate::route::tree::{Expr, Item, Literal};
use crate::route::types::{Ty, Typed};
use std::sync::Arc;

impl<'a> Compiler<'a> {
    /// `$name`: a parameter or a `$let`.
    pub(crate) fn variable(&mut self, scope: &mut Scope<'a>, name: &str, wanted: Option<&Wanted>, span: Span) -> Compiled {
        if let Some(index) = scope.takes.iter().position(|(n, ..)| n == name) {
            let ty = scope.takes[index].1.clone();
            let compiled = Compiled::new(X::Argument(index), Typed::one(ty));
            return match wanted {
                Some(wanted) => self.join(compiled, wanted, span),
                None => compiled,
            };
        }
        // The name that is being iterated means the current value.
        let current = scope.entries.iter().enumerate().rev().find(|(_, e)| e.variable.as_deref() == Some(name)).map(|(slot, e)| (slot, e.clone()));
        if let Some((slot, entry)) = current {
            let path = crate::route::code::Path { root: crate::route::code::Root::Slot(slot), field: None, steps: Vec::new() };
            let mut compiled = Compiled::new(X::Path(path), Typed { ty: entry.ty, many: entry.group });
            (compiled.origin, compiled.segment, compiled.asked) = (entry.path, entry.segment, entry.asked);
            return match wanted {
                Some(wanted) => self.join(compiled, wanted, span),
                None => compiled,
            };
        }
        let Some((item, mut inner)) = self.expand(scope, name, span) else { return Compiled::nothing() };
        match (item, wanted) {
            (Item::Expr(expr), Some(wanted)) if converts_as_a_whole(expr) => {
                self.check_reach(expr);
                self.check_via(expr, wanted);
                let raw = self.named(&mut inner, expr);
                if raw.converted { raw } else { self.join(raw, wanted, expr.span) }
            }
            (Item::Expr(expr), Some(wanted)) => self.wanted(&mut inner, expr, wanted),
            (Item::Expr(expr), None) => self.named(&mut inner, expr),
            (Item::Constant(key), Some(wanted)) => self.literal_wanted(&Literal::Text(key.text.clone()), wanted, key.span),
            (Item::Constant(key), None) => self.literal(&Literal::Text(key.text.clone())),
            (Item::Body(body), wanted) => self.let_body(&mut inner, body, wanted, span),
            (Item::List(_, list), _) => {
                self.report(Diagnostic::error("K111", *list, "a `$let` holds one expression or one body").label("a list").help("give each its own name"));
                Compiled::nothing()
            }
        }
    }

    /// The expression of a `$let`. One that costs something is compiled into the same for all its uses, so that a run can remember what it came to.
    fn named(&mut self, scope: &mut Scope<'a>, expr: &'a Expr) -> Compiled {
        let raw = self.raw(scope, expr);
        if scope.unit == 0 || !raw.x.is_worth_remembering() {
            return raw;
        }
        let with = self.with.last().and_then(|with| with.items.first()).map(|(key, _)| key.span);
        let next = u32::try_from(self.named.len()).unwrap_or(u32::MAX);
        let Compiled { x, .. } = raw;
        let known = self.named.entry((scope.unit, expr.span, with)).or_insert_with(|| Arc::new(Let { id: next, reach: scope.entries.len(), x }));
        Compiled { x: X::Let(Arc::clone(known)), ..Compiled { x: X::Nothing, ..raw } }
    }

    /// What a `$let` of that name stands for, with the scope in which it was written; `None` after a diagnostic.
    pub(crate) fn expand(&mut self, scope: &Scope<'a>, name: &str, span: Span) -> Option<(&'a Item, Scope<'a>)> {
        if scope.expanding.iter().any(|n| n == name) {
            self.report(Diagnostic::error("K410", span, format!("${name} needs itself")).label("a circle of $let").help("name the value directly"));
            return None;
        }
        if scope.expanding.is_empty() {
            self.expansions = 0;
        }
        self.expansions += 1;
        if scope.expanding.len() >= LET_DEPTH_MAX || self.expansions > LET_USES_MAX {
            // Once is enough; each further use would say the same.
            if self.expansions <= LET_USES_MAX + 1 {
                self.expansions = LET_USES_MAX + 1;
                self.report(
                    Diagnostic::error("K116", span, format!("${name} stands for too many other names"))
                        .label("the chain of $let gets too long here")
                        .help("use fewer names within names, or make the value in a map of its own"),
                );
            }
            self.expansions += 1;
            return None;
        }
        let Some(found) = scope.find_let(name) else {
            let names: Vec<&str> = scope.takes.iter().map(|(n, ..)| n.as_str()).chain(scope.lets.iter().map(|l| l.name.text.as_str())).collect();
            let help = crate::diagnostic::suggest(name, names.iter().copied())
                .map_or_else(|| "name it in `$let`, or take it with `$takes`".to_owned(), |n| format!("did you mean ${n}?"));
            self.report(Diagnostic::error("K205", span, format!("nothing here is called ${name}")).label("unknown name").help(help));
            return None;
        };
        if let Some(read) = scope.lets.iter().rev().find(|l| l.name.text == name) {
            self.used.insert(read.name.span);
        }
        Some(found)
    }

    /// A bare name: a resource of this route, as a reference, or what one of its questions found.
    pub(crate) fn resource(&mut self, scope: &Scope<'a>, name: &str, all: bool, wanted: Option<&Wanted>, span: Span) -> Compiled {
        if let Some(asked) = scope.asked.iter().find(|asked| asked.name == name) {
            let found = Compiled::new(X::Asked(asked.index), Typed { ty: Ty::Fhir(asked.ty), many: asked.many });
            let found = Compiled { places: asked.places.clone(), asked: vec![asked.index], ..found };
            return match wanted {
                Some(wanted) => self.join(found, wanted, span),
                None => found,
            };
        }
        let Some(index) = scope.resources.iter().position(|r| r.name == name) else {
            let names: Vec<&str> = scope.resources.iter().map(|r| r.name.as_str()).chain(scope.asked.iter().map(|asked| asked.name.as_str())).collect();
            let help = match crate::diagnostic::suggest(name, names.iter().copied()) {
                Some(other) => format!("did you mean {other}?"),
                None => format!("for the code write \"{name}\", in quotes"),
            };
            self.report(Diagnostic::error("K205", span, format!("nothing here is called {name}")).label("unknown name").help(help));
            return Compiled::nothing();
        };
        let ty = scope.resources[index].ty;
        let from = scope.segment().map(|(slot, _)| slot);
        let own = scope.own == Some(index);
        let Some(wanted) = wanted else {
            return Compiled::new(X::Resource { index, all, place: "", from, own }, Typed { ty: Ty::Resource(vec![ty]), many: true });
        };
        let fits = wanted.types.iter().any(|t| t.name() == "Reference");
        let targets: Vec<&str> = wanted.element.map(|e| e.targets().collect()).unwrap_or_default();
        if !fits || !(targets.is_empty() || targets.contains(&ty) || targets.contains(&"Resource")) {
            let what = if fits { format!("{} refers to {}", wanted.path, targets.join(", ")) } else { format!("{} is no reference", wanted.path) };
            self.report(Diagnostic::error("K309", span, format!("{name} is a {ty}, but {what}")).label(format!("a {ty}")).help("name another resource"));
        }
        let reference = wanted.types.iter().find(|t| t.name() == "Reference");
        let place = reference.map_or(wanted.name, |t| wanted.name_for(*t));
        Compiled { converted: true, ..Compiled::new(X::Resource { index, all, place, from, own }, Typed { ty: Ty::Resource(vec![ty]), many: wanted.list }) }
    }
}

/// A `$let` is compiled anew at each use, so names of names of names grow without bound; nobody reads such a chain either.
const LET_DEPTH_MAX: usize = 24;

/// How many names one use may stand for, its own included.
const LET_USES_MAX: usize = 500;
