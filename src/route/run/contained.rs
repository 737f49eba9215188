//! Contained resources that somebody refers to; a line that a later one replaced leaves its resource behind, which FHIR forbids (dom-3).

use crate::fhir::Node;

/// For each contained resource: do the elements, or a contained resource that they reach, refer to it?
pub(crate) fn referred<'a>(elements: impl Iterator<Item = &'a Node>, contained: &'a [Node]) -> Vec<bool> {
    let mut reached = vec![false; contained.len()];
    let mut open: Vec<&Node> = elements.collect();
    while let Some(node) = open.pop() {
        let mut found = Vec::new();
        references(node, &mut found);
        for id in found {
            let position = contained.iter().position(|c| c.get("id").and_then(Node::as_text) == Some(id));
            if let Some(n) = position
                && let Some(mark) = reached.get_mut(n)
                && !std::mem::replace(mark, true)
                && let Some(inner) = contained.get(n)
            {
                open.push(inner);
            }
        }
    }
    reached
}

/// The ids behind `#` in the tree's references.
fn references<'a>(node: &'a Node, found: &mut Vec<&'a str>) {
    match node {
        Node::Object(elements) => {
            for (name, part) in elements {
                match part.as_text().filter(|_| *name == "reference").and_then(|t| t.strip_prefix('#')) {
                    Some(id) => found.push(id),
                    None => references(part, found),
                }
            }
        }
        Node::List(entries) => entries.iter().for_each(|n| references(n, found)),
        _ => {}
    }
}
