//! The resources of a message: made in the route's order, identified, joined where they are one, and linked.

use crate::fhir::{Identity, ListMerge, Node, Save, SaveMode};
use crate::hl7v2::Message;
use crate::route::code::{Body, Missing, Required, Resource, SaveX, Shared, X};
use crate::route::lineage::Step;
use crate::route::program::{Output, Stop};
use crate::route::run::body::{Building, missing_text};
use crate::route::run::contained::referred;
use crate::route::run::out::Out;
use crate::route::run::trace::{Birth, Facts, Put};
use crate::route::run::value::{Value, Values};
use crate::route::run::{Env, Instance, Made, Referred, Run, identity_of};
use std::collections::{HashMap, HashSet};

/// The system of derived identities: URIs (FHIR R4, Identifier.system).
const URI: &str = "urn:ietf:rfc:3986";

/// So few are compared with each other faster than they are hashed.
const FEW: usize = 24;

/// The most resources that one message may become; more than any server takes in one transaction.
const RESOURCES_MAX: usize = 10_000;

impl<'m> Run<'m> {
    pub(crate) fn route(mut self) -> Result<Output, Stop> {
        let route = self.route;
        let mut work: Vec<(&'m Resource, usize, Option<Value<'m>>)> = Vec::new();
        for resource in &route.resources {
            let mut instances = Vec::new();
            let values = match &resource.each {
                Some((each, by)) => self.each(each, by.as_ref(), 0, &Env::root()),
                None => Values::none(),
            };
            for value in values {
                let env = Env::map(Some(value.clone()), &[], None);
                if let Some(when) = &resource.when
                    && !self.holds(when, &env)
                {
                    continue;
                }
                let segment = value.segment(self.message);
                let entry = self.made.len();
                if entry > RESOURCES_MAX {
                    // Not worth beginning: with nothing left to spend, the run ends at once.
                    self.spend(u64::MAX);
                    break;
                }
                self.made.push(placeholder(resource));
                instances.push(Instance { entry, segment });
                work.push((resource, entry, Some(value)));
            }
            if instances.len() > 1 {
                for (n, instance) in instances.iter().enumerate() {
                    if let Some(made) = self.made.get_mut(instance.entry) {
                        made.save.name = format!("{}[{}]", resource.name, n + 1);
                    }
                }
            }
            self.instances.push(instances);
        }
        for (resource, entry, value) in work {
            if !self.spend(1) {
                break;
            }
            self.make(resource, entry, value);
        }
        self.finish()
    }

