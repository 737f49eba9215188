//! Which segments a segment's name means: the nearest ones, decided per structure (section 4 of the language).

use crate::hl7v2::{NodeId, Structure};

/// A segment path's root before it is bound to a structure.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lookup {
    /// `all OBX-5`: groups don't count.
    pub(crate) all: bool,
    /// `OBR` in `OBR.OBX`.
    pub(crate) anchors: Vec<String>,
    /// `OBX`.
    pub(crate) segment: String,
}

/// Where a look-up leads in one structure, seen from one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// How many groups to climb from the current one.
    pub(crate) up: usize,
    /// The structure's segment nodes that are meant, all of the looked-up name.
    pub(crate) nodes: Vec<NodeId>,
    /// May it yield more than one segment?
    pub(crate) many: bool,
    /// Are two places equally near? Then all of them are meant, and the checker asks for an anchor.
    pub(crate) tied: bool,
}

/// Finds the place, or `None` if the structure has no such segment at all.
pub(crate) fn resolve(structure: Structure, context: NodeId, lookup: &Lookup) -> Option<Place> {
    let mut group = context;
    let mut up = 0;
    loop {
        let found = if let Some((anchor, rest)) = lookup.anchors.split_first() {
            anchored(structure, group, anchor, rest, &lookup.segment)
        } else {
            within(structure, group, &lookup.segment, None)
        };
        if let Some((nodes, tied)) = found {
            let many = tied || nodes.iter().any(|n| repeats(structure, group, *n));
            return Some(Place { up, nodes, many, tied });
        }
        group = structure.node(group).parent?;
        up += 1;
    }
}

/// Steps 1 to 3 of the rule inside one group. `after` picks the place that follows an anchor.
fn within(structure: Structure, group: NodeId, name: &str, after: Option<NodeId>) -> Option<(Vec<NodeId>, bool)> {
    let direct: Vec<NodeId> = structure.children(group).filter(|n| is_segment(structure, *n, name)).collect();
    if let Some(anchor) = after.filter(|_| direct.len() > 1) {
        let next = direct.iter().find(|n| n.0 > anchor.0).or(direct.last()).copied();
        return next.map(|n| (vec![n], false));
    }
    if !direct.is_empty() {
        let tied = direct.len() > 1;
        return Some((direct, tied));
    }
    let levels = levels(structure, group);
    let heads = |g: NodeId| structure.children(g).next().filter(|n| is_segment(structure, *n, name));
    for level in &levels {
        let headed: Vec<NodeId> = level.iter().filter_map(|g| heads(*g)).collect();
        if !headed.is_empty() {
            let tied = headed.len() > 1;
            return Some((headed, tied));
        }
    }
    for level in &levels {
        let found: Vec<NodeId> = level.iter().flat_map(|g| structure.children(*g)).filter(|n| is_segment(structure, *n, name)).collect();
        if !found.is_empty() {
            let tied = found.len() > 1;
            return Some((found, tied));
        }
    }
    None
}

/// `OBR.OBX`: the anchor's group first (a segment or a group by name), then the name inside it.
fn anchored(structure: Structure, group: NodeId, anchor: &str, rest: &[String], name: &str) -> Option<(Vec<NodeId>, bool)> {
    let mut homes: Vec<(NodeId, Option<NodeId>)> = Vec::new();
    if let Some((nodes, _)) = within(structure, group, anchor, None) {
        homes.extend(nodes.iter().filter_map(|n| Some((structure.node(*n).parent?, Some(*n)))));
    } else {
        homes.extend(levels(structure, group).into_iter().flatten().filter(|g| structure.node(*g).name == anchor).map(|g| (g, None)));
        if structure.node(group).name == anchor && structure.node(group).is_group {
            homes.push((group, None));
        }
    }
    let mut nodes = Vec::new();
    let mut tied = false;
    for (home, after) in homes {
        let found = match rest.split_first() {
            Some((next, further)) => anchored(structure, home, next, further, name),
            // A segment may stand in a group that only says which of several it is (OBR among the details of an ORM): then what follows that group.
            None => around(structure, group, home).find_map(|at| within(structure, at, name, after)),
        };
        if let Some((more, t)) = found {
            tied |= t;
            nodes.extend(more);
        }
    }
    if nodes.is_empty() { None } else { Some((nodes, tied)) }
}

/// `home` and the groups around it, up to `group`.
fn around(structure: Structure, group: NodeId, home: NodeId) -> impl Iterator<Item = NodeId> {
    std::iter::successors(Some(home), move |at| structure.node(*at).parent.filter(|_| *at != group))
}

/// All subgroups, by distance.
fn levels(structure: Structure, group: NodeId) -> Vec<Vec<NodeId>> {
    let mut levels = Vec::new();
    let mut level: Vec<NodeId> = structure.children(group).filter(|n| structure.node(*n).is_group).collect();
    while !level.is_empty() {
        let next = level.iter().flat_map(|g| structure.children(*g)).filter(|n| structure.node(*n).is_group).collect();
        levels.push(std::mem::replace(&mut level, next));
    }
    levels
}

fn is_segment(structure: Structure, node: NodeId, name: &str) -> bool {
    let node = structure.node(node);
    !node.is_group && node.name == name
}

/// Is `node` in `group` or in a group below it, and may there be several? `None` if it is elsewhere.
pub(crate) fn below(structure: Structure, group: NodeId, node: NodeId) -> Option<bool> {
    let mut at = node;
    while at != group {
        at = structure.node(at).parent?;
    }
    Some(repeats(structure, group, node))
}

/// May `node` occur more than once inside one instance of `group`?
fn repeats(structure: Structure, group: NodeId, node: NodeId) -> bool {
    let mut at = node;
    while at != group {
        let facts = structure.node(at);
        if facts.max != Some(1) {
            return true;
        }
        match facts.parent {
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests;
