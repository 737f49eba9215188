//! What makes a resource the same one next time: the identity that its route or map names, or one derived from the message.

use crate::fhir::{Identity, Node, SaveMode};
use crate::route::code::{Missing, SaveX, X};
use crate::route::run::body::Building;
use crate::route::run::resource::FEW;
use crate::route::run::value::Value;
use crate::route::run::{Env, Run, identity_of};
use std::collections::HashSet;

/// The system of derived identities: URIs (FHIR R4, Identifier.system).
pub(crate) const URI: &str = "urn:ietf:rfc:3986";

impl<'m> Run<'m> {
    /// What makes the resource the same one next time; `None` if there is nothing and the route says to skip it.
    pub(crate) fn identity(
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
}

pub(crate) fn identifiers(building: &Building) -> Vec<Identity> {
    let found = building.elements.iter().find(|(name, _)| *name == "identifier").map(|(_, node)| node);
    match found {
        Some(Node::List(list)) => list.iter().filter_map(identity_of).collect(),
        Some(one) => identity_of(one).into_iter().collect(),
        None => Vec::new(),
    }
}

pub(crate) fn add_identifier(building: &mut Building, identity: &Identity, resource_type: &str) {
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

pub(crate) fn dedup(identity: &mut Vec<Identity>) {
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
