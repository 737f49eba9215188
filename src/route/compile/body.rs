//! Bodies: lines against a FHIR type's elements, and what is required of them.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir::{self, Type};
use crate::route::code::{Body, BodyLine, Item, Required, X};
use crate::route::compile::choice;
use crate::route::compile::expression::Compiled;
use crate::route::compile::needs;
use crate::route::compile::scope::{Entry, Let, Scope};
use crate::route::compile::{Compiler, Wanted, With};
use crate::route::tree::{self, Key, Literal};
use crate::route::types::{Ty, Typed};
use std::sync::Arc;

/// A compiled item with what its line needs to know.
pub(crate) struct Part {
    pub(crate) item: Item,
    pub(crate) many: bool,
    pub(crate) constant: bool,
    pub(crate) places: Vec<String>,
    /// JSON names that it may set, for choices.
    pub(crate) names: Vec<&'static str>,
}

impl<'a> Compiler<'a> {
    /// Compiles a body that makes a `ty`. `required`: are all required elements to be found here?
    pub(crate) fn body(&mut self, scope: &mut Scope<'a>, body: &'a tree::Body, ty: Type, path: &str, required: bool) -> Body {
        let depth = scope.entries.len();
        let lets = scope.lets.len();
        scope.lets.extend(body.lets.iter().map(|(name, item)| Let { name, item, entries: depth }));
        let mut out = Body { path: Arc::from(path), slot: depth, ..Body::default() };

        if let Some(each) = &body.each {
            let (values, by, many) = self.each(scope, each);
            out.each = Some((values, by));
            out.many = many;
        }
        let reach = scope.entries.len();
        for l in scope.lets.iter_mut().skip(lets) {
            l.entries = reach;
        }
        let with = self.push_with(scope, body);
        if let Some(when) = &body.when {
            out.when = Some(self.condition(scope, when).x);
        }
        let mut lines_ty = ty;
        if let Some(from) = &body.from {
            lines_ty = self.from(scope, from, ty, path, &mut out);
        }
        self.check_alternatives(body);
        if let Some(first) = &body.first {
            for item in first {
                let wanted = Wanted { list: true, ..Wanted::bare(ty) };
                if let tree::Item::Body(body) = item {
                    let made = self.body(scope, body, ty, path, required);
                    out.places.extend(made.places.iter().cloned());
                    out.first.push(Item::Body("value", Box::new(made)));
                    continue;
                }
                let part = self.item(scope, item, &wanted);
                out.first.push(part.item);
            }
        }
        if let Some(value) = &body.value {
            let wanted = if ty.kind() == fhir::Kind::Resource { reference_to(ty) } else { Wanted { path: path.to_owned(), ..Wanted::bare(ty) } };
            let part = self.item(scope, value, &wanted);
            out.value = Some(Box::new(part.item));
        }
        out.ty = Some(lines_ty);
        let constant = self.lines(scope, body, lines_ty, path, &mut out);
        out.constant = constant && out.from.is_none() && out.value.is_none() && out.first.is_empty();
        if required && out.from.is_none() && out.value.is_none() && out.first.is_empty() {
            self.check_required(&mut out, lines_ty, path, body.span, None);
        }
        if with && let Some(level) = self.with.pop() {
            for ((key, _), used) in level.items.iter().zip(level.used) {
                if !used {
                    self.report(
                        Diagnostic::error("K411", key.span, format!("no map that is called here takes {}", key.text))
                            .label("parameter that nobody takes")
                            .help(format!("add `$takes: {{ {}: TYPE }}` to the map, or remove it here", key.text)),
                    );
                }
            }
        }
        scope.entries.truncate(depth);
        scope.lets.truncate(lets);
        out.needs = needs::body(&out);
        out
    }

    /// Puts `$with` into reach of the maps that are called here; false if there is none.
    pub(crate) fn push_with(&mut self, scope: &Scope<'a>, body: &'a tree::Body) -> bool {
        if body.with.is_empty() {
            return false;
        }
        let items: Vec<_> = body.with.iter().map(|(key, item)| (key, item)).collect();
        let used = vec![false; items.len()];
        self.with.push(With { items, scope: scope.clone(), used });
        true
    }

