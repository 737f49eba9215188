//! The extensions that the specification defines.

use crate::fhir::Element;
use crate::fhir::table::{self, NONE, Section};

const EXTENSION_WORDS: u32 = 9;
const EXTENSIONS: &str = "http://hl7.org/fhir/StructureDefinition/";

/// An extension's definition: it has a value or parts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExtensionDef(u32);

/// A named extension within an extension.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExtensionPart(u32);

/// The extension with this short name (`patient-citizenship`) or URL.
pub fn extension(name_or_url: &str) -> Option<ExtensionDef> {
    let name = name_or_url.strip_prefix(EXTENSIONS).unwrap_or(name_or_url);
    table::find(Section::Extensions, EXTENSION_WORDS, name).map(ExtensionDef)
}

/// All short names, in alphabetical order.
pub fn extension_names() -> impl Iterator<Item = &'static str> {
    (0..table::length(Section::Extensions) / EXTENSION_WORDS).map(|n| ExtensionDef(n).name())
}

fn bound(word: u32) -> Option<u32> {
    (word != NONE).then_some(word)
}

impl std::fmt::Debug for ExtensionDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl ExtensionDef {
    fn word(self, n: u32) -> u32 {
        table::word(Section::Extensions, self.0 * EXTENSION_WORDS + n)
    }

    /// `patient-citizenship`; the URL where it is not one of FHIR's own.
    pub fn name(self) -> &'static str {
        table::string(self.word(0))
    }

    /// What `Extension.url` has.
    pub fn url(self) -> &'static str {
        table::string(self.word(1))
    }

    /// What it is, in a few words.
    pub fn title(self) -> &'static str {
        table::string(self.word(2))
    }

    /// Where it may stand: `Patient`, `Element`, `Patient.contact`.
    pub fn contexts(self) -> impl Iterator<Item = &'static str> {
        let at = self.word(3);
        (at..at + self.word(4)).map(|n| table::string(table::item(n)))
    }

    /// Its value as an element `value[x]` with types, targets and binding; `None` where it has parts.
    pub fn value(self) -> Option<Element> {
        bound(self.word(5)).map(Element::from_index)
    }

    /// Its parts in the specification's order; none where it has a value.
    pub fn parts(self) -> impl Iterator<Item = ExtensionPart> {
        let at = self.word(6);
        (0..self.word(7)).map(move |n| ExtensionPart(at + 4 * n))
    }

    /// The part of that name.
    pub fn part(self, name: &str) -> Option<ExtensionPart> {
        self.parts().find(|p| p.name() == name)
    }

    /// How often it may stand in one place; `None` is unbounded.
    pub fn max(self) -> Option<u32> {
        bound(self.word(8))
    }
}

impl ExtensionPart {
    /// What the part's `Extension.url` has.
    pub fn name(self) -> &'static str {
        table::string(table::item(self.0))
    }

    /// Its value as an element `value[x]` with types, targets and binding.
    pub fn value(self) -> Element {
        Element::from_index(table::item(self.0 + 1))
    }

    /// How many there must be.
    pub fn min(self) -> u32 {
        table::item(self.0 + 2)
    }

    /// How many there may be; `None` is unbounded.
    pub fn max(self) -> Option<u32> {
        bound(table::item(self.0 + 3))
    }
}
