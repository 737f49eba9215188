//! The packed definitions, read in place. The layout is written by `build/fhir.rs`; nothing here knows what the words mean.

static WORDS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/fhir.bin"));
static TEXT: &str = include_str!(concat!(env!("OUT_DIR"), "/fhir.txt"));

/// "No such thing" in a word that otherwise holds an index.
pub(crate) const NONE: u32 = u32::MAX;

/// A part of the table: records of one kind.
#[derive(Clone, Copy)]
pub(crate) enum Section {
    Strings = 0,
    Types = 1,
    Elements = 2,
    Lists = 3,
    ValueSets = 4,
    Extensions = 5,
}

fn raw(index: usize) -> u32 {
    let at = index * 4;
    let bytes = WORDS.get(at..at + 4).and_then(|b| b.try_into().ok()).expect("the packed definitions hold every index that they name");
    u32::from_le_bytes(bytes)
}

/// How many words a section has.
pub(crate) fn length(section: Section) -> u32 {
    raw(2 + 2 * section as usize)
}

/// A word of a section.
pub(crate) fn word(section: Section, index: u32) -> u32 {
    raw(raw(1 + 2 * section as usize) as usize + index as usize)
}

/// An item of a list.
pub(crate) fn item(index: u32) -> u32 {
    word(Section::Lists, index)
}

/// A string by its number.
pub(crate) fn string(id: u32) -> &'static str {
    let start = if id == 0 { 0 } else { word(Section::Strings, id - 1) };
    let end = word(Section::Strings, id);
    TEXT.get(start as usize..end as usize).expect("the packed strings are cut where they were joined")
}

/// Finds the record whose first word is the string `name`, in a section that is sorted by it.
pub(crate) fn find(section: Section, record: u32, name: &str) -> Option<u32> {
    let (mut low, mut high) = (0, length(section) / record);
    while low < high {
        let middle = low + (high - low) / 2;
        match string(word(section, middle * record)).cmp(name) {
            std::cmp::Ordering::Equal => return Some(middle),
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}