    /// `$each`: its values become the current one.
    pub(crate) fn each(&mut self, scope: &mut Scope<'a>, each: &'a tree::Each) -> (X, Option<X>, bool) {
        let values = self.raw(scope, &each.values);
        let mut entry = Entry::of(&values);
        if let tree::ExprKind::Variable(name) = &each.values.kind {
            entry.variable = Some(name.clone());
        }
        let slot = scope.push(entry);
        // The key is that of each value; behind it the current value is the whole group.
        let by = each.by.as_ref().map(|by| self.raw(scope, by).x);
        if let (Some(entry), true) = (scope.entries.get_mut(slot), by.is_some()) {
            entry.group = true;
        }
        (values.x, by, values.typed.many)
    }

    /// `$from`: starts with the value converted; a reference starts with the resource that it will refer to.
    fn from(&mut self, scope: &mut Scope<'a>, from: &'a tree::Each, ty: Type, path: &str, out: &mut Body) -> Type {
        if let Some(by) = &from.by {
            let fault =
                Diagnostic::error("K110", by.span, "`$from` converts one value after the other, so nothing can be grouped").label("`by` belongs to `$each`");
            self.report(fault.help("write `$each: VALUES by KEY` for the groups, and say in the lines what becomes of their values"));
        }
        let raw = self.raw_for_from(scope, &from.values);
        let (mut compiled, mut lines_ty) = (raw, ty);
        let entry = Entry::of(&compiled);
        let wanted = Wanted { path: path.to_owned(), ..Wanted::bare(ty) };
        // The conversion reads the current value, so that the lines and it see the same one.
        let slot = scope.push(entry);
        let each = std::mem::replace(
            &mut compiled.x,
            X::Path(crate::route::code::Path { root: crate::route::code::Root::Slot(slot), field: None, steps: Vec::new() }),
        );
        out.from_values = Some(each);
        out.many |= compiled.typed.many;
        compiled.typed.many = false;
        out.places.extend(compiled.places.iter().cloned());
        let span = from.values.span;
        let target = as_target(&from.values);
        let joined = match target {
            Some(target) => self.join_to(compiled, target, Some(&wanted), span),
            None => self.join(compiled, &wanted, span),
        };
        if let X::Convert(_, conversion) = &joined.x
            && let crate::route::code::Join::Reference { map, resource, .. } = &conversion.join
        {
            out.from_resource = Some(*map);
            if let Some(ty) = fhir::type_named(resource) {
                lines_ty = ty;
            }
        }
        out.from = Some(joined.x);
        lines_ty
    }

    fn raw_for_from(&mut self, scope: &mut Scope<'a>, expr: &'a tree::Expr) -> Compiled {
        match &expr.kind {
            tree::ExprKind::As(inner, _) => self.raw(scope, inner),
            _ => self.raw(scope, expr),
        }
    }

    /// A `$let` that holds a body, where an element wants its value or an expression reads it.
    pub(crate) fn let_body(&mut self, scope: &mut Scope<'a>, body: &'a tree::Body, wanted: Option<&Wanted>, span: Span) -> Compiled {
        let ty = match wanted {
            Some(w) => w.types.first().copied(),
            None => None,
        };
        if let (Some(value), None) = (&body.value, body.each.as_ref().or(body.from.as_ref())) {
            // `{ $value: X, $with: {...} }`: the value itself, with parameters in reach.
            let with = self.push_with(scope, body);
            let condition = body.when.as_ref().map(|w| self.condition(scope, w));
            let mut compiled = match (&**value, wanted) {
                (tree::Item::Expr(expr), Some(wanted)) => self.wanted(scope, expr, wanted),
                (tree::Item::Expr(expr), None) => self.raw(scope, expr),
                _ => Compiled::nothing(),
            };
            if with {
                self.with.pop();
            }
            if let Some(condition) = condition {
                compiled.x = X::If(Box::new(condition.x), Box::new(compiled.x), Box::new(X::Nothing));
            }
            return compiled;
        }
        let Some(ty) = ty else {
            self.report(
                Diagnostic::error("K401", span, "a body has no type until an element wants it")
                    .label("read here without an element")
                    .help("use it as an element's value"),
            );
            return Compiled::nothing();
        };
        let path = wanted.map_or_else(|| ty.name().to_owned(), |w| w.path.clone());
        let compiled = self.body(scope, body, ty, &path, true);
        let name = wanted.map_or("value", |w| w.name_for(ty));
        let many = compiled.many;
        Compiled { converted: true, ..Compiled::new(X::Body(Box::new(compiled), name), Typed { ty: Ty::Fhir(ty), many }) }
    }

