//! Does a value differ from one value of a split to the next? Decides whether control IDs can repeat.

use crate::route::code::{Path, Root, X};
use crate::route::outgoing::{ValueBody, ValueItem};

/// `near`: does this look-up, begun at the slot's segment, stay in the group of that segment?
pub(crate) fn item(item: &ValueItem, slot: usize, near: &dyn Fn(usize) -> bool) -> bool {
    match item {
        ValueItem::Nothing => false,
        ValueItem::X(inner) => x(inner, slot, near),
        ValueItem::List(items) => items.iter().any(|i| self::item(i, slot, near)),
        ValueItem::Body(body) => self::body(body, slot, near),
    }
}

fn body(body: &ValueBody, slot: usize, near: &dyn Fn(usize) -> bool) -> bool {
    let values = body.from.iter().any(|(values, _)| x(values, slot, near)) || body.each.iter().any(|values| x(values, slot, near));
    values
        || body.value.iter().any(|v| item(v, slot, near))
        || body.lines.iter().any(|l| item(&l.item, slot, near))
        || body.first.iter().any(|i| item(i, slot, near))
}

fn path(path: &Path, slot: usize, near: &dyn Fn(usize) -> bool) -> bool {
    match path.root {
        Root::Slot(n) | Root::SegmentOf(n) => n == slot,
        Root::Lookup { lookup, from, .. } => from == Some(slot) && near(lookup),
    }
}

fn x(value: &X, slot: usize, near: &dyn Fn(usize) -> bool) -> bool {
    match value {
        X::Path(p) => path(p, slot, near),
        X::OutBody(inner) => body(inner, slot, near),
        other => other.sources().into_iter().any(|inner| x(inner, slot, near)),
    }
}
