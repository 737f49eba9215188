//! Which types a route saves, and in which ways: those that it names, and those that its maps make where a reference wants them.

use crate::fhir::SaveMode;
use crate::route::RouteId;
use crate::route::RouteSet;
use crate::route::code::{Body, Code, Item, Join, Route, SaveX, Shared, X};

impl RouteSet {
    /// The types that a route saves, each with its way, for what a server must be able to do. Empty for a route that makes messages.
    pub fn saves_of(&self, route: RouteId) -> Vec<(&'static str, SaveMode)> {
        let Some((code, _, route)) = self.program(route) else { return Vec::new() };
        let mut reach = Reach { code, route, seen: Vec::new(), found: Vec::new() };
        for resource in &route.resources {
            reach.save(resource.resource_type, Some(&resource.save));
            resource.each.iter().for_each(|(each, key)| reach.each(each, key.as_ref()));
            resource.when.iter().for_each(|x| reach.x(x));
            for (from, map) in &resource.maps {
                from.iter().for_each(|x| reach.x(x));
                reach.map(*map);
            }
            reach.body(&resource.body);
            resource.save.by.iter().for_each(|x| reach.x(x));
            resource.save.initial.iter().for_each(|body| reach.body(body));
        }
        reach.found
    }
}

/// What is reached from a route.
struct Reach<'c> {
    code: &'c Code,
    route: &'c Route,
    seen: Vec<usize>,
    found: Vec<(&'static str, SaveMode)>,
}

impl<'c> Reach<'c> {
    fn save(&mut self, resource_type: &'static str, save: Option<&SaveX>) {
        let mode = match save.and_then(|s| s.shared) {
            Some(Shared::Save(mode)) => mode,
            Some(Shared::Contained | Shared::Logical) => return,
            None => save.map_or(SaveMode::CreateIfNone, |s| s.mode),
        };
        if !self.found.contains(&(resource_type, mode)) {
            self.found.push((resource_type, mode));
        }
    }

    /// A map that makes a resource of its own: saved as the route says for its type, else as the map says.
    fn reference(&mut self, map: usize, resource_type: &'static str) {
        let code = self.code;
        match self.route.shared.iter().find(|(ty, _)| *ty == resource_type) {
            Some((_, Shared::Save(mode))) if !self.found.contains(&(resource_type, *mode)) => self.found.push((resource_type, *mode)),
            Some(_) => {}
            None => self.save(resource_type, code.maps.get(map).and_then(|m| m.save.as_ref())),
        }
        self.map(map);
    }

    fn map(&mut self, map: usize) {
        let code = self.code;
        if let Some(found) = code.maps.get(map).filter(|_| !self.seen.contains(&map)) {
            self.seen.push(map);
            self.body(&found.body);
        }
    }

    fn each(&mut self, each: &'c X, key: Option<&'c X>) {
        self.x(each);
        key.into_iter().for_each(|x| self.x(x));
    }

    fn body(&mut self, body: &'c Body) {
        body.each.iter().for_each(|(each, key)| self.each(each, key.as_ref()));
        [&body.from_values, &body.from, &body.when].into_iter().flatten().for_each(|x| self.x(x));
        if let Some(map) = body.from_resource {
            match self.code.maps.get(map).and_then(|m| m.resource) {
                Some(resource_type) => self.reference(map, resource_type),
                None => self.map(map),
            }
        }
        body.first.iter().for_each(|item| self.item(item));
        body.value.iter().for_each(|item| self.item(item));
        body.lines.iter().for_each(|line| self.item(&line.item));
    }

    fn item(&mut self, item: &'c Item) {
        match item {
            Item::X(x) => self.x(x),
            Item::Body(_, body) => self.body(body),
            Item::List(items) => items.iter().for_each(|i| self.item(i)),
            Item::Extension(_, inner) => self.item(inner),
            Item::Constant(..) | Item::Nothing => {}
        }
    }

    fn x(&mut self, x: &'c X) {
        x.children().into_iter().for_each(|inner| self.x(inner));
        match x {
            X::Convert(_, conversion) => self.join(&conversion.join),
            X::Body(body, _) => self.body(body),
            _ => {}
        }
    }

    fn join(&mut self, join: &'c Join) {
        match join {
            Join::Map { map, arguments, .. } => {
                arguments.iter().for_each(|x| self.x(x));
                self.map(*map);
            }
            Join::Reference { map, arguments, resource } => {
                arguments.iter().for_each(|x| self.x(x));
                self.reference(*map, resource);
            }
            Join::Varies(branches) => branches.values().for_each(|(join, _)| self.join(join)),
            _ => {}
        }
    }
}
