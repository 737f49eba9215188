//! The end of a run: what is one is joined, what was skipped is dropped, and links are numbered anew.

use crate::fhir::{Identity, Node};
use crate::route::code::Required;
use crate::route::program::{Output, Stop};
use crate::route::run::body::missing_text;
use crate::route::run::resource::{FEW, RESOURCES_MAX};
use crate::route::run::trace::Facts;
use crate::route::run::{Made, Run};
use std::collections::HashMap;

impl<'m> Run<'m> {
    /// Joins what is one, drops what was skipped, and numbers links anew.
    pub(crate) fn finish(mut self) -> Result<Output, Stop> {
        let count = self.made.len();
        if !self.spend(0) || count > RESOURCES_MAX {
            let (segments, most) = (self.message.segment_count(), self.message.most_frequent());
            let most = most.map_or_else(String::new, |(name, times, first)| format!(", {times} of them {name}, from line {first} of the message on"));
            let text = format!("the message is too large for route {}: {segments} segments{most}; {count} resources or more", self.route_name);
            return Err(Stop { kind: "too-large", text, places: Vec::new(), unknown: Vec::new(), line: self.route.line.to_string() });
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
        let unknown = self.unknown.take();
        if let Some(stop) = self.stop {
            return Err(Stop { unknown, ..stop });
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
        let mut output = Output { findings: self.findings, unknown, ..Output::default() };
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
