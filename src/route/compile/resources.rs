//! The resources of a route: the maps that fill them, the route's own lines, and what both leave open.

use crate::diagnostic::{Diagnostic, Span, suggest};
use crate::fhir::{self, Kind, Type};
use crate::route::code::{Body, Map, Resource, Shared, X};
use crate::route::compile::Compiler;
use crate::route::compile::saves::mode;
use crate::route::compile::scope::{AskedName, Entry, Named, Scope};
use crate::route::names::intern;
use crate::route::tree::{self, ExprKind, Key, Target, Verb};
use crate::route::types::Ty;
use std::sync::Arc;

impl<'a> Compiler<'a> {
    pub(crate) fn shared(&mut self, ty: &Key, save: &tree::Save) -> Option<(&'static str, Shared)> {
        let Some(found) = fhir::type_named(&ty.text).filter(|t| t.kind() == Kind::Resource) else {
            let names: Vec<&str> = fhir::types().filter(|t| t.kind() == Kind::Resource).map(|t| t.name()).collect();
            let help = crate::diagnostic::suggest(&ty.text, names.iter().copied()).map_or_else(String::new, |n| format!("did you mean {n}?"));
            self.report(Diagnostic::error("K302", ty.span, format!("FHIR R4 has no resource {}", ty.text)).label("unknown resource").help(help));
            return None;
        };
        let how = match save.verb {
            Verb::Contained => Shared::Contained,
            Verb::Logical => Shared::Logical,
            verb => {
                let by_identifier = matches!(save.by.as_slice(), [tree::Expr { kind: ExprKind::Name(name, _), .. }] if name == "identifier");
                if !by_identifier {
                    self.report(
                        Diagnostic::error("K602", save.span, "a shared resource is identified by its own identifiers")
                            .label("only `by identifier` is possible here")
                            .help("write `create by identifier`, `find by identifier`, `contained` or `logical`"),
                    );
                }
                Shared::Save(mode(verb, true))
            }
        };
        Some((found.name(), how))
    }

    /// The type that a resource's first map makes, or that its `$search`... names.
    pub(crate) fn resource_type(&self, body: &tree::Body) -> Option<Type> {
        body.maps.first().and_then(|(_, target)| fhir::type_named(&target.name))
    }

    pub(crate) fn route_resource(&mut self, name: &'a Key, body: &'a tree::Body, resources: &[Named], asked: &[AskedName], maps: &[Map]) -> Option<Resource> {
        let Some((source, target)) = body.maps.first() else {
            self.report(
                Diagnostic::error("K614", name.span, format!("{} does not say what it is made from", name.text))
                    .label("no `$map`")
                    .help("add `$map: PID -> Patient`, for example"),
            );
            return None;
        };
        let ty = self.resource_type(body).filter(|t| t.kind() == Kind::Resource);
        let Some(ty) = ty else {
            let names = fhir::types().filter(|t| t.kind() == Kind::Resource).map(|t| t.name());
            let help = suggest(&target.name, names).map_or_else(|| "write a resource, such as Patient".to_owned(), |n| format!("did you mean {n}?"));
            self.report(Diagnostic::error("K302", target.span, format!("{} is no resource of FHIR R4", target.name)).label("must make a resource").help(help));
            return None;
        };
        let own = resources.iter().position(|r| r.name == name.text);
        let mut scope = Scope { resources: resources.to_vec(), asked: asked.to_vec(), own, unit: self.unit(), ..Scope::default() };
        let each = match &body.each {
            Some(each) => {
                let (values, by, _) = self.each(&mut scope, each);
                Some((values, by))
            }
            None => {
                let values = self.segment_value(&mut scope, source, source.span)?;
                let segment = intern(&source.text);
                scope.push(Entry::one(Ty::Segment(segment), None, Some(segment)));
                Some((values, None))
            }
        };
        let reach = scope.entries.len();
        scope.lets.extend(body.lets.iter().map(|(name, item)| crate::route::compile::scope::Let { name, item, entries: reach }));

        let mut used = Vec::new();
        for (n, (source, target)) in body.maps.iter().enumerate() {
            let Some(map) = self.find_map(source, target) else { continue };
            if self.maps[map].ty != ty {
                self.report(
                    Diagnostic::error("K615", target.span, format!("{} makes {}, not {}", self.map_name(map), self.maps[map].ty.name(), ty.name()))
                        .label("another resource"),
                );
                continue;
            }
            let from = if n == 0 && body.each.is_none() { None } else { self.segment_value(&mut scope, source, source.span) };
            self.called.push(map);
            used.push((from, map));
        }
        self.check_twice(&used, maps, body);
        let when = body.when.as_ref().map(|w| self.condition(&mut scope, w).x);
        let compiled = self.resource_lines(&mut scope, body, ty, maps, &used);
        let bodies: Vec<&Body> = used.iter().filter_map(|(_, m)| maps.get(*m)).map(|m| &m.body).chain(std::iter::once(&compiled)).collect();
        let made_by = used.first().and_then(|(_, m)| self.maps.get(*m)).map(|m| m.span).filter(|_| used.len() == body.maps.len());
        let save = match &body.save {
            Some(save) => self.save(&mut scope, save, body.missing.as_ref(), &body.merge, body.initial.as_deref(), ty.name(), &bodies, made_by),
            None if body.save_refused => return None,
            None => {
                self.report(
                    Diagnostic::error("K601", name.span, format!("{} does not say how it is saved", name.text))
                        .label("no `$save`")
                        .help("add `$save: update by ...`, `create by ...`, `merge by ...` or `put by ...`"),
                );
                return None;
            }
        };
        Some(Resource { name: Arc::from(name.text.as_str()), resource_type: ty.name(), each, when, maps: used, body: compiled, save })
    }

