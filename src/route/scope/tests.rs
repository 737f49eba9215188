//! The rule of nearness, computed for every structure of every version: which look-ups it decides, which tie, and which mean another place in another
//! version. `docs/decisions/nearness.txt` holds the figures; `UPDATE=1 cargo test --lib route::scope` writes them anew, and `KILN_NEARNESS=FILE` writes the
//! whole list.

use super::{Lookup, resolve};
use crate::hl7v2::{NodeId, Structure, Version, structures};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// The structures that most sites receive.
const COMMON: &[&str] = &["ADT_A01", "ADT_A03", "ORU_R01", "SIU_S12", "MDM_T02", "VXU_V04", "ORM_O01", "OML_O21"];

/// The heads of the groups around a node, from the outside in: what tells two places apart, whatever the groups are called.
fn place(structure: Structure, node: NodeId) -> String {
    let mut heads = Vec::new();
    let mut at = structure.node(node).parent;
    while let Some(group) = at {
        at = structure.node(group).parent;
        if at.is_some() {
            heads.push(structure.children(group).find(|n| !structure.node(*n).is_group).map_or("?", |n| structure.node(n).name));
        }
    }
    heads.reverse();
    if heads.is_empty() { "message".to_owned() } else { heads.join(">") }
}

/// Each group with the segments that stand in it, and all segments.
fn groups(structure: Structure) -> (Vec<(NodeId, BTreeSet<&'static str>)>, BTreeSet<&'static str>) {
    let (mut found, mut all, mut open) = (Vec::new(), BTreeSet::new(), vec![NodeId(0)]);
    while let Some(group) = open.pop() {
        let mut own = BTreeSet::new();
        for child in structure.children(group) {
            let node = structure.node(child);
            if node.is_group {
                open.push(child);
            } else {
                own.insert(node.name);
            }
        }
        all.extend(own.iter().copied());
        found.push((group, own));
    }
    (found, all)
}

#[test]
fn the_nearest_segment_is_told_for_every_structure_of_every_version() {
    let (mut total, mut decided, mut tied, mut double) = (0_u64, 0_u64, 0_u64, 0_u64);
    // (structure, from, name) -> places -> versions; and ties: (from, name) -> structures.
    let mut meant: BTreeMap<(String, &str, &str), BTreeMap<String, Vec<&str>>> = BTreeMap::new();
    let mut ties: BTreeMap<(&str, &str), BTreeMap<String, Vec<&str>>> = BTreeMap::new();
    for version in Version::ALL {
        for structure in structures(version) {
            let (groups, names) = groups(structure);
            for (group, own) in &groups {
                let from: Vec<&str> = if group.0 == 0 { vec!["message"] } else { own.iter().copied().collect() };
                for name in &names {
                    let lookup = Lookup { all: false, anchors: Vec::new(), segment: (*name).to_owned() };
                    let Some(found) = resolve(structure, *group, &lookup) else { panic!("{} lacks its own {name}", structure.id()) };
                    let mut places: Vec<String> = found.nodes.iter().map(|n| place(structure, *n)).collect();
                    places.sort();
                    places.dedup();
                    for from in &from {
                        total += 1;
                        match (found.tied, places.len()) {
                            (false, _) => decided += 1,
                            (true, 1) => double += 1,
                            (true, _) => tied += 1,
                        }
                        if found.tied {
                            ties.entry((from, name)).or_default().entry(structure.id().to_owned()).or_default().push(version.name());
                        }
                        // A segment in several groups is judged by each, so only one place per version can be compared.
                        let key = (structure.id().to_owned(), *from, *name);
                        meant.entry(key).or_default().entry(places.join(" or ")).or_default().push(version.name());
                    }
                }
            }
        }
    }
    let moved: Vec<_> = meant
        .iter()
        .filter(|(_, places)| {
            let mut versions: Vec<&str> = places.values().flatten().copied().collect();
            let count = versions.len();
            versions.sort_unstable();
            versions.dedup();
            places.len() > 1 && versions.len() == count
        })
        .collect();
    let mut text = String::new();
    let share = |n: u64| format!("{n} ({}.{} %)", n * 100 / total, n * 1000 / total % 10);
    writeln!(text, "look-ups, one per structure, version, segment that one stands at, and name: {total}").expect("memory");
    writeln!(text, "decided: {}", share(decided)).expect("memory");
    writeln!(text, "tied between groups: {}", share(tied)).expect("memory");
    writeln!(text, "two places in one group: {}", share(double)).expect("memory");
    writeln!(text, "look-ups of one structure that mean another place in another version: {}", moved.len()).expect("memory");
    let mut list = text.clone();
    writeln!(list, "\nTies, by name and where one stands; then the structures and the versions of each:").expect("memory");
    writeln!(text, "\nTies seen from the message as a whole, with the number of structures:").expect("memory");
    for ((_, name), structures) in ties.iter().filter(|((from, _), _)| *from == "message") {
        writeln!(text, "{name} {}", structures.len()).expect("memory");
    }
    for ((from, name), structures) in &ties {
        let all: Vec<String> = structures.iter().map(|(id, versions)| format!("{id} {}", spans(versions))).collect();
        writeln!(list, "{name} from {from}: {}", all.join(", ")).expect("memory");
    }
    for text in [&mut list, &mut text] {
        writeln!(text, "\nAnother place in another version; a place is the heads of the groups around it:").expect("memory");
    }
    writeln!(text, "(in the structures that most sites receive)").expect("memory");
    for ((id, from, name), places) in moved {
        let all: Vec<String> = places.iter().map(|(place, versions)| format!("{place} in {}", spans(versions))).collect();
        let line = format!("{id}: {name} from {from}: {}\n", all.join("; "));
        if COMMON.contains(&id.as_str()) {
            text.push_str(&line);
        }
        list.push_str(&line);
    }
    if let Some(file) = std::env::var_os("KILN_NEARNESS") {
        std::fs::write(file, list).expect("written");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/decisions/nearness.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(known == text, "the dictionary or the rule changed: UPDATE=1 writes the list, read what moved");
    assert!(decided * 100 > total * 95, "the rule decides less than it did");
}

/// `2.3-2.5.1` for versions that follow one another.
fn spans(versions: &[&str]) -> String {
    let mut versions = versions.to_vec();
    versions.dedup();
    match versions.as_slice() {
        [first, .., last] => format!("{first}-{last}"),
        [one] => (*one).to_owned(),
        [] => String::new(),
    }
}
