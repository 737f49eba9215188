//! The value sets that elements are bound to, and their codes.

use crate::fhir::table::{self, Section};

const SET_WORDS: u32 = 7;
const SETS: &str = "http://hl7.org/fhir/ValueSet/";

/// A value set of the specification.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueSet(u32);

/// The value set with this short name (`administrative-gender`) or URL; a version after `|` is ignored, since only R4's is known.
pub fn value_set(name_or_url: &str) -> Option<ValueSet> {
    let plain = name_or_url.split('|').next().unwrap_or(name_or_url);
    let name = plain.strip_prefix(SETS).unwrap_or(plain);
    table::find(Section::ValueSets, SET_WORDS, name).map(ValueSet)
}

/// All short names, in alphabetical order.
pub fn value_set_names() -> impl Iterator<Item = &'static str> {
    (0..table::length(Section::ValueSets) / SET_WORDS).map(|n| ValueSet(n).name())
}

impl std::fmt::Debug for ValueSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl ValueSet {
    pub(crate) const fn from_index(index: u32) -> Self {
        Self(index)
    }

    fn word(self, n: u32) -> u32 {
        table::word(Section::ValueSets, self.0 * SET_WORDS + n)
    }

    /// `administrative-gender`; the URL where it is not one of FHIR's own.
    pub fn name(self) -> &'static str {
        table::string(self.word(0))
    }

    /// The canonical URL.
    pub fn url(self) -> &'static str {
        table::string(self.word(1))
    }

    /// True if the listed codes are all there are; only then may a code be refused.
    pub fn is_complete(self) -> bool {
        self.word(2) == 1
    }

    /// The listed codes as (system, code, display), in the specification's order.
    pub fn codes(self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        (0..self.word(4)).map(move |n| self.code(n))
    }

    fn code(self, n: u32) -> (&'static str, &'static str, &'static str) {
        let at = self.word(3) + 3 * n;
        (table::string(table::item(at)), table::string(table::item(at + 1)), table::string(table::item(at + 2)))
    }

    /// The system and display of a code; the first system where several have it.
    pub fn find(self, code: &str) -> Option<(&'static str, &'static str)> {
        let count = self.word(4);
        let sorted = self.word(3) + 3 * count;
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.code(table::item(sorted + middle)).1 < code { low = middle + 1 } else { high = middle }
        }
        let (system, found, display) = (low < count).then(|| self.code(table::item(sorted + low)))?;
        (found == code).then_some((system, display))
    }

    /// The code systems that its codes come from, as far as they are known.
    pub fn systems(self) -> impl Iterator<Item = &'static str> {
        let at = self.word(5);
        (at..at + self.word(6)).map(|n| table::string(table::item(n)))
    }
}
