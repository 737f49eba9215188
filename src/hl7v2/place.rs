//! Which group each segment stands in, also when a sender breaks the abstract syntax.
//!
//! The reader keeps the groups that are open, outermost first, each with the child that was matched last. A segment is looked for
//! from the innermost group outwards: first where the syntax allows it, then where it can still be meant, else it stays with the
//! segment before it. Each segment costs at most one walk over the structure, so the whole is linear in the segments.

use crate::hl7v2::{Message, NodeId, Structure};

/// One occurrence of a group in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupInstance {
    /// Which group of the structure.
    pub node: NodeId,
    /// The instance around it, an index into [`Placement::groups`]; nothing for the message itself.
    pub parent: Option<u32>,
    /// Its first segment.
    pub first: u32,
    /// One past its last segment.
    pub end: u32,
}

/// Where a segment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentPlace {
    /// The instance that it belongs to, an index into [`Placement::groups`].
    pub group: u32,
    /// Its place in the structure; nothing for a segment that the structure does not foresee there.
    pub node: Option<NodeId>,
}

/// A message's segments in their groups. Instance 0 is the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// All instances in the order of their beginning.
    pub groups: Vec<GroupInstance>,
    /// One a segment.
    pub segments: Vec<SegmentPlace>,
}

impl Placement {
    /// All segments in the message itself: for a message whose structure nobody knows.
    pub fn flat(segments: usize) -> Placement {
        let end = u32::try_from(segments).unwrap_or(u32::MAX);
        Placement {
            groups: vec![GroupInstance { node: Structure::ROOT, parent: None, first: 0, end }],
            segments: vec![SegmentPlace { group: 0, node: None }; segments],
        }
    }
}

impl Message {
    /// Puts every segment into a group instance. `extra` declares segments that the structure lacks, each with the segment
    /// that it follows: it belongs to the group of the last one of those.
    pub fn place(&self, structure: Structure, extra: &[(&str, &str)]) -> Placement {
        let mut placer = Placer::new(structure, extra, self.segment_count());
        for n in 0..self.segment_count() {
            placer.segment(self.segment_name(n));
        }
        placer.finish()
    }
}

/// A group that may still take segments.
struct Open {
    instance: u32,
    node: NodeId,
    /// The child matched last; the group's own node before the first.
    at: NodeId,
    /// Children that were matched in this instance, by their number among the children.
    used: u128,
}

struct Placer<'a> {
    structure: Structure,
    extra: &'a [(&'a str, &'a str)],
    /// For each extra: the group of the last segment that it may follow.
    extra_groups: Vec<Option<u32>>,
    open: Vec<Open>,
    /// The last segment matched at each node, plus one.
    last: Vec<u32>,
    placement: Placement,
}

impl<'a> Placer<'a> {
    fn new(structure: Structure, extra: &'a [(&'a str, &'a str)], segments: usize) -> Self {
        let root = GroupInstance { node: Structure::ROOT, parent: None, first: 0, end: u32::try_from(segments).unwrap_or(u32::MAX) };
        Self {
            structure,
            extra,
            extra_groups: vec![None; extra.len()],
            open: vec![Open { instance: 0, node: Structure::ROOT, at: Structure::ROOT, used: 0 }],
            last: vec![0; structure.node_count()],
            placement: Placement { groups: vec![root], segments: Vec::with_capacity(segments) },
        }
    }

    fn segment(&mut self, name: &str) {
        let before = self.placement.segments.last().map_or(0, |s| s.group);
        let place = match self.lawful(name) {
            Some((depth, node)) => self.enter(depth, node),
            None => match self.declared(name) {
                Some(group) => SegmentPlace { group, node: None },
                None => match self.meant(name) {
                    Some((depth, node)) => self.enter(depth, node),
                    None => SegmentPlace { group: before, node: None },
                },
            },
        };
        for (group, (_, after)) in self.extra_groups.iter_mut().zip(self.extra) {
            if after.eq_ignore_ascii_case(name) {
                *group = Some(place.group);
            }
        }
        self.placement.segments.push(place);
    }

    /// Where the syntax allows the segment next. Where it could begin a new group past that one's beginning, and also heads an open group that repeats, that
    /// one comes again: after an order (OML, OMG), an ORC is the next order, and a prior result only behind the PID that begins those (HL7 chapter 4, OML^O21).
    fn lawful(&self, name: &str) -> Option<(usize, NodeId)> {
        let (depth, node) = self.next(name)?;
        let open = self.open.get(depth)?;
        let entered = self.children(open.node).map(|(_, child)| child).find(|child| (child.0..self.structure.end(*child).0).contains(&node.0));
        let passed = entered.is_some_and(|group| self.structure.is_group(group) && self.leads(group) != node);
        let headed = |o: &Open| {
            let head = self.leads(o.node);
            (self.structure.repeats(o.node) && self.structure.name(head).eq_ignore_ascii_case(name)).then_some(head)
        };
        let again = || self.open.iter().enumerate().skip(1).take(depth).rev().find_map(|(n, o)| headed(o).map(|head| (n - 1, head)));
        passed.then(again).flatten().or(Some((depth, node)))
    }

    /// The first segment of a group's abstract syntax, required or not.
    fn leads(&self, node: NodeId) -> NodeId {
        (node.0..self.structure.end(node).0).map(NodeId).find(|n| !self.structure.is_group(*n)).unwrap_or(node)
    }

    /// The same place again, or a later one; in a group that it may begin. The innermost open group decides.
    fn next(&self, name: &str) -> Option<(usize, NodeId)> {
        self.open.iter().enumerate().rev().find_map(|(depth, open)| {
            let is_chosen = self.structure.is_choice(open.node) && open.at != open.node;
            self.children(open.node)
                .filter(|(_, child)| *child >= open.at && (!is_chosen || *child == open.at))
                .filter(|(number, child)| self.is_free(open, *number, *child))
                .find_map(|(_, child)| self.begins(child, name))
                .map(|node| (depth, node))
        })
    }

