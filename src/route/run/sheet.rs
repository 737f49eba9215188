//! A message under construction: segments in groups, placed by the abstract syntax or by their declaration.
//!
//! Groups live in one list and refer to each other by number, so that lines can change one while they look at another.

use crate::hl7v2::{Coding, DraftSegment, NodeId, Placement, Structure};
use std::collections::{HashMap, HashSet};

/// A segment of the sheet, by group and place in it. Valid until the next removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    slot: usize,
}

struct Slot {
    segment: Option<DraftSegment>,
    /// The segment of the message that it is a copy of.
    origin: Option<u32>,
    node: Option<NodeId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Item {
    Segment(usize),
    Group(usize),
}

struct Group {
    node: Option<NodeId>,
    name: &'static str,
    items: Vec<Item>,
}

pub(crate) struct Sheet {
    structure: Option<Structure>,
    /// `(ZPI, PID)`.
    declared: Vec<(String, String)>,
    slots: Vec<Slot>,
    /// 0 is the message.
    groups: Vec<Group>,
    /// Instances of the copied message: their group here.
    instances: HashMap<u32, usize>,
    last: Option<u32>,
}

impl Sheet {
    pub(crate) fn empty(structure: Option<Structure>, declared: &[(String, String)]) -> Self {
        let root = Group { node: Some(Structure::ROOT), name: "", items: Vec::new() };
        Self { structure, declared: declared.to_vec(), slots: Vec::new(), groups: vec![root], instances: HashMap::from([(0, 0)]), last: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Appends a segment of the message in its group.
    pub(crate) fn copy(&mut self, placement: &Placement, number: u32, segment: DraftSegment) {
        let place = placement.segments.get(number as usize);
        let instance = place.map_or(0, |p| p.group);
        let group = self.instance(placement, instance);
        // A segment that was placed back into an outer group ends the inner one here, so that the order stays that of the message.
        if self.last.is_some_and(|last| last != instance) && self.is_around(placement, instance, self.last.unwrap_or(0)) {
            self.instances.retain(|i, _| *i == 0 || is_within(placement, instance, *i));
        }
        self.last = Some(instance);
        self.slots.push(Slot { segment: Some(segment), origin: Some(number), node: place.and_then(|p| p.node) });
        let slot = self.slots.len() - 1;
        if let Some(group) = self.groups.get_mut(group) {
            group.items.push(Item::Segment(slot));
        }
    }

    fn is_around(&self, placement: &Placement, outer: u32, inner: u32) -> bool {
        outer != inner && is_within(placement, inner, outer)
    }

    fn instance(&mut self, placement: &Placement, instance: u32) -> usize {
        if let Some(known) = self.instances.get(&instance) {
            return *known;
        }
        let Some(facts) = placement.groups.get(instance as usize) else { return 0 };
        let parent = self.instance(placement, facts.parent.unwrap_or(0));
        let name = self.structure.map_or("", |s| s.node(facts.node).name);
        let group = self.push_group(Some(facts.node), name);
        if let Some(parent) = self.groups.get_mut(parent) {
            parent.items.push(Item::Group(group));
        }
        self.instances.insert(instance, group);
        group
    }

    fn push_group(&mut self, node: Option<NodeId>, name: &'static str) -> usize {
        self.groups.push(Group { node, name, items: Vec::new() });
        self.groups.len() - 1
    }

    /// All slots below a group, in order.
    fn below(&self, group: usize, out: &mut Vec<usize>) {
        for item in self.groups.get(group).map(|g| g.items.as_slice()).unwrap_or_default() {
            match item {
                Item::Segment(slot) => out.push(*slot),
                Item::Group(inner) => self.below(*inner, out),
            }
        }
    }

    /// The segments of that name below a group; `only`: those copies.
    pub(crate) fn find(&self, group: usize, name: &str, only: Option<&HashSet<u32>>) -> Vec<Found> {
        let mut slots = Vec::new();
        self.below(group, &mut slots);
        let fits = |slot: &usize| {
            self.slots.get(*slot).is_some_and(|s| {
                s.segment.as_ref().is_some_and(|d| d.name().eq_ignore_ascii_case(name)) && only.is_none_or(|only| s.origin.is_some_and(|o| only.contains(&o)))
            })
        };
        slots.into_iter().filter(fits).map(|slot| Found { slot }).collect()
    }

    pub(crate) fn origin(&self, at: Found) -> Option<u32> {
        self.slots.get(at.slot).and_then(|s| s.origin)
    }

    pub(crate) fn take(&mut self, at: Found) -> Option<DraftSegment> {
        self.slots.get_mut(at.slot).and_then(|s| s.segment.take())
    }

    pub(crate) fn put(&mut self, at: Found, segment: DraftSegment) {
        if let Some(slot) = self.slots.get_mut(at.slot) {
            slot.segment = Some(segment);
        }
    }

    /// The segment of that name which stands directly in a copied group, as the message has it.
    pub(crate) fn main_of(&self, group: usize, name: &str) -> Option<u32> {
        let items = self.groups.get(group).map(|g| g.items.as_slice()).unwrap_or_default();
        items.iter().find_map(|item| {
            let Item::Segment(slot) = item else { return None };
            let slot = self.slots.get(*slot)?;
            slot.segment.as_ref().filter(|s| s.name().eq_ignore_ascii_case(name)).and(slot.origin)
        })
    }

    /// Puts a segment behind another one.
    pub(crate) fn insert_behind(&mut self, at: Found, origin: Option<u32>, segment: DraftSegment) -> Found {
        let node = self.slots.get(at.slot).and_then(|s| s.node);
        self.slots.push(Slot { segment: Some(segment), origin, node });
        let slot = self.slots.len() - 1;
        if let Some((home, place)) = self.position(Item::Segment(at.slot))
            && let Some(group) = self.groups.get_mut(home)
        {
            group.items.insert(place + 1, Item::Segment(slot));
        }
        Found { slot }
    }

    pub(crate) fn remove(&mut self, found: &[Found]) {
        let gone: HashSet<usize> = found.iter().map(|f| f.slot).collect();
        for group in &mut self.groups {
            group.items.retain(|item| !matches!(item, Item::Segment(slot) if gone.contains(slot)));
        }
    }

    /// The instances of a group of that name below a group.
    pub(crate) fn groups(&self, group: usize, name: &str) -> Vec<usize> {
        let mut found = Vec::new();
        for item in self.groups.get(group).map(|g| g.items.as_slice()).unwrap_or_default() {
            if let Item::Group(inner) = item {
                if self.groups.get(*inner).is_some_and(|g| g.name == name) {
                    found.push(*inner);
                }
                found.extend(self.groups(*inner, name));
            }
        }
        found
    }

    /// The segments of the message that stand in groups of that name.
    pub(crate) fn in_groups(&self, group: usize, name: &str) -> Vec<u32> {
        let mut slots = Vec::new();
        self.groups(group, name).into_iter().for_each(|inner| self.below(inner, &mut slots));
        slots.into_iter().filter_map(|slot| self.slots.get(slot)?.origin).collect()
    }

    pub(crate) fn remove_groups(&mut self, group: usize, name: &str) {
        let gone = self.groups(group, name);
        for group in &mut self.groups {
            group.items.retain(|item| !matches!(item, Item::Group(inner) if gone.contains(inner)));
        }
    }

    /// A new instance of a group, where the structure has it.
    pub(crate) fn begin_group(&mut self, group: usize, name: &'static str) -> usize {
        let path = self.path_to(group, name, true);
        let home = self.home(group, &path);
        let node = path.last().copied();
        let new = self.push_group(node, name);
        self.insert_item(home, node, Item::Group(new));
        new
    }

    /// Puts a segment where its declaration or the structure has it.
    pub(crate) fn insert(&mut self, group: usize, origin: Option<u32>, segment: DraftSegment) {
        let name = segment.name().to_owned();
        let declared = self.declared.iter().find(|(extra, _)| *extra == name).map(|(_, after)| after.clone());
        let mut path = self.path_to(group, &name, false);
        if let (true, Some(after)) = (path.is_empty(), &declared) {
            // Where the segment that it follows would stand.
            path = self.path_to(group, after, false);
        }
        self.slots.push(Slot { segment: Some(segment), origin, node: path.last().copied() });
        let slot = self.slots.len() - 1;
        if let Some(after) = declared {
            let before = self.find(group, &after, None).last().copied();
            if let Some((home, at)) = before.and_then(|f| self.position(Item::Segment(f.slot))) {
                // Behind those of its own kind.
                let mut at = at + 1;
                while self.groups.get(home).and_then(|g| g.items.get(at)).is_some_and(|i| self.is_called(*i, &name)) {
                    at += 1;
                }
                if let Some(home) = self.groups.get_mut(home) {
                    home.items.insert(at, Item::Segment(slot));
                }
                return;
            }
        }
        let home = self.home(group, &path);
        self.insert_item(home, path.last().copied(), Item::Segment(slot));
    }

    fn is_called(&self, item: Item, name: &str) -> bool {
        matches!(item, Item::Segment(slot) if self.slots.get(slot).and_then(|s| s.segment.as_ref()).is_some_and(|s| s.name() == name))
    }

    fn position(&self, item: Item) -> Option<(usize, usize)> {
        self.groups.iter().enumerate().find_map(|(n, g)| g.items.iter().position(|i| *i == item).map(|at| (n, at)))
    }

    /// The nodes from below `group` to the one of that name: the nearest, directly in the group first. Empty if there is none.
    fn path_to(&self, group: usize, name: &str, is_group: bool) -> Vec<NodeId> {
        let (Some(structure), Some(start)) = (self.structure, self.groups.get(group).and_then(|g| g.node)) else { return Vec::new() };
        let mut level: Vec<Vec<NodeId>> = vec![vec![start]];
        while !level.is_empty() {
            let mut next = Vec::new();
            for path in &level {
                for child in path.last().into_iter().flat_map(|n| structure.children(*n)) {
                    let node = structure.node(child);
                    let mut longer = path.clone();
                    longer.push(child);
                    if node.is_group == is_group && node.name == name {
                        return longer.split_off(1);
                    }
                    if node.is_group {
                        next.push(longer);
                    }
                }
            }
            level = next;
        }
        Vec::new()
    }

    /// The group that the last node of a path belongs into: instances on the way are the last ones, or new.
    fn home(&mut self, group: usize, path: &[NodeId]) -> usize {
        let Some(structure) = self.structure else { return group };
        let mut home = group;
        for node in path.split_last().map(|(_, way)| way).unwrap_or_default() {
            let known = self.groups.get(home).and_then(|g| {
                g.items.iter().rev().find_map(|i| {
                    if let Item::Group(inner) = i { Some(*inner) } else { None }.filter(|n| self.groups.get(*n).is_some_and(|g| g.node == Some(*node)))
                })
            });
            home = known.unwrap_or_else(|| {
                let new = self.push_group(Some(*node), structure.node(*node).name);
                self.insert_item(home, Some(*node), Item::Group(new));
                new
            });
        }
        home
    }

    /// Behind the last item that the structure has at or before the node; at the end for what it does not foresee.
    fn insert_item(&mut self, home: usize, node: Option<NodeId>, item: Item) {
        let node_of = |item: &Item| match item {
            Item::Segment(slot) => self.slots.get(*slot).and_then(|s| s.node),
            Item::Group(group) => self.groups.get(*group).and_then(|g| g.node),
        };
        let Some(group) = self.groups.get(home) else { return };
        let at = match node {
            None => group.items.len(),
            Some(node) => {
                // An unforeseen segment goes with the one before it.
                let mut at = 0;
                let mut before = true;
                for (n, other) in group.items.iter().enumerate() {
                    before = node_of(other).map_or(before, |o| o <= node);
                    if before {
                        at = n + 1;
                    }
                }
                at
            }
        };
        if let Some(group) = self.groups.get_mut(home) {
            group.items.insert(at, item);
        }
    }

    /// Where a line is about segments of a copy and there are none: may it make one? Where the structure has a single place for it, or a
    /// declaration does.
    pub(crate) fn may_add(&self, name: &str) -> bool {
        let Some(structure) = self.structure else { return false };
        let nodes = || structure.nodes().filter(|n| !structure.node(*n).is_group && structure.node(*n).name == name);
        if nodes().next().is_none() {
            return name.starts_with('Z');
        }
        !nodes().any(|n| {
            let mut at = n;
            loop {
                let facts = structure.node(at);
                match facts.parent {
                    Some(_) if facts.max != Some(1) => return true,
                    Some(parent) => at = parent,
                    None => return false,
                }
            }
        })
    }

    /// All segments in order.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &DraftSegment> {
        let mut slots = Vec::new();
        self.below(0, &mut slots);
        slots.into_iter().filter_map(|slot| self.slots.get(slot)?.segment.as_ref())
    }

    pub(crate) fn header(&self) -> Option<&DraftSegment> {
        self.segments().find(|s| s.name().eq_ignore_ascii_case("MSH"))
    }

    /// MSH, to be put back.
    pub(crate) fn take_header(&mut self) -> DraftSegment {
        let found = self.find(0, "MSH", None).first().copied();
        found.and_then(|at| self.take(at)).unwrap_or_else(|| DraftSegment::new("MSH"))
    }

    pub(crate) fn put_header(&mut self, segment: DraftSegment) {
        let mut slots = Vec::new();
        self.below(0, &mut slots);
        match slots.into_iter().find(|slot| self.slots.get(*slot).is_some_and(|s| s.segment.is_none())) {
            Some(slot) => self.put(Found { slot }, segment),
            None => {
                self.slots.push(Slot { segment: Some(segment), origin: None, node: None });
                let slot = self.slots.len() - 1;
                if let Some(root) = self.groups.first_mut() {
                    root.items.insert(0, Item::Segment(slot));
                }
            }
        }
    }

    /// The message's bytes; false if something could not be written as it was meant.
    pub(crate) fn write(&self, coding: &Coding) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(1_024);
        let mut well = true;
        for segment in self.segments() {
            well &= segment.write(coding, &mut out);
            out.push(b'\r');
        }
        (out, well)
    }
}

/// Is the instance the other one, or inside it?
fn is_within(placement: &Placement, instance: u32, outer: u32) -> bool {
    let mut at = Some(instance);
    while let Some(n) = at {
        if n == outer {
            return true;
        }
        at = placement.groups.get(n as usize).and_then(|g| g.parent);
    }
    false
}
