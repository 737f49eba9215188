//! What became of each valued place of a message: carried, lost, dropped, or never read.

use crate::hl7v2::Part;
use crate::route::lineage::{Fields, MessageLineage, ResourceLineage, Use, ValueUse};
use crate::route::run::{How, Trace};
use std::collections::{BTreeMap, BTreeSet};

/// What became of each valued place of the message.
pub(super) fn values(trace: &Trace, resources: &[ResourceLineage], messages: &[MessageLineage], fields: &Fields<'_>) -> Vec<ValueUse> {
    let message = fields.message;
    let elements = resources.iter().flat_map(|r| &r.elements).chain(messages.iter().flat_map(|m| &m.fields));
    let carried: BTreeSet<(u32, u32)> = elements.filter(|e| !e.refers).flat_map(|e| &e.from).map(|(_, p)| (p.start, p.end)).collect();
    let mut read: BTreeMap<(u32, u32), Use> = trace.drafts.dropped.iter().map(|(p, ..)| ((p.start, p.end), Use::Dropped)).collect();
    for r in &trace.reads {
        let how = purpose(r.how);
        let known = read.entry((r.part.start, r.part.end)).or_insert(how);
        *known = (*known).max(how);
    }
    let deleted: BTreeSet<(u32, u32)> = trace.deletes.iter().flat_map(|d| &d.4).map(|p| (p.start, p.end)).collect();
    // A place that holds the leaf was read with it: `text(PID-5)`, `raw(OBX-5)`, `PID-3 valued`.
    let (mut carried, mut read, mut deleted) =
        (Cover::of(carried.into_iter().map(|r| (r, Use::Carried))), Cover::of(read), Cover::of(deleted.into_iter().map(|r| (r, Use::Deletes))));
    let mut values = Vec::new();
    for segment in 0..message.segment_count() {
        for (field, part) in message.valued_leaves(segment) {
            if segment == 0 && field <= 2 {
                continue;
            }
            let (carried, deleted, read) = (carried.over(part), deleted.over(part), read.over(part));
            let used = carried.or(deleted).or(read).unwrap_or(Use::Unread);
            values.push(ValueUse { place: fields.within(segment, field, part), part, used });
        }
    }
    values
}

pub(super) fn purpose(how: How) -> Use {
    match how {
        How::Value => Use::Lost,
        How::Condition => Use::Condition,
        How::Identity => Use::Identity,
    }
}

/// Ranges of bytes with what they were used for, from the first and longest on.
struct Cover {
    ranges: Vec<(u32, std::cmp::Reverse<u32>, Use)>,
    next: usize,
    /// Ranges that may hold what comes; one within the other, as parts are.
    open: Vec<(u32, Use)>,
}

impl Cover {
    fn of(ranges: impl IntoIterator<Item = ((u32, u32), Use)>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().map(|((start, end), used)| (start, std::cmp::Reverse(end), used)).collect();
        ranges.sort_unstable();
        Self { ranges, next: 0, open: Vec::new() }
    }

    /// The best use of any range that holds the part. Parts are asked for in the order of the message.
    fn over(&mut self, part: Part) -> Option<Use> {
        while let Some((start, end, used)) = self.ranges.get(self.next).filter(|(start, ..)| *start <= part.start) {
            while self.open.last().is_some_and(|(open, _)| open <= start) {
                self.open.pop();
            }
            self.open.push((end.0, *used));
            self.next += 1;
        }
        while self.open.last().is_some_and(|(end, _)| *end <= part.start) {
            self.open.pop();
        }
        self.open.iter().filter(|(end, _)| *end >= part.end).map(|(_, used)| *used).max()
    }
}