    /// The lines of a route's resource: maps, `$save` and the rest are the route's affair.
    pub(crate) fn resource_body(&mut self, scope: &mut Scope<'a>, body: &'a tree::Body, ty: Type) -> Body {
        let mut out = Body { path: Arc::from(ty.name()), slot: scope.entries.len(), ty: Some(ty), ..Body::default() };
        let constant = self.lines(scope, body, ty, ty.name(), &mut out);
        out.constant = constant;
        out
    }

    /// All element lines; true if none holds an expression.
    fn lines(&mut self, scope: &mut Scope<'a>, body: &'a tree::Body, ty: Type, path: &str, out: &mut Body) -> bool {
        let constant = self.unordered_lines(scope, body, ty, path, out);
        // In FHIR's order, so that nothing has to be sorted per message.
        out.lines.sort_by_key(|line| line.position);
        constant
    }

    fn unordered_lines(&mut self, scope: &mut Scope<'a>, body: &'a tree::Body, ty: Type, path: &str, out: &mut Body) -> bool {
        self.check_unit(body, ty);
        let mut constant = true;
        let mut set: Vec<(&'static str, Vec<&'static str>, Span)> = Vec::new();
        for line in &body.lines {
            let name = line.element.text.as_str();
            if (name == "extension" || name == "modifierExtension")
                && let tree::Item::Body(extensions) = &line.item
            {
                constant &= self.extensions(scope, extensions, name, ty, path, line, out);
                continue;
            }
            if let Some(primitive) = name.strip_prefix('_') {
                constant &= self.companion(scope, primitive, ty, path, line, out);
                continue;
            }
            let Some(wanted) = self.element(ty, &line.element, path) else { continue };
            let part = self.item(scope, &line.item, &wanted);
            if part.many && !wanted.list && !matches!(line.item, tree::Item::List(..)) {
                self.many_into_one(&line.item, &wanted);
            }
            if let (tree::Item::List(_, span), false) = (&line.item, wanted.list) {
                self.report(
                    Diagnostic::error("K303", *span, format!("{} is a single element, not a list", wanted.path))
                        .label("a list")
                        .help("write the fall-backs with ??: `a ?? b`"),
                );
            }
            if line.append && !wanted.list {
                self.report(
                    Diagnostic::error("K303", line.element.span, format!("{} is a single element: nothing can be appended", wanted.path)).label("not a list"),
                );
            }
            let element = wanted.choice.map_or(wanted.name, |c| c.name());
            if let Some((_, _, before)) = set.iter().find(|(e, ..)| *e == element && wanted.choice.is_some()) {
                self.report(
                    Diagnostic::error("K312", line.element.span, format!("two branches of {element} in one body"))
                        .label("the second")
                        .related(*before, "the first")
                        .help(if before.source == line.element.span.source {
                            format!("one line decides: `{element}: a ?? b`")
                        } else {
                            format!("write `{element}:` here, which replaces that line")
                        }),
                );
            }
            let branches: Vec<&'static str> = wanted.choice.map(|c| c.types().map(|t| c.json_name(t)).collect()).unwrap_or_default();
            set.push((element, part.names.clone(), line.element.span));
            constant &= part.constant;
            out.places.extend(part.places.iter().cloned());
            let position = wanted.element.map_or(0, |e| e.position());
            let list = wanted.list;
            let (place, column) = self.spot(line.element.span);
            if wanted.element.is_some_and(|e| e.min() > 0) {
                let names = if branches.is_empty() { vec![wanted.name] } else { branches.clone() };
                out.required.push(Required { element, names, places: part.places.clone(), line: place.clone() });
            }
            let line = BodyLine {
                position,
                name: wanted.name,
                list,
                append: line.append,
                branches,
                needs: needs::of(&part.item),
                item: part.item,
                line: place,
                column,
                places: part.places,
            };
            out.lines.push(line);
        }
        constant
    }

