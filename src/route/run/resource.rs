//! The resources of a message: made in the route's order, identified, joined where they are one, and linked.

use crate::fhir::{Node, Save, SaveMode};
use crate::route::code::{Body, Missing, Resource, Shared};
use crate::route::program::{Output, Stop};
use crate::route::run::body::Building;
use crate::route::run::out::Out;
use crate::route::run::trace::Put;
use crate::route::run::value::{Value, Values};
use crate::route::run::{Env, Instance, Made, Run};

/// So few are compared with each other faster than they are hashed.
pub(crate) const FEW: usize = 24;

/// The most resources that one message may become; more than any server takes in one transaction.
pub(crate) const RESOURCES_MAX: usize = 10_000;

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
                let mut part = Building::with_room(map.body.lines.len());
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

    fn drop_entry(&mut self, entry: usize, why: &'static str) {
        self.note(|t| t.gone(entry, why));
        if let Some(made) = self.made.get_mut(entry) {
            made.dropped = true;
        }
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

pub(crate) fn with_type(resource: &str, node: Node) -> Node {
    let Node::Object(mut elements) = node else { return node };
    elements.insert(0, ("resourceType", Node::Text(resource.to_owned())));
    Node::Object(elements)
}