    /// The route's own lines, then what FHIR requires of all maps and lines together.
    fn resource_lines(&mut self, scope: &mut Scope<'a>, body: &'a tree::Body, ty: Type, maps: &[Map], used: &[(Option<X>, usize)]) -> Body {
        let mut compiled = self.resource_body(scope, body, ty);
        let mut union = Body::default();
        for (_, map) in used {
            if let Some(map) = maps.get(*map) {
                union.required.extend(map.body.required.iter().map(copy_required));
                if map.body.from.is_some() || map.body.value.is_some() || !map.body.first.is_empty() {
                    return compiled;
                }
            }
        }
        let own: Vec<_> = compiled.required.iter().map(copy_required).collect();
        for required in own {
            union.required.retain(|r| r.element != required.element);
            union.required.push(required);
        }
        if let Some(initial) = &body.initial {
            for line in &initial.lines {
                if let Some(element) = ty.element(&line.element.text).or_else(|| ty.property(&line.element.text).map(|(e, _)| e))
                    && !union.required.iter().any(|r| r.element == element.name())
                {
                    union.required.push(crate::route::code::Required {
                        element: element.name(),
                        names: vec![intern(&line.element.text)],
                        places: Vec::new(),
                        line: self.line(line.element.span),
                    });
                }
            }
        }
        // What is only looked up or deleted is never written.
        if body.save.as_ref().is_some_and(|save| matches!(save.verb, Verb::Find | Verb::Delete)) {
            compiled.required.clear();
            return compiled;
        }
        let heads = used.iter().filter_map(|(_, m)| self.maps.get(*m).map(|head| (*m, head.span)));
        let replacing = self.blamed(body.span, heads.clone().map(|(_, span)| span));
        let replacing = heads.clone().find(|(_, span)| replacing == Some(*span)).map(|(m, span)| (span, self.map_name(m)));
        self.check_required(&mut union, ty, ty.name(), body.span, replacing.as_ref());
        compiled.required = union.required;
        compiled
    }

    /// K310: two maps that set one single element.
    fn check_twice(&mut self, used: &[(Option<X>, usize)], maps: &[Map], body: &tree::Body) {
        let mut seen: Vec<(&'static str, usize)> = Vec::new();
        let mut faults = Vec::new();
        for (n, (_, map)) in used.iter().enumerate() {
            let Some(compiled) = maps.get(*map) else { continue };
            for line in compiled.body.lines.iter().filter(|l| !l.list) {
                match seen.iter().find(|(name, _)| *name == line.name) {
                    Some((_, other)) if other != map && !body.lines.iter().any(|l| l.element.text == line.name) => faults.push((n, line.name, *other)),
                    _ => seen.push((line.name, *map)),
                }
            }
        }
        for (n, element, other) in faults {
            let span = body.maps.get(n).map_or(body.span, |(_, t)| t.span);
            let second = used.get(n).map_or(other, |(_, map)| *map);
            if self.told_at_line(span, element, second, other) {
                continue;
            }
            let other = self.map_name(other);
            self.report(
                Diagnostic::error("K310", span, format!("{element} is set by two maps"))
                    .label("the second")
                    .help(format!("the first is {other}; a line `{element}:` here decides")),
            );
        }
    }

    /// A path that yields the segments of that name from here.
    fn segment_value(&mut self, scope: &mut Scope<'a>, source: &'a Key, span: Span) -> Option<X> {
        if !self.v2.is_segment(&source.text) {
            let help = self.suggest_source(&source.text);
            self.report(Diagnostic::error("K202", source.span, format!("there is no segment {}", source.text)).label("unknown segment").help(help));
            return None;
        }
        Some(self.segment_path(scope, false, &[], source, None, None, &[], span).x)
    }

    fn find_map(&mut self, source: &Key, target: &Target) -> Option<usize> {
        let found = self.maps_to_target(target).find(|(_, m)| m.source == source.text && m.target.element == target.element).map(|(n, _)| n);
        if found.is_none() {
            let there: Vec<String> = (0..self.maps.len()).filter(|n| self.maps[*n].source == source.text).map(|n| self.map_name(n)).collect();
            let help =
                if there.is_empty() { format!("add `map: {} -> {}`", source.text, target.written()) } else { format!("there are: {}", there.join(", ")) };
            self.report(
                Diagnostic::error("K401", target.span, format!("there is no map {} -> {}", source.text, target.written())).label("unknown map").help(help),
            );
        }
        found
    }
}

fn copy_required(r: &crate::route::code::Required) -> crate::route::code::Required {
    crate::route::code::Required { element: r.element, names: r.names.clone(), places: r.places.clone(), line: r.line.clone() }
}