    /// `system: "http://unitsofmeasure.org"` beside `code: "mg"`.
    fn check_unit(&mut self, body: &tree::Body, ty: Type) {
        let line = |name: &str| {
            body.lines.iter().filter(|l| l.element.text == name).find_map(|l| if let tree::Item::Constant(key) = &l.item { Some(key) } else { None })
        };
        let coded = ty.element("code").is_some() && ty.element("system").is_some();
        if let (true, Some(system), Some(code)) = (coded, line("system"), line("code"))
            && system.text == fhir::UCUM
        {
            self.check_ucum(&code.text, code.span);
        }
    }

    pub(crate) fn many_into_one(&mut self, item: &tree::Item, wanted: &Wanted) {
        let span = item.span();
        let text = self.sources.text(span.source).get(span.start as usize..span.end as usize).unwrap_or_default().trim().to_owned();
        let short = text.len() < 60 && !text.contains('\n');
        let help = if short { format!("say which: first({text}), or join(\" \", {text})") } else { "say which: first(...), [1] or join(...)".to_owned() };
        self.report(Diagnostic::error("K405", span, format!("{} takes one value, and this may yield several", wanted.path)).label("may be many").help(help));
    }

    /// What the element of that name wants; `None` after a diagnostic.
    pub(crate) fn element(&mut self, ty: Type, name: &Key, path: &str) -> Option<Wanted> {
        if let Some(element) = ty.element(&name.text) {
            let types: Vec<Type> = element.types().collect();
            let choice = element.is_choice().then_some(element);
            let first = types.first().copied()?;
            return Some(Wanted {
                element: Some(element),
                name: if choice.is_some() { element.name() } else { element.json_name(first) },
                companion: element.companion(first),
                types,
                choice,
                list: element.is_list(),
                path: format!("{path}.{}", element.name()),
            });
        }
        if let Some((element, branch)) = ty.property(&name.text) {
            return Some(Wanted {
                element: Some(element),
                name: element.json_name(branch),
                companion: element.companion(branch),
                types: vec![branch],
                choice: Some(element),
                list: element.is_list(),
                path: format!("{path}.{}", name.text),
            });
        }
        let help = self.suggest_element(ty, &name.text);
        self.report(Diagnostic::error("K301", name.span, format!("{path} has no element {}", name.text)).label("unknown element").help(help));
        None
    }

    /// Any right side, for an element.
    pub(crate) fn item(&mut self, scope: &mut Scope<'a>, item: &'a tree::Item, wanted: &Wanted) -> Part {
        match item {
            tree::Item::Expr(expr) => {
                if matches!(expr.kind, tree::ExprKind::Literal(Literal::Nothing)) {
                    return Part { item: Item::Nothing, many: false, constant: true, places: Vec::new(), names: Vec::new() };
                }
                let compiled = self.wanted(scope, expr, wanted);
                Part { item: Item::X(compiled.x), many: compiled.typed.many, constant: compiled.constant, places: compiled.places, names: Vec::new() }
            }
            tree::Item::Constant(key) => match self.constant(&key.text, wanted, key.span) {
                Some((name, node)) => Part { item: Item::Constant(name, node), many: false, constant: true, places: Vec::new(), names: vec![name] },
                None => Part { item: Item::Nothing, many: false, constant: true, places: Vec::new(), names: Vec::new() },
            },
            tree::Item::List(items, _) => {
                let mut out = Part { item: Item::Nothing, many: true, constant: true, places: Vec::new(), names: Vec::new() };
                let mut parts = Vec::new();
                for item in items {
                    let part = self.item(scope, item, wanted);
                    out.constant &= part.constant;
                    for place in part.places {
                        if !out.places.contains(&place) {
                            out.places.push(place);
                        }
                    }
                    parts.push(part.item);
                }
                out.item = Item::List(parts);
                out
            }
            tree::Item::Body(body) => {
                // A choice's branch is decided by what `$from` or `$first` yields.
                let branching = wanted.types.len() > 1;
                if let (true, Some(element)) = (branching, wanted.choice)
                    && (body.first.is_some() || choice::names_branches(body, wanted, element))
                {
                    return self.choice_body(scope, body, wanted, element);
                }
                if branching && (body.from.is_some() || body.value.is_some()) && body.lines.is_empty() {
                    return self.branching_body(scope, body, wanted);
                }
                let Some(ty) = wanted.types.first().copied().filter(|_| !branching) else {
                    let branches: Vec<&str> = wanted.types.iter().map(|t| wanted.name_for(*t)).collect();
                    self.report(
                        Diagnostic::error("K402", body.span, format!("which branch of {} is this body for?", wanted.path))
                            .label("several types are possible")
                            .help(choice::which_branch(body, wanted, &branches)),
                    );
                    return Part { item: Item::Nothing, many: false, constant: true, places: Vec::new(), names: Vec::new() };
                };
                self.item_of_type(scope, item, ty, &wanted.path, wanted)
            }
        }
    }

