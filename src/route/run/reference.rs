//! What a resource's name in the route means: those of the nearest group around, as with a segment's name.

use crate::fhir::Node;
use crate::hl7v2::NodeId;
use crate::route::run::value::{Value, Values};
use crate::route::run::{Instance, Run};
use smallvec::SmallVec;
use std::rc::Rc;

/// Which instances of a resource were nearest, seen from a group of some kind.
pub(crate) struct Near {
    kind: NodeId,
    own: bool,
    /// So many groups around the own one...
    up: usize,
    /// ...is the group that they stand in.
    at: u32,
    entries: Rc<[usize]>,
}

impl<'m> Run<'m> {
    /// The instances in the nearest group around `here` in which the structure has a place for what they are made from.
    fn nearest(&self, index: usize, instances: &[Instance], here: u32, own: bool) -> Option<Rc<[usize]>> {
        let home = self.placement.segments.get(here as usize).map(|p| p.group)?;
        let kind = self.placement.groups.get(home as usize)?.node;
        let mut known = self.near.borrow_mut();
        if known.is_empty() {
            known.resize_with(self.route.resources.len(), || None);
        }
        let alike = known.get(index).and_then(Option::as_ref).filter(|near| near.kind == kind && near.own == own);
        if let Some(near) = alike {
            let at = (0..near.up).try_fold(home, |at, _| self.placement.groups.get(at as usize)?.parent);
            if at == Some(near.at) {
                return Some(Rc::clone(&near.entries));
            }
        }
        let mut nodes: SmallVec<[NodeId; 4]> = SmallVec::new();
        let mut loose = false;
        for instance in instances {
            match instance.segment.and_then(|s| self.placement.segments.get(s as usize)).and_then(|p| p.node) {
                Some(node) if !nodes.contains(&node) => nodes.push(node),
                Some(_) => {}
                None => loose = true,
            }
        }
        let (mut at, mut up) = (Some(home), 0);
        while let Some((number, group)) = at.and_then(|g| Some((g, self.placement.groups.get(g as usize)?))) {
            let inside: Rc<[usize]> = instances.iter().filter(|i| i.segment.is_some_and(|s| (group.first..group.end).contains(&s))).map(|i| i.entry).collect();
            let holds = self.structure.is_some_and(|s| nodes.iter().any(|n| crate::route::scope::below(s, group.node, *n).is_some_and(|many| many || !own)));
            // What the structure doesn't foresee is where it was found.
            if holds || (loose && !inside.is_empty()) {
                // Which group it is hangs on the kind of the own group alone, unless something is loose.
                if let Some(near) = known.get_mut(index).filter(|_| !loose) {
                    *near = Some(Near { kind, own, up, at: number, entries: Rc::clone(&inside) });
                }
                return Some(inside);
            }
            (at, up) = (group.parent, up + 1);
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
        let mut values = Values { alive: true, ..Values::none() };
        let mut refer = |entry: usize| {
            if place.is_empty() {
                values.push(Value::Made(entry));
            } else if let Some(node) = self.reference_node(entry) {
                values.push(Value::Node(Box::new((place, node))));
            }
        };
        let all = || instances.iter().map(|i| i.entry);
        match here {
            Some(here) if !own && instances.iter().any(|i| i.segment == Some(here)) => {
                instances.iter().filter(|i| i.segment == Some(here)).for_each(|i| refer(i.entry));
            }
            Some(here) if instances.len() > 1 || !own => match self.nearest(index, instances, here, own) {
                Some(near) => near.iter().for_each(|entry| refer(*entry)),
                None => all().for_each(refer),
            },
            _ => all().for_each(refer),
        }
        values
    }
}
