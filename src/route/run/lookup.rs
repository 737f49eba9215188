//! Which segments a path's root means, seen from where it is asked.

use crate::hl7v2::{NodeId, Structure};
use crate::route::run::Run;
use crate::route::scope::{Lookup, Place, resolve};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};

/// What a look-up found from a group. Segments of groups of one kind often see the same.
pub(crate) struct Looked {
    group: u32,
    node: NodeId,
    place: Option<Arc<Place>>,
    /// The group that was searched.
    at: u32,
    found: Rc<[u32]>,
}

impl Run<'_> {
    /// The segments that a look-up means, seen from a segment (or from the message).
    pub(crate) fn segments(&self, lookup: usize, from: Option<u32>) -> Rc<[u32]> {
        self.depends_on_place();
        let Some(wanted) = self.code.lookups.get(lookup) else { return Rc::default() };
        // Most look-ups of most routes are for what most senders leave out.
        if self.sent_names & bit(&wanted.segment) == 0 {
            return Rc::clone(&self.none);
        }
        let group = from.and_then(|s| self.placement.segments.get(s as usize)).map_or(0, |p| p.group);
        let instance = self.placement.groups.get(group as usize);
        let (Some(structure), Some(instance)) = (self.structure.filter(|_| !wanted.all), instance) else { return self.named(&wanted.segment) };
        let mut looked = self.looked.borrow_mut();
        if looked.is_empty() {
            looked.resize_with(self.code.lookups.len(), || None);
        }
        let Some(known) = looked.get_mut(lookup) else { return Rc::default() };
        if let Some(known) = known
            && known.group == group
        {
            return Rc::clone(&known.found);
        }
        let alike = known.take().filter(|known| known.node == instance.node);
        let place = match &alike {
            Some(known) => known.place.clone(),
            None => self.place(structure, instance.node, lookup, wanted),
        };
        let name = wanted.segment.as_str();
        let mut at = group;
        let found = match &place {
            Some(place) => {
                for _ in 0..place.up {
                    at = self.placement.groups.get(at as usize).and_then(|g| g.parent).unwrap_or(0);
                }
                match alike.filter(|known| known.at == at) {
                    Some(known) => known.found,
                    None => self.in_group(at, name, Some(&place.nodes)),
                }
            }
            // Not in the structure: the nearest group around that has one.
            None => {
                let mut around = Some(group);
                loop {
                    let Some(n) = around else { break Rc::default() };
                    let found = self.in_group(n, name, None);
                    if !found.is_empty() {
                        break found;
                    }
                    around = self.placement.groups.get(n as usize).and_then(|g| g.parent);
                }
            }
        };
        *known = Some(Looked { group, node: instance.node, place, at, found: Rc::clone(&found) });
        found
    }

    /// Where a look-up leads from groups of that kind.
    fn place(&self, structure: Structure, node: NodeId, lookup: usize, wanted: &Lookup) -> Option<Arc<Place>> {
        let key = (structure, node, lookup);
        if let Some(known) = self.places.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.clone();
        }
        let found = resolve(structure, node, wanted).or_else(|| elsewhere(structure, node, wanted)).map(Arc::new);
        self.places.write().unwrap_or_else(PoisonError::into_inner).insert(key, found.clone());
        found
    }

    /// From where the group of this instance is searched, and what kind of group it starts from: where both are the same, a look-up finds the same.
    pub(crate) fn searched(&self, lookup: usize, from: Option<u32>) -> (u32, NodeId) {
        let everywhere = (u32::MAX, Structure::ROOT);
        let (Some(structure), Some(wanted)) = (self.structure, self.code.lookups.get(lookup)) else { return everywhere };
        let mut at = from.and_then(|s| self.placement.segments.get(s as usize)).map_or(0, |p| p.group);
        let Some(instance) = self.placement.groups.get(at as usize).filter(|_| !wanted.all) else { return everywhere };
        let known = self.places.read().unwrap_or_else(PoisonError::into_inner).get(&(structure, instance.node, lookup)).cloned();
        for _ in 0..known.flatten().map_or(0, |place| place.up) {
            at = self.placement.groups.get(at as usize).and_then(|g| g.parent).unwrap_or(0);
        }
        (at, instance.node)
    }

    fn in_group(&self, group: u32, name: &str, nodes: Option<&[NodeId]>) -> Rc<[u32]> {
        let Some(instance) = self.placement.groups.get(group as usize) else { return Rc::default() };
        let wanted = |n: &u32| match (nodes, self.placement.segments.get(*n as usize).and_then(|p| p.node)) {
            (Some(nodes), Some(node)) => nodes.contains(&node),
            _ => true,
        };
        let segments = instance.first..instance.end;
        if segments.len() <= SHORT_GROUP {
            self.spend(segments.len() as u64);
            return segments.filter(|n| self.message.is_segment(*n as usize, name) && wanted(n)).collect();
        }
        let all = self.named(name);
        let inside = all.get(all.partition_point(|n| *n < segments.start)..all.partition_point(|n| *n < segments.end)).unwrap_or_default();
        if !self.spend(inside.len() as u64) {
            return Rc::default();
        }
        inside.iter().copied().filter(wanted).collect()
    }

    /// All segments of a name, found once a run: a long message must not be searched anew for each of its segments.
    fn named(&self, name: &str) -> Rc<[u32]> {
        let mut known = self.named.borrow_mut();
        if let Some((_, found)) = known.iter().find(|(other, _)| other == name) {
            return Rc::clone(found);
        }
        let found: Rc<[u32]> = self.message.segments_named(name).filter_map(|n| u32::try_from(n).ok()).collect();
        known.push((name.to_owned(), Rc::clone(&found)));
        found
    }
}

/// A bit for a segment's name, in any case. Several names share one.
pub(super) fn bit(name: &str) -> u64 {
    1 << (name.bytes().fold(0_u32, |sum, b| sum.wrapping_mul(5).wrapping_add(u32::from(b.to_ascii_uppercase()))) % 64)
}

/// `PATIENT_OBSERVATION.OBX` in a version without that group, whose OBX stand elsewhere: a place without nodes, so that those are not taken for it.
fn elsewhere(structure: Structure, context: NodeId, wanted: &Lookup) -> Option<Place> {
    let plain = Lookup { all: false, anchors: Vec::new(), segment: wanted.segment.clone() };
    let other = (!wanted.anchors.is_empty()).then(|| resolve(structure, context, &plain)).flatten();
    other.map(|_| Place { up: 0, nodes: Vec::new(), many: false, tied: false })
}

/// A group of so few segments is searched one by one.
const SHORT_GROUP: usize = 64;
