//! What a resource's name in the route means: those of the nearest group around, as with a segment's name.

use crate::fhir::Node;
use crate::route::run::value::{Value, Values};
use crate::route::run::{Instance, Run};

impl<'m> Run<'m> {
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
}
