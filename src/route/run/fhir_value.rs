//! FHIR values that a question found: elements, references, their text, and what they are in v2.

use crate::fhir::{Answers, Kind, Node, Type, type_named};
use crate::hl7v2::Piece;
use crate::route::asking::ElementStep;
use crate::route::code::X;
use crate::route::lineage::Step;
use crate::route::run::value::{Value, Values};
use crate::route::run::{Env, Run, moment};
use crate::route::tree::Index;
use serde_json::Value as Json;
use std::borrow::Cow;

impl<'m> Run<'m> {
    /// What question `n` found.
    pub(crate) fn asked(&mut self, n: usize) -> Values<'m> {
        self.depends_on_place();
        let Some(ask) = self.route.asks.get(n) else { return Values::none() };
        let found = self.context.answers.found(n);
        self.note(|t| {
            let count = found.map_or(0, |found| found.matches.len());
            t.step(Step::Asked { name: ask.name.to_string(), found: count }, None);
        });
        let mut values = Values { alive: true, ..Values::none() };
        let most = if ask.several == crate::route::asking::Several::First { 1 } else { usize::MAX };
        found.into_iter().flat_map(|found| &found.matches).take(most).for_each(|json| values.push(Value::Fhir(json, ask.resource)));
        values
    }

    /// `Patient.name.family`.
    pub(crate) fn elements(&mut self, inner: &'m X, steps: &'m [ElementStep], env: &Env<'_, 'm>) -> Values<'m> {
        let mut values = self.eval(inner, env);
        for step in steps {
            let alive = values.alive;
            if let ElementStep::Index(index) = step {
                values = match index {
                    Index::Nth(n) => Values::option((*n as usize).checked_sub(1).and_then(|n| values.into_iter().nth(n)), alive),
                    Index::Last => Values::option(values.last(), alive),
                };
                continue;
            }
            let mut below = Values { alive, ..Values::none() };
            for value in values {
                let Value::Fhir(json, ty) = value else { continue };
                match step {
                    ElementStep::Element(names) => push_elements(json, names, &mut below),
                    ElementStep::Of(wanted) if ty.is(*wanted) => below.push(Value::Fhir(json, ty)),
                    ElementStep::Of(_) | ElementStep::Index(_) => {}
                    ElementStep::Follow(wanted) => match self.follow(json, *wanted) {
                        Some(resource) => below.push(Value::Fhir(resource, *wanted)),
                        None => self.note(|t| t.step(Step::Failed(format!("no {} that this refers to was found or came along", wanted.name())), None)),
                    },
                }
            }
            values = below;
        }
        values
    }

    /// The resource that a Reference leads to, among what was found and what came along with it.
    fn follow(&self, reference: &'m Json, wanted: Type) -> Option<&'m Json> {
        let text = reference.get("reference").and_then(Json::as_str)?;
        let is_wanted = |json: &&Json| json.get("resourceType").and_then(Json::as_str) == Some(wanted.name());
        // A reference means what its own server has.
        let own = |resource: &&Json| holds(resource, reference);
        let answers = &self.context.answers.entries;
        let (answered, container) = answers.iter().find_map(|answered| Some((answered, Answers::resources_of(answered).find(own)?)))?;
        if let Some(id) = text.strip_prefix('#') {
            let contained = container.get("contained").and_then(Json::as_array).into_iter().flatten();
            return contained.filter(is_wanted).find(|json| json.get("id").and_then(Json::as_str) == Some(id));
        }
        let (_, found) = answered.answer.as_ref()?;
        let local = found.local(text)?;
        // Perhaps with a version.
        let plain = local.split("/_history/").next().unwrap_or(local);
        let (_, id) = plain.split_once('/').filter(|(name, _)| *name == wanted.name())?;
        let of_server = answers.iter().filter(|other| other.target == answered.target).flat_map(Answers::resources_of);
        of_server.filter(is_wanted).find(|json| json.get("id").and_then(Json::as_str) == Some(id))
    }

    /// A primitive as v2 writes it: `19800131` of a date, the text of anything else. Of a composite, what it stands for: a code, an identifier's value.
    pub(crate) fn fhir_text(&self, json: &'m Json, ty: Type) -> Cow<'m, str> {
        let part = |name: &str| json.get(name).and_then(Json::as_str).map_or(Cow::Borrowed(""), Cow::Borrowed);
        match (json, ty.name()) {
            (Json::String(text), "date" | "dateTime" | "instant") => moment::from_fhir(text).map_or(Cow::Borrowed(""), Cow::Owned),
            (Json::String(text), "time") => Cow::Owned(text.replace(':', "")),
            (Json::String(text), _) => Cow::Borrowed(text),
            (Json::Number(n), _) => Cow::Owned(n.to_string()),
            (Json::Bool(b), _) => Cow::Borrowed(if *b { "true" } else { "false" }),
            (_, "Coding") => part("code"),
            (_, "CodeableConcept") => first_of(json, "coding").and_then(|coding| coding.get("code")?.as_str()).map_or(Cow::Borrowed(""), Cow::Borrowed),
            (_, "Identifier" | "ContactPoint") => part("value"),
            (_, "Reference") => part("reference"),
            _ => Cow::Borrowed(""),
        }
    }

    /// As a person reads it.
    pub(crate) fn fhir_readable(&self, json: &'m Json, ty: Type) -> Cow<'m, str> {
        let joined = |names: &[&str], separator: &str| {
            let texts = names.iter().filter_map(|name| json.get(*name)).flat_map(|value| match value {
                Json::Array(all) => all.iter().filter_map(Json::as_str).map(Cow::Borrowed).collect::<Vec<_>>(),
                Json::String(text) => vec![Cow::Borrowed(text.as_str())],
                Json::Number(n) => vec![Cow::Owned(n.to_string())],
                _ => Vec::new(),
            });
            Cow::Owned(texts.collect::<Vec<_>>().join(separator))
        };
        if let Some(text) = json.get("text").and_then(Json::as_str).filter(|t| !t.is_empty()) {
            return Cow::Borrowed(text);
        }
        match ty.name() {
            "HumanName" => joined(&["prefix", "given", "family", "suffix"], " "),
            "Address" => joined(&["line", "postalCode", "city", "state", "country"], ", "),
            "Quantity" | "Age" | "Duration" | "SimpleQuantity" => joined(&["comparator", "value", "unit"], " "),
            "Coding" => json.get("display").and_then(Json::as_str).map_or_else(|| self.fhir_text(json, ty), Cow::Borrowed),
            "CodeableConcept" => match (first_of(json, "coding"), type_named("Coding")) {
                (Some(coding), Some(ty)) => self.fhir_readable(coding, ty),
                _ => Cow::Borrowed(""),
            },
            "Reference" => json.get("display").and_then(Json::as_str).map_or(Cow::Borrowed(""), Cow::Borrowed),
            _ => self.fhir_text(json, ty),
        }
    }

    /// What it is in v2: text, Y or N, or a coded value (CWE, chapter 2A). Nothing for what has no one form there.
    pub(crate) fn fhir_piece(&self, json: &'m Json, ty: Type) -> Option<Piece> {
        match (json, ty.name()) {
            (Json::Bool(b), _) => Some(Piece::Text(if *b { "Y" } else { "N" }.to_owned())),
            (_, "Coding") => composite(self.coding_pieces(json).into()),
            (_, "CodeableConcept") => {
                let mut codings = json.get("coding").and_then(Json::as_array).into_iter().flatten();
                let none = || [Piece::empty(), Piece::empty(), Piece::empty()];
                let mut parts: Vec<Piece> = codings.next().map_or_else(none, |coding| self.coding_pieces(coding)).into();
                parts.extend(codings.next().map_or_else(none, |coding| self.coding_pieces(coding)));
                let text = json.get("text").and_then(Json::as_str).unwrap_or_default();
                // Components 7 and 8 are the versions of the two code systems.
                parts.extend([Piece::empty(), Piece::empty(), Piece::Text(text.to_owned())]);
                composite(parts)
            }
            _ if ty.kind() == Kind::Primitive => {
                let text = self.fhir_text(json, ty).into_owned();
                (!text.is_empty()).then_some(Piece::Text(text))
            }
            _ => None,
        }
    }

    /// Code, text and coding system.
    fn coding_pieces(&self, coding: &Json) -> [Piece; 3] {
        let part = |name: &str| coding.get(name).and_then(Json::as_str).unwrap_or_default();
        let system = part("system");
        let name = if system.is_empty() { String::new() } else { self.coding_system(system) };
        [Piece::Text(part("code").to_owned()), Piece::Text(part("display").to_owned()), Piece::Text(name)]
    }

    /// The `reference` to a resource that was found.
    pub(crate) fn found_reference(json: &Json, ty: Type) -> Option<Node> {
        let id = json.get("id").and_then(Json::as_str)?;
        Some(Node::Object(vec![("reference", Node::Text(format!("{}/{id}", ty.name())))]))
    }
}

/// A FHIR value as a tree that can stand in another resource. What R4 does not define there is left out.
pub(crate) fn node(json: &Json, ty: Type) -> Option<Node> {
    match json {
        Json::Object(object) => {
            let ty = object.get("resourceType").and_then(Json::as_str).and_then(type_named).unwrap_or(ty);
            let elements = object.iter().filter_map(|(name, value)| {
                if name == "resourceType" {
                    return value.as_str().map(|text| ("resourceType", Node::Text(text.to_owned())));
                }
                if let Some(bare) = name.strip_prefix('_') {
                    let (element, branch) = ty.property(bare)?;
                    return Some((element.companion(branch), node(value, branch)?));
                }
                let (element, branch) = ty.property(name)?;
                Some((element.json_name(branch), node(value, branch)?))
            });
            let elements: Vec<_> = elements.collect();
            (!elements.is_empty()).then_some(Node::Object(elements))
        }
        // A gap stays where it is: the lists of a primitive's values and of their extensions go side by side.
        Json::Array(entries) if entries.iter().any(Json::is_null) => {
            let entries: Vec<Node> = entries.iter().map(|entry| node(entry, ty).unwrap_or(Node::Null)).collect();
            (!entries.iter().all(|entry| matches!(entry, Node::Null))).then_some(Node::List(entries))
        }
        Json::Array(entries) => {
            let entries: Vec<Node> = entries.iter().filter_map(|entry| node(entry, ty)).collect();
            (!entries.is_empty()).then_some(Node::List(entries))
        }
        Json::String(text) => (!text.is_empty()).then(|| Node::Text(text.clone())),
        Json::Number(n) => Node::number(&n.to_string()),
        Json::Bool(b) => Some(Node::Bool(*b)),
        Json::Null => None,
    }
}

fn push_elements<'m>(json: &'m Json, names: &[(&'static str, Type)], out: &mut Values<'m>) {
    for (name, ty) in names {
        match json.get(*name) {
            Some(Json::Array(all)) => all.iter().filter(|one| !one.is_null()).for_each(|one| out.push(Value::Fhir(one, *ty))),
            Some(Json::Null) | None => {}
            Some(one) => out.push(Value::Fhir(one, *ty)),
        }
    }
}

/// Without empty parts at its end; nothing if there is no other.
fn composite(mut parts: Vec<Piece>) -> Option<Piece> {
    while parts.last().is_some_and(Piece::is_empty) {
        parts.pop();
    }
    (!parts.is_empty()).then_some(Piece::Parts(parts))
}

fn first_of<'m>(json: &'m Json, name: &str) -> Option<&'m Json> {
    json.get(name)?.as_array()?.first()
}

/// Is that very value somewhere in the tree?
fn holds(tree: &Json, value: &Json) -> bool {
    std::ptr::eq(tree, value)
        || match tree {
            Json::Object(object) => object.values().any(|inner| holds(inner, value)),
            Json::Array(all) => all.iter().any(|inner| holds(inner, value)),
            _ => false,
        }
}
