//! Where the components and subcomponents of a value end. The lines of a map ask one value for one piece after the other, so its delimiters are
//! found once.

use crate::hl7v2::{Level, Message, Part};
use smallvec::SmallVec;

/// The value whose components were asked for last, and the component whose subcomponents were.
#[derive(Default)]
pub(crate) struct Pieces {
    components: Ends,
    subcomponents: Ends,
}

#[derive(Default)]
struct Ends {
    start: u32,
    end: u32,
    ends: SmallVec<[u32; 24]>,
}

impl Pieces {
    /// Where the pieces of that level end which a place holds.
    pub(crate) fn ends(&mut self, message: &Message, whole: Part, delimiter: u8) -> &[u32] {
        let known = if whole.level == Level::Subcomponent { &mut self.subcomponents } else { &mut self.components };
        if known.start != whole.start || known.end != whole.end {
            known.start = whole.start;
            known.end = whole.end;
            known.ends.clear();
            known.ends.extend(message.raw(whole).iter().zip(whole.start..).filter(|(b, _)| **b == delimiter).map(|(_, at)| at));
            known.ends.push(whole.end);
        }
        &known.ends
    }
}
