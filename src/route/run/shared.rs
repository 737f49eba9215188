//! Resources that type maps make because a reference wants them: saved beside the others, contained, or only named.

use crate::fhir::{Identity, ListMerge, Node, Save, SaveMode};
use crate::hl7v2::Message;
use crate::route::code::{Body, Shared, X};
use crate::route::lineage::Step;
use crate::route::run::body::Building;
use crate::route::run::contained::referred;
use crate::route::run::identity::{URI, add_identifier, dedup, identifiers};
use crate::route::run::out::Out;
use crate::route::run::resource::{FEW, with_type};
use crate::route::run::trace::{Birth, Put};
use crate::route::run::value::Value;
use crate::route::run::{Env, Made, Referred, Run};

impl<'m> Run<'m> {
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
        let route = self.route;
        let shared = route.shared.iter().find(|(ty, _)| *ty == resource).map(|(_, how)| *how);
        let how = shared.or(code.save.as_ref().and_then(|s| s.shared)).unwrap_or(Shared::Save(code.save.as_ref().map_or(SaveMode::CreateIfNone, |s| s.mode)));
        // What is saved by itself holds what it contains; a contained one leaves that to the resource around it, since FHIR nests none.
        let around = matches!(how, Shared::Save(_)).then(|| (std::mem::take(&mut self.contained), self.noted(|t| t.set_contained_aside())));
        let deletes = std::mem::take(&mut self.deletes);
        let mut building = Building::with_room(code.body.lines.len());
        self.note(|t| t.enter(&code.head));
        self.lines(&code.body, &inner, &mut building, false);
        self.note(|t| t.leave());
        if let Some(over) = over {
            self.lines(over, env, &mut building, false);
        }
        self.deletes = deletes;
        if let Some((contained, births)) = around {
            self.attach_contained(&mut building);
            self.contained = contained;
            self.note(|t| t.take_contained_back(births));
        }
        if !building.alive || building.elements.is_empty() {
            return None;
        }
        self.check_required(&code.body, &building);
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

    pub(crate) fn contain(&mut self, mut building: Building, resource: &'static str) -> Node {
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

    pub(crate) fn attach_contained(&mut self, building: &mut Building) {
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