    /// `value[x]: { $when: C, $from: OBX-5, $with: {...} }`: no lines, so the value alone decides the branch.
    fn branching_body(&mut self, scope: &mut Scope<'a>, body: &'a tree::Body, wanted: &Wanted) -> Part {
        let with = self.push_with(scope, body);
        let condition = body.when.as_ref().map(|w| self.condition(scope, w));
        let compiled = match (&body.from, body.value.as_deref()) {
            (Some(from), _) => self.wanted(scope, &from.values, wanted),
            (None, Some(tree::Item::Expr(expr))) => self.wanted(scope, expr, wanted),
            _ => Compiled::nothing(),
        };
        if with {
            self.with.pop();
        }
        let x = match condition {
            Some(c) => X::If(Box::new(c.x), Box::new(compiled.x), Box::new(X::Nothing)),
            None => compiled.x,
        };
        Part { item: Item::X(x), many: compiled.typed.many, constant: compiled.constant, places: compiled.places, names: Vec::new() }
    }

    pub(crate) fn item_of_type(&mut self, scope: &mut Scope<'a>, item: &'a tree::Item, ty: Type, path: &str, wanted: &Wanted) -> Part {
        let tree::Item::Body(body) = item else { return self.item(scope, item, wanted) };
        let compiled = self.body(scope, body, ty, path, true);
        let name = wanted.name_for(ty);
        let places = compiled.places.clone();
        let many = compiled.many;
        Part { constant: compiled.constant, item: Item::Body(name, Box::new(compiled)), many, places, names: vec![name] }
    }

    /// K305: what FHIR requires and no line makes. `replacing` is a site's map, with its head, that stands in for a shipped one.
    pub(crate) fn check_required(&mut self, out: &mut Body, ty: Type, path: &str, span: Span, replacing: Option<&(Span, String)>) {
        let missing: Vec<fhir::Element> =
            ty.elements().filter(|e: &fhir::Element| fhir::Element::min(*e) > 0 && !out.required.iter().any(|r| r.element == e.name())).collect();
        let told = replacing.is_some_and(|(at, _)| self.is_faulty(*at));
        for element in missing {
            if told || path == "Extension" || element.name() == "url" {
                continue;
            }
            let line = format!("add a line `{}: ...` ({})", element.name(), element.short());
            let fault = |at, label| Diagnostic::error("K305", at, format!("{path}.{} is required, and no line makes it", element.name())).label(label);
            self.report(match replacing {
                Some((at, head)) => {
                    fault(*at, "replaces the shipped map, which makes it").help(format!("{line}; or begin with `extend: {head}` and change only some lines"))
                }
                None => fault(span, "missing here").help(line),
            });
        }
    }
}

fn reference_to(ty: Type) -> Wanted {
    let reference = fhir::type_named("Reference").unwrap_or(ty);
    Wanted { path: ty.name().to_owned(), ..Wanted::bare(reference) }
}

fn as_target(expr: &tree::Expr) -> Option<&tree::Target> {
    match &expr.kind {
        tree::ExprKind::As(_, target) => Some(target),
        _ => None,
    }
}