    /// One resource of the route.
    fn make(&mut self, resource: &'m Resource, entry: usize, value: Option<Value<'m>>) {
        self.deletes.clear();
        self.contained.clear();
        self.note(|t| t.entry = entry);
        let stopped_before = self.stop.is_some();
        let env = Env::map(value.clone(), &[], None);
        let mut building = Building::default();
        for (from, map) in &resource.maps {
            let Some(map) = self.code.maps.get(*map) else { continue };
            let sources: Values<'m> = match from {
                Some(x) => self.eval(x, &env),
                None => Values::option(value.clone(), true),
            };
            self.note(|t| t.enter(&map.head));
            for source in sources {
                let inner = Env::map(Some(source), &[], Some(&env));
                let mut part = Building::default();
                self.top_body(&map.body, &inner, &mut part);
                building.merge(part);
            }
            self.note(|t| t.leave());
        }
        self.lines(&resource.body, &env, &mut building, true);
        self.attach_contained(&mut building);
        let alive = building.alive && !building.elements.is_empty();
        if !alive {
            self.drop_entry(entry, "the message has nothing to make it from");
            return;
        }
        let skip = resource.save.missing == Missing::Skip;
        let deletes = std::mem::take(&mut self.deletes);
        let initial = resource.save.initial.as_ref().and_then(|body| {
            let mut part = Building::default();
            self.lines(body, &env, &mut part, false);
            (!part.elements.is_empty()).then(|| part.finish())
        });
        // What is only looked for or taken away need not be complete.
        if !stopped_before && matches!(resource.save.mode, SaveMode::Find | SaveMode::Delete) {
            self.stop = None;
        }
        let place = self.made.get(entry).map_or_else(String::new, |m| m.save.name.clone());
        let Some(identity) = self.identity(&resource.save, &env, &mut building, resource.resource_type, || place) else {
            self.drop_entry(entry, "nothing identifies it");
            return;
        };
        // A part that FHIR requires was missing inside: with `skip` only this resource goes.
        if skip && !stopped_before && self.stop.is_some() {
            self.stop = None;
            self.drop_entry(entry, "something that FHIR requires in it stayed empty");
            return;
        }
        let puts = std::mem::take(&mut building.puts);
        let body = with_type(resource.resource_type, building.finish());
        self.note(|t| t.resource(entry, &body, puts));
        if let Some(made) = self.made.get_mut(entry) {
            made.save.body = body;
            made.save.identity = identity;
            made.save.deletes = deletes;
            made.save.initial = initial;
            made.required = &resource.body.required;
            made.skip_when_missing = skip;
            made.logical = matches!(resource.save.shared, Some(Shared::Logical));
        }
    }

    /// A map's body for a resource: its lines are the resource's own.
    fn top_body(&mut self, body: &'m Body, env: &Env<'_, 'm>, building: &mut Building) {
        if let Some(when) = &body.when
            && !self.holds(when, env)
        {
            return;
        }
        if body.each.is_none() && body.from.is_none() && body.value.is_none() && body.first.is_empty() {
            self.lines(body, env, building, true);
            return;
        }
        let mut out = Vec::new();
        self.note(|t| t.collect());
        building.alive |= self.body(body, env, "", &mut Out::Elements(&mut out));
        let mut births = self.noted(|t| t.collected()).unwrap_or_default().into_iter();
        for (_, node) in out {
            let birth = births.next();
            if let Node::Object(elements) = node {
                let mut part = Building::default();
                part.take(elements, body);
                part.puts.extend(birth.map(|b| Put::Taken(Box::new(b))));
                building.merge(part);
            }
        }
    }

    /// What makes the resource the same one next time; `None` if there is nothing and the route says to skip it.
    fn identity(
        &mut self,
        save: &'m SaveX,
        env: &Env<'_, 'm>,
        building: &mut Building,
        resource_type: &'static str,
        place: impl FnOnce() -> String,
    ) -> Option<Vec<Identity>> {
        if save.mode == SaveMode::Create && save.by.is_empty() && !save.derived {
            return Some(Vec::new());
        }
        let mut identity: Vec<Identity> = Vec::new();
        self.note(|t| t.identity(true));
        for x in &save.by {
            if matches!(x, X::Nothing) {
                let found = identifiers(building);
                identity.extend(found);
                continue;
            }
            for value in self.eval(x, env) {
                if let Value::Node(node) = value
                    && let Some(one) = identity_of(&node.1)
                    && !self.code.systems.ignore.contains(&one.value)
                {
                    identity.push(one);
                }
            }
        }
        self.note(|t| t.identity(false));
        dedup(&mut identity);
        let derive = save.derived && identity.is_empty() || (identity.is_empty() && save.missing == Missing::Derive);
        if derive {
            let one = Identity { system: URI.to_owned(), value: format!("urn:uuid:{}", self.derived(&place())) };
            if crate::fhir::type_named(resource_type).and_then(|t| t.element("identifier")).is_some() {
                add_identifier(building, &one, resource_type);
            }
            self.note(|t| t.derived());
            identity.push(one);
        }
        if identity.is_empty() {
            if save.missing == Missing::Skip {
                self.finding("no-identity", format!("{resource_type} was left out: nothing identifies it"), &save.places.join(", "), &save.line);
                return None;
            }
            let places = if save.places.is_empty() { vec![format!("{resource_type}.identifier")] } else { save.places.clone() };
            self.halt(
                "no-identity",
                format!(
                    "nothing identifies this {resource_type}: {} held no value with a system; name the authority, or say `$missing: skip` or `derive`",
                    places.join(", ")
                ),
                places,
                &save.line,
            );
        }
        Some(identity)
    }

    fn drop_entry(&mut self, entry: usize, why: &'static str) {
        self.note(|t| t.gone(entry, why));
        if let Some(made) = self.made.get_mut(entry) {
            made.dropped = true;
        }
    }

    /// The Reference to a resource that a type map makes of a value. Messages name the same doctor, ward and authority again and again: what was
    /// made of the same bytes before is referred to again, if nothing on the way asked where the value stands.
    pub(crate) fn refer(&mut self, map: usize, value: &Value<'m>, arguments: &'m [X], env: &Env<'_, 'm>) -> Option<Node> {
        let part = match value {
            Value::Part(part) if arguments.is_empty() && self.trace.is_none() => *part,
            _ => return self.make_shared(map, value.clone(), arguments, env, None),
        };
        let sent = self.message.raw(part);
        if let Some(known) = self.referred.iter().find(|k| k.map == map && k.level == part.level && k.sent == sent) {
            return known.node.clone();
        }
        let local = self.local.get();
        let node = self.make_shared(map, value.clone(), arguments, env, None);
        if self.local.get() == local && self.referred.len() < FEW {
            self.referred.push(Referred { map, level: part.level, sent, node: node.clone() });
        }
        node
    }

    /// A resource that a type map makes because a reference wants it; the result is the Reference.
    pub(crate) fn make_shared(&mut self, map: usize, value: Value<'m>, arguments: &'m [X], env: &Env<'_, 'm>, over: Option<&'m Body>) -> Option<Node> {
        let (code, message) = (self.code.maps.get(map)?, self.message);
        let from = value.clone();
        let inner = Env::map(Some(value), arguments, Some(env));
        if let Some(when) = &code.body.when
            && !self.holds(when, &inner)
        {
            return None;
        }
        let resource = code.resource?;
        if let Some(item) = &code.body.value {
            let mut out = Vec::new();
            self.note(|t| t.call(&code.head));
            self.item(item, &inner, "value", &mut Out::Elements(&mut out));
            self.note(|t| t.returned(false));
            return out.into_iter().next().map(|(_, node)| node);
        }
        let deletes = std::mem::take(&mut self.deletes);
        let mut building = Building::default();
        self.note(|t| t.enter(&code.head));
        self.lines(&code.body, &inner, &mut building, false);
        self.note(|t| t.leave());
        if let Some(over) = over {
            self.lines(over, env, &mut building, false);
        }
        self.deletes = deletes;
        if !building.alive || building.elements.is_empty() {
            return None;
        }
        self.check_required(&code.body, &building);
        let route = self.route;
        let shared = route.shared.iter().find(|(ty, _)| *ty == resource).map(|(_, how)| *how);
        let how = shared.or(code.save.as_ref().and_then(|s| s.shared)).unwrap_or(Shared::Save(code.save.as_ref().map_or(SaveMode::CreateIfNone, |s| s.mode)));
        match how {
            Shared::Logical => {
                self.note(|t| {
                    t.step(Step::Refers { name: resource.to_lowercase(), save: "logical" }, None);
                    t.child_lines(logical_puts(&mut building));
                });
                logical_reference(building)
            }
            Shared::Contained => {
                self.note(|t| t.step(Step::Refers { name: resource.to_lowercase(), save: "contained" }, None));
                Some(self.contain(building, resource))
            }
            Shared::Save(mode) => {
                let identity = match &code.save {
                    Some(save) => self.identity(save, &inner, &mut building, resource, || place_of(message, &code.head, &from))?,
                    None => {
                        let mut found = identifiers(&building);
                        dedup(&mut found);
                        if found.is_empty() {
                            let one = Identity { system: URI.to_owned(), value: format!("urn:uuid:{}", self.derived(&place_of(message, &code.head, &from))) };
                            add_identifier(&mut building, &one, resource);
                            self.note(|t| t.derived());
                            found.push(one);
                        }
                        found
                    }
                };
                let puts = std::mem::take(&mut building.puts);
                let body = with_type(resource, building.finish());
                if let Some(known) = self.same(resource, &identity) {
                    self.note(|t| {
                        let name = self.made.get(known).map_or_else(String::new, |m| m.save.name.clone());
                        t.step(Step::Refers { name, save: "already made by this message" }, None);
                        t.again(known, &body, puts);
                    });
                    if self.made.get(known).is_some_and(|m| m.save.body != body) {
                        let line = code.save.as_ref().map_or_else(|| std::sync::Arc::from(""), |s| s.line.clone());
                        self.finding("differing", format!("one {resource} is described in two ways; the first was taken"), &code.head, &line);
                    }
                    return self.reference_node(known);
                }
                let entry = self.made.len();
                let count = self.made.iter().filter(|m| m.save.resource_type == resource).count();
                let name = format!("{}[{}]", resource.to_lowercase(), count + 1);
                self.note(|t| {
                    t.step(Step::Refers { name: name.clone(), save: mode.words() }, None);
                    t.shared(entry, &code.head, &body, puts);
                });
                let merge: Vec<(&'static str, ListMerge)> = code.save.as_ref().map(|s| s.merge.clone()).unwrap_or_default();
                self.made.push(Made {
                    save: Save { name, resource_type: resource, mode, identity, body, deletes: Vec::new(), merge, initial: None },
                    logical: false,
                    dropped: false,
                    required: &[],
                    skip_when_missing: false,
                });
                self.reference_node(entry)
            }
        }
    }

    /// An entry of the same type with a common identity.
    fn same(&self, resource: &str, identity: &[Identity]) -> Option<usize> {
        self.made.iter().position(|m| m.save.resource_type == resource && !m.dropped && m.save.identity.iter().any(|i| identity.contains(i)))
    }

    fn contain(&mut self, mut building: Building, resource: &'static str) -> Node {
        self.depends_on_place();
        let id = format!("{}{}", resource.to_lowercase(), self.contained.len() + 1);
        let puts = std::mem::take(&mut building.puts);
        let Node::Object(mut elements) = with_type(resource, building.finish()) else { return Node::Object(Vec::new()) };
        elements.insert(1, ("id", Node::Text(id.clone())));
        let node = Node::Object(elements);
        self.note(|t| t.contain(&node, puts));
        self.contained.push(node);
        Node::Object(vec![("reference", Node::Text(format!("#{id}")))])
    }

    fn attach_contained(&mut self, building: &mut Building) {
        if !self.contained.is_empty() {
            let kept = referred(building.elements.iter().map(|(_, node)| node), &self.contained);
            let mut keep = kept.iter().copied();
            self.contained.retain(|_| keep.next().unwrap_or(true));
            self.note(|t| t.keep_contained(&kept));
        }
        if !self.contained.is_empty() {
            self.note(|t| building.puts.push(t.attach_contained()));
            building.add("contained", Node::List(std::mem::take(&mut self.contained)));
        }
    }

    /// The instances in the nearest group around `here` in which the structure has a place for what they are made from.
    fn nearest(&self, instances: &[Instance], here: u32, own: bool) -> Option<Vec<usize>> {
        let mut nodes: Vec<crate::hl7v2::NodeId> = Vec::new();
        let mut loose = false;
        for instance in instances {
            match instance.segment.and_then(|s| self.placement.segments.get(s as usize)).and_then(|p| p.node) {
                Some(node) if !nodes.contains(&node) => nodes.push(node),
                Some(_) => {}
                None => loose = true,
            }
        }
        let mut at = self.placement.segments.get(here as usize).map(|p| p.group);
        while let Some(group) = at.and_then(|g| self.placement.groups.get(g as usize)) {
            let inside: Vec<usize> = instances.iter().filter(|i| i.segment.is_some_and(|s| (group.first..group.end).contains(&s))).map(|i| i.entry).collect();
            let holds = self.structure.is_some_and(|s| nodes.iter().any(|n| crate::route::scope::below(s, group.node, *n).is_some_and(|many| many || !own)));
            // What the structure doesn't foresee is where it was found.
            if holds || (loose && !inside.is_empty()) {
                return Some(inside);
            }
            at = group.parent;
        }
        None
    }

    /// The segment that a resource of the route is made from.
    pub(crate) fn segment_of_made(&self, entry: usize) -> Option<u32> {
        // Entries grow within each resource.
        self.instances.iter().find_map(|all| all.get(all.binary_search_by_key(&entry, |i| i.entry).ok()?)).and_then(|i| i.segment)
    }

    pub(crate) fn reference_node(&self, entry: usize) -> Option<Node> {
        let made = self.made.get(entry)?;
        if made.dropped {
            return None;
        }
        Some(Node::Object(vec![("reference", Node::Link(entry))]))
    }

    /// A resource by its name in the route: of the nearest group around that may hold the segments it is made from, whether it does or not.
    /// The specimen of another order is never the one of this. `own`: siblings are meant, so the group must be able to hold several.
    pub(crate) fn resource_reference(&self, index: usize, place: &'static str, here: Option<u32>, own: bool) -> Values<'m> {
        self.depends_on_place();
        let Some(instances) = self.instances.get(index) else { return Values::none() };
        let mut near: Vec<usize> = instances.iter().map(|i| i.entry).collect();
        if let Some(here) = here {
            let own_segment = instances.iter().any(|i| i.segment == Some(here));
            if own_segment && !own {
                near = instances.iter().filter(|i| i.segment == Some(here)).map(|i| i.entry).collect();
            } else if near.len() > 1 || !own {
                near = self.nearest(instances, here, own).unwrap_or(near);
            }
        }
        let mut values = Values { alive: true, ..Values::none() };
        for entry in near {
            if place.is_empty() {
                values.push(Value::Made(entry));
            } else if let Some(node) = self.reference_node(entry) {
                values.push(Value::Node(Box::new((place, node))));
            }
        }
        values
    }

    /// Joins what is one, drops what was skipped, and numbers links anew.
    fn finish(mut self) -> Result<Output, Stop> {
        let count = self.made.len();
        if !self.spend(0) || count > RESOURCES_MAX {
            let text = format!("the message is too large for route {}: {} segments, {count} resources or more", self.route_name, self.message.segment_count());
            return Err(Stop { kind: "too-large", text, places: Vec::new(), line: self.route.line.to_string() });
        }
        self.note(|t| {
            for (n, made) in self.made.iter().enumerate() {
                let save = if made.logical { "logical" } else { made.save.mode.words() };
                t.names.insert(n, Facts { name: made.save.name.clone(), resource_type: made.save.resource_type, save });
            }
        });
        let mut to: Vec<Option<usize>> = (0..count).map(Some).collect();
        let mut owners: HashMap<(&'static str, &Identity), usize> = HashMap::new();
        let mut differing = Vec::new();
        for n in 0..count {
            let Some(made) = self.made.get(n) else { continue };
            if made.dropped {
                to[n] = None;
                continue;
            }
            let names = made.save.identity.iter().map(|i| (made.save.resource_type, i));
            let owner = if count <= FEW {
                (0..n).find(|m| to[*m] == Some(*m) && self.made.get(*m).is_some_and(|m| m.save.same_resource(&made.save)))
            } else {
                names.clone().filter_map(|name| owners.get(&name)).min().copied()
            };
            match owner {
                None if count <= FEW => {}
                None => owners.extend(names.map(|name| (name, n))),
                Some(first) => {
                    to[n] = Some(first);
                    if self.made.get(first).is_some_and(|f| f.save.body != made.save.body) {
                        let text = format!("{} and another {} of this message have one identity; the first was taken", made.save.name, made.save.resource_type);
                        differing.push(text);
                    }
                }
            }
        }
        for text in differing {
            self.finding("differing", text, "", &std::sync::Arc::from(""));
        }
        let mut complete = (0..count).all(|n| to[n] == Some(n) && !self.made.get(n).is_some_and(|m| m.logical));
        // Dropping one may leave another without what FHIR requires, so this goes on until nothing changes.
        loop {
            let mut again = false;
            for n in 0..count {
                if to[n] != Some(n) {
                    continue;
                }
                let lost = {
                    let Some(made) = self.made.get_mut(n) else { continue };
                    if !complete {
                        strip(&mut made.save.body, &to);
                    }
                    lost_requirement(made)
                };
                if let Some(Required { names, places, line, .. }) = lost {
                    let element = names.first().copied().unwrap_or("");
                    let Some(made) = self.made.get(n) else { continue };
                    if made.skip_when_missing {
                        let text = format!("{} was left out: {element} stayed empty", made.save.name);
                        self.finding("skipped", text, &places.join(", "), line);
                        (again, complete) = (true, false);
                        for link in &mut to {
                            if *link == Some(n) {
                                *link = None;
                            }
                        }
                        continue;
                    }
                    let (text, places) = missing_text(made.save.resource_type, element, places);
                    self.halt("required-empty", text, places, line);
                }
            }
            if !again {
                break;
            }
        }
        if let Some(stop) = self.stop {
            return Err(stop);
        }
        if (0..count).all(|n| to[n].is_none()) {
            let names: Vec<&str> = self.route.resources.iter().map(|r| &*r.name).collect();
            let text = format!("the message has nothing that route {} makes {} from", self.route_name, names.join(" or "));
            let line: std::sync::Arc<str> = std::sync::Arc::from("");
            self.finding("nothing-made", text, "", &line);
        }
        let mut index = vec![None; count];
        let mut next = 0;
        for n in 0..count {
            if to[n] == Some(n) && !self.made.get(n).is_some_and(|m| m.logical) {
                index[n] = Some(next);
                next += 1;
            }
        }
        self.note(|t| t.finish(&to, &index));
        let mut output = Output { findings: self.findings, ..Output::default() };
        let links: Vec<Option<usize>> = (0..count).map(|n| to[n].and_then(|t| index[t])).collect();
        for (n, mut made) in self.made.into_iter().enumerate() {
            if index[n].is_some() {
                if !complete {
                    renumber(&mut made.save.body, &links);
                }
                output.saves.entries.push(made.save);
            }
        }
        Ok(output)
    }
}

/// Where in the message a shared resource comes from, for an identity that stays the same when the message comes again.
fn place_of(message: &Message, head: &str, value: &Value<'_>) -> String {
    match value {
        Value::Part(part) => {
            let (segment, field) = message.place_of(*part);
            format!("{head}/{segment}/{field}/{}", part.start)
        }
        Value::Segment(n) => format!("{head}/{n}"),
        _ => head.to_owned(),
    }
}

fn placeholder<'m>(resource: &Resource) -> Made<'m> {
    Made {
        save: Save {
            name: resource.name.to_string(),
            resource_type: resource.resource_type,
            mode: resource.save.mode,
            identity: Vec::new(),
            body: Node::Object(Vec::new()),
            deletes: Vec::new(),
            merge: resource.save.merge.clone(),
            initial: None,
        },
        logical: false,
        dropped: false,
        required: &[],
        skip_when_missing: false,
    }
}

fn with_type(resource: &str, node: Node) -> Node {
    let Node::Object(mut elements) = node else { return node };
    elements.insert(0, ("resourceType", Node::Text(resource.to_owned())));
    Node::Object(elements)
}

fn identifiers(building: &Building) -> Vec<Identity> {
    let found = building.elements.iter().find(|(name, _)| *name == "identifier").map(|(_, node)| node);
    match found {
        Some(Node::List(list)) => list.iter().filter_map(identity_of).collect(),
        Some(one) => identity_of(one).into_iter().collect(),
        None => Vec::new(),
    }
}

fn add_identifier(building: &mut Building, identity: &Identity, resource_type: &str) {
    let Some(element) = crate::fhir::type_named(resource_type).and_then(|t| t.element("identifier")) else { return };
    let node = Node::Object(vec![("system", Node::Text(identity.system.clone())), ("value", Node::Text(identity.value.clone()))]);
    match building.elements.iter_mut().find(|(name, _)| *name == "identifier") {
        Some((_, Node::List(list))) => list.push(node),
        Some(_) => {}
        None => {
            let node = if element.is_list() { Node::List(vec![node]) } else { node };
            building.add("identifier", node);
        }
    }
}

fn dedup(identity: &mut Vec<Identity>) {
    if identity.len() < 2 {
        return;
    }
    if identity.len() <= FEW {
        let mut n = 1;
        while n < identity.len() {
            match identity.split_at(n) {
                (before, [one, ..]) if before.contains(one) => {
                    identity.remove(n);
                }
                _ => n += 1,
            }
        }
        return;
    }
    let mut seen = HashSet::with_capacity(identity.len());
    identity.retain(|one| seen.insert(one.clone()));
}

/// `Reference.identifier` and `display`, for what is never saved.
fn logical_reference(mut building: Building) -> Option<Node> {
    let mut element = |wanted: &str| {
        let found = building.elements.iter_mut().find(|(name, _)| *name == wanted);
        found.map(|(_, node)| std::mem::replace(node, Node::Bool(false)))
    };
    let mut reference = Vec::with_capacity(2);
    let identifier = match element("identifier") {
        Some(Node::List(list)) => list.into_iter().next(),
        other => other,
    };
    if let Some(identifier) = identifier {
        reference.push(("identifier", identifier));
    }
    let display = match element("name") {
        Some(Node::Text(text)) => Some(text),
        Some(Node::List(list)) => list.first().and_then(person_name),
        Some(other) => person_name(&other),
        None => None,
    };
    if let Some(display) = display {
        reference.push(("display", Node::Text(display)));
    }
    (!reference.is_empty()).then_some(Node::Object(reference))
}

fn person_name(node: &Node) -> Option<String> {
    let Node::Object(elements) = node else { return None };
    let texts = |wanted: &str| match elements.iter().find(|(n, _)| *n == wanted).map(|(_, v)| v) {
        Some(Node::List(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    if let Some(text) = texts("text").iter().find_map(Node::as_text) {
        return Some(text.to_owned());
    }
    let mut name = String::new();
    for part in ["prefix", "given", "family", "suffix"].into_iter().flat_map(texts).filter_map(Node::as_text) {
        if !name.is_empty() {
            name.push(' ');
        }
        name.push_str(part);
    }
    (!name.is_empty()).then_some(name)
}

/// What a logical reference takes of a resource: its first identifier and its name.
fn logical_puts(building: &mut Building) -> Vec<Put> {
    let mut puts = Vec::new();
    for put in std::mem::take(&mut building.puts) {
        match put {
            Put::Line { name: "identifier", births, .. } => {
                puts.push(Put::Line { name: "identifier", list: false, append: false, branches: Vec::new(), births })
            }
            Put::Line { name: "name", births, .. } => {
                let births = births.into_iter().take(1).map(|b| Birth { name: "display", ..b }).collect();
                puts.push(Put::Line { name: "display", list: false, append: false, branches: Vec::new(), births });
            }
            _ => {}
        }
    }
    puts
}

/// Removes references to what is not there any more.
fn strip(node: &mut Node, to: &[Option<usize>]) {
    let gone = |node: &Node| match node {
        Node::Object(elements) => elements.iter().any(|(_, v)| matches!(v, Node::Link(n) if to.get(*n).copied().flatten().is_none())),
        _ => false,
    };
    match node {
        Node::Object(elements) => {
            elements.retain(|(_, child)| !gone(child));
            for (_, child) in elements.iter_mut() {
                strip(child, to);
            }
            elements.retain(|(_, child)| !matches!(child, Node::List(list) if list.is_empty()));
        }
        Node::List(list) => {
            list.retain(|child| !gone(child));
            for child in list.iter_mut() {
                strip(child, to);
            }
        }
        _ => {}
    }
}

fn lost_requirement<'m>(made: &Made<'m>) -> Option<&'m Required> {
    let Node::Object(elements) = &made.save.body else { return None };
    let initial = match &made.save.initial {
        Some(Node::Object(initial)) => initial.as_slice(),
        _ => &[],
    };
    made.required.iter().find(|required| !required.met_by(elements) && !required.met_by(initial))
}

fn renumber(node: &mut Node, links: &[Option<usize>]) {
    match node {
        Node::Object(elements) => elements.iter_mut().for_each(|(_, child)| renumber(child, links)),
        Node::List(list) => list.iter_mut().for_each(|child| renumber(child, links)),
        Node::Link(n) => {
            if let Some(Some(new)) = links.get(*n) {
                *n = *new;
            }
        }
        _ => {}
    }
}