    /// Where it can still be meant: back at a place of an open group; in a new instance of a group when it comes again; in the
    /// middle of a group whose beginning is missing. Notes always belong to what they follow.
    fn meant(&self, name: &str) -> Option<(usize, NodeId)> {
        if name.eq_ignore_ascii_case("NTE") {
            return None;
        }
        let Some(_) = self.inside(Structure::ROOT, name) else {
            return if name.is_empty() { None } else { self.lawful("Hxx") };
        };
        self.open.iter().enumerate().rev().find_map(|(depth, open)| {
            if self.structure.is_choice(open.node) {
                return None;
            }
            let free = |child: &(usize, NodeId)| self.is_free(open, child.0, child.1);
            let back = self.children(open.node).filter(|(_, child)| *child <= open.at).filter(free).find_map(|(_, child)| self.begins(child, name));
            if let Some(node) = back {
                return Some((depth, node));
            }
            if depth > 0
                && self.structure.repeats(open.node)
                && let Some(node) = self.seen_in(open, name)
            {
                return Some((depth - 1, node));
            }
            let ahead = |(_, child): &(usize, NodeId)| *child > open.at || open.at == open.node;
            let unused = |(number, _): &(usize, NodeId)| open.used & bit(*number) == 0;
            let middle = self.children(open.node).filter(ahead).filter(free).find_map(|(_, child)| self.inside(child, name));
            let node = middle.or_else(|| self.children(open.node).filter(unused).find_map(|(_, child)| self.inside(child, name)));
            node.map(|node| (depth, node))
        })
    }

    /// The group for a declared segment: that of the last segment which it may follow.
    fn declared(&self, name: &str) -> Option<u32> {
        let mut groups = self.extra.iter().zip(&self.extra_groups).filter(|((extra, _), _)| extra.eq_ignore_ascii_case(name));
        groups.find_map(|(_, group)| *group)
    }

    /// Opens the groups between an open group and a node below it, and closes those that are left.
    fn enter(&mut self, depth: usize, node: NodeId) -> SegmentPlace {
        let now = u32::try_from(self.placement.segments.len()).unwrap_or(u32::MAX);
        for closed in self.open.drain(depth + 1..) {
            if let Some(group) = self.placement.groups.get_mut(closed.instance as usize) {
                group.end = now;
            }
        }
        let outermost = self.open.last().map_or(Structure::ROOT, |o| o.node);
        let mut path = vec![node];
        while let Some(parent) = path.last().and_then(|n| self.structure.node(*n).parent)
            && parent != outermost
        {
            path.push(parent);
        }
        let end = self.placement.groups.first().map_or(now, |root| root.end);
        while let Some(next) = path.pop() {
            let Some(open) = self.open.last() else { break };
            let number = self.children(open.node).find(|(_, child)| *child == next).map_or(usize::MAX, |(number, _)| number);
            let parent = open.instance;
            if let Some(open) = self.open.last_mut() {
                open.at = next;
                open.used |= bit(number);
            }
            if !path.is_empty() {
                let instance = u32::try_from(self.placement.groups.len()).unwrap_or(u32::MAX);
                self.placement.groups.push(GroupInstance { node: next, parent: Some(parent), first: now, end });
                self.open.push(Open { instance, node: next, at: next, used: 0 });
            }
        }
        if let Some(last) = self.last.get_mut(usize::from(node.0)) {
            *last = now + 1;
        }
        SegmentPlace { group: self.open.last().map_or(0, |o| o.instance), node: Some(node) }
    }

    fn finish(self) -> Placement {
        self.placement
    }

    fn children(&self, group: NodeId) -> impl Iterator<Item = (usize, NodeId)> + use<> {
        self.structure.children(group).enumerate()
    }

    /// May the child take (another) one in this instance?
    fn is_free(&self, open: &Open, number: usize, child: NodeId) -> bool {
        open.used & bit(number) == 0 || self.structure.repeats(child)
    }

    /// The segment's node if the segment is this node or may begin this group.
    fn begins(&self, node: NodeId, name: &str) -> Option<NodeId> {
        if !self.structure.is_group(node) {
            return self.structure.name(node).eq_ignore_ascii_case(name).then_some(node);
        }
        for child in self.structure.children(node) {
            if let Some(found) = self.begins(child, name) {
                return Some(found);
            }
            if self.structure.is_required(child) && !self.structure.is_choice(node) {
                return None;
            }
        }
        None
    }

    /// The first node of that segment within a subtree.
    fn inside(&self, node: NodeId, name: &str) -> Option<NodeId> {
        (node.0..self.structure.end(node).0).map(NodeId).find(|n| !self.structure.is_group(*n) && self.structure.name(*n).eq_ignore_ascii_case(name))
    }

    /// The node of a segment of that name which this instance already has.
    fn seen_in(&self, open: &Open, name: &str) -> Option<NodeId> {
        let first = self.placement.groups.get(open.instance as usize)?.first;
        (open.node.0..self.structure.end(open.node).0).map(NodeId).find(|n| {
            self.last.get(usize::from(n.0)).is_some_and(|last| *last > first)
                && !self.structure.is_group(*n)
                && self.structure.name(*n).eq_ignore_ascii_case(name)
        })
    }
}

/// A group with more children than bits only loses the knowledge that the last ones were used.
fn bit(number: usize) -> u128 {
    u32::try_from(number).ok().and_then(|n| 1u128.checked_shl(n)).unwrap_or(0)
}
