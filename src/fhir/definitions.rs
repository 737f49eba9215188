//! FHIR R4's types and elements: what a map may fill, and with what. Handles are numbers into the packed table and cost nothing to copy.

use crate::fhir::ValueSet;
use crate::fhir::table::{self, NONE, Section};

const TYPE_WORDS: u32 = 6;
const ELEMENT_WORDS: u32 = 11;

/// A data type, a resource type, or the nested type of an element (`Patient.contact`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Type(u32);

/// What sort of type it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A JSON scalar: `date`, `code`.
    Primitive,
    /// A data type with elements: `HumanName`.
    Complex,
    /// Nested in a type: `Patient.contact`.
    Backbone,
    /// `Patient`.
    Resource,
}

/// An element of a type. The same inherited element of two types is two elements: it has a position in each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element(u32);

/// How strongly codes are bound to a value set (<https://hl7.org/fhir/R4/terminologies.html#strength>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strength {
    /// Only these codes.
    Required,
    /// These codes where one fits.
    Extensible,
    /// These codes, as advice.
    Preferred,
    /// These codes, to show what is meant.
    Example,
}

/// A coded element's value set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// How strongly it binds.
    pub strength: Strength,
    /// The codes.
    pub value_set: ValueSet,
}

/// The type of that name: `Patient`, `HumanName`, `date`; for a nested one its path, `Patient.contact`.
pub fn type_named(name: &str) -> Option<Type> {
    table::find(Section::Types, TYPE_WORDS, name).map(Type)
}

/// All types, in alphabetical order, nested ones included.
pub fn types() -> impl Iterator<Item = Type> {
    (0..table::length(Section::Types) / TYPE_WORDS).map(Type)
}

impl std::fmt::Debug for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Debug for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Type {
    fn word(self, n: u32) -> u32 {
        table::word(Section::Types, self.0 * TYPE_WORDS + n)
    }

    /// `Patient`, `HumanName`, `Patient.contact`.
    pub fn name(self) -> &'static str {
        table::string(self.word(0))
    }

    /// The specification's short description.
    pub fn short(self) -> &'static str {
        table::string(self.word(1))
    }

    /// What sort of type it is.
    pub fn kind(self) -> Kind {
        match self.word(2) & 0xFF {
            0 => Kind::Primitive,
            1 => Kind::Complex,
            2 => Kind::Backbone,
            _ => Kind::Resource,
        }
    }

    /// True for Element, BackboneElement, Resource and DomainResource.
    pub fn is_abstract(self) -> bool {
        self.word(2) >> 8 != 0
    }

    /// The type that it extends: `Patient` -> `DomainResource`, `code` -> `string`.
    pub fn base(self) -> Option<Type> {
        let base = self.word(3);
        (base != NONE).then_some(Type(base))
    }

    /// True if it is `other` or extends it at any depth.
    pub fn is(self, other: Type) -> bool {
        std::iter::successors(Some(self), |t| t.base()).any(|t| t == other)
    }

    /// All elements in FHIR's order, inherited ones first. A primitive has those of its companion object, `id` and `extension`.
    pub fn elements(self) -> impl Iterator<Item = Element> + Clone {
        let first = self.word(4);
        (first..first + self.word(5)).map(Element)
    }

    /// The element of that name as the specification writes it: `contact`, `deceased[x]`.
    pub fn element(self, name: &str) -> Option<Element> {
        self.elements().find(|e| e.name() == name)
    }

    /// The element and type behind a JSON property: `birthDate`, and `deceasedDateTime` -> (`deceased[x]`, `dateTime`).
    /// A companion (`_birthDate`) is not a property; `deceased[x]` is none either.
    pub fn property(self, json_name: &str) -> Option<(Element, Type)> {
        self.elements().find_map(|e| {
            if !e.is_choice() {
                return if e.name() == json_name { e.types().next().map(|t| (e, t)) } else { None };
            }
            let rest = json_name.strip_prefix(e.name().trim_end_matches("[x]"))?;
            if rest.is_empty() {
                return None;
            }
            e.types().find(|t| e.json_name(*t) == json_name).map(|t| (e, t))
        })
    }

    /// Every name that `element` and `property` know, for "did you mean".
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.elements().flat_map(|e| {
            let branches = e.is_choice().then(|| e.types().map(move |t| e.json_name(t)));
            std::iter::once(e.name()).chain(branches.into_iter().flatten())
        })
    }
}

impl Element {
    pub(crate) const fn from_index(index: u32) -> Self {
        Self(index)
    }

    fn word(self, n: u32) -> u32 {
        table::word(Section::Elements, self.0 * ELEMENT_WORDS + n)
    }

    /// As the specification writes it: `birthDate`, `deceased[x]`.
    pub fn name(self) -> &'static str {
        table::string(self.word(0))
    }

    /// The specification's short description.
    pub fn short(self) -> &'static str {
        table::string(self.word(1))
    }

    /// True if it has a branch per type, `value[x]`.
    pub fn is_choice(self) -> bool {
        self.word(2) & 1 != 0
    }

    /// True if it changes the meaning of what stands around it.
    pub fn is_modifier(self) -> bool {
        self.word(2) & 2 != 0
    }

    /// Its place within its type, for writing in FHIR's order.
    pub fn position(self) -> u16 {
        (self.word(2) >> 16) as u16
    }

    /// How many there must be.
    pub fn min(self) -> u32 {
        self.word(3)
    }

    /// How many there may be; `None` is unbounded.
    pub fn max(self) -> Option<u32> {
        let max = self.word(4);
        (max != NONE).then_some(max)
    }

    /// True if JSON writes it as an array.
    pub fn is_list(self) -> bool {
        self.word(4) > 1
    }

    /// Its types: one, or the branches of a choice. A nested element has the type of its path (`Patient.contact`), also by content reference.
    pub fn types(self) -> impl Iterator<Item = Type> + Clone {
        let at = self.word(5);
        (at..at + self.word(6)).map(|n| Type(table::item(n)))
    }

    /// The JSON property that holds a value of this type: `birthDate`; `valueQuantity` for a branch of `value[x]`.
    /// For a type that the element does not take it is the element's name.
    pub fn json_name(self, t: Type) -> &'static str {
        self.property_name(t, 0)
    }

    /// The JSON property that holds `id` and `extension` of a primitive: `_birthDate`, `_valueDateTime`.
    pub fn companion(self, t: Type) -> &'static str {
        self.property_name(t, 1)
    }

    fn property_name(self, t: Type, which: u32) -> &'static str {
        let place = if self.is_choice() { self.types().position(|own| own == t) } else { Some(0) };
        match place.and_then(|n| u32::try_from(n).ok()) {
            Some(n) => table::string(table::item(self.word(7) + 2 * n + which)),
            None => self.name(),
        }
    }

    /// The types that a Reference (or canonical) may point at; none means any.
    pub fn targets(self) -> impl Iterator<Item = &'static str> + Clone {
        let packed = self.word(8);
        let at = packed >> 8;
        (at..at + (packed & 0xFF)).map(|n| table::string(table::item(n)))
    }

    /// The value set of a coded element.
    pub fn binding(self) -> Option<Binding> {
        let strength = match self.word(9) {
            0 => Strength::Required,
            1 => Strength::Extensible,
            2 => Strength::Preferred,
            3 => Strength::Example,
            _ => return None,
        };
        Some(Binding { strength, value_set: ValueSet::from_index(self.word(10)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::{extension, extension_names, value_set, value_set_names};

    fn names(of: &str) -> Vec<&'static str> {
        type_named(of).expect(of).elements().map(Element::name).collect()
    }

    #[test]
    fn elements_come_in_fhirs_order() {
        assert_eq!(
            names("Patient"),
            [
                "id",
                "meta",
                "implicitRules",
                "language",
                "text",
                "contained",
                "extension",
                "modifierExtension",
                "identifier",
                "active",
                "name",
                "telecom",
                "gender",
                "birthDate",
                "deceased[x]",
                "address",
                "maritalStatus",
                "multipleBirth[x]",
                "photo",
                "contact",
                "communication",
                "generalPractitioner",
                "managingOrganization",
                "link"
            ]
        );
        assert_eq!(
            names("Patient.contact"),
            ["id", "extension", "modifierExtension", "relationship", "name", "telecom", "address", "gender", "organization", "period"]
        );
        assert_eq!(names("Bundle")[..5], ["id", "meta", "implicitRules", "language", "identifier"]);
        assert_eq!(names("code"), ["id", "extension"]);
        assert_eq!(names("Age"), names("Quantity"));
        for t in types() {
            let positions: Vec<u16> = t.elements().map(Element::position).collect();
            assert!(positions.iter().enumerate().all(|(n, p)| n == usize::from(*p)), "{t:?}");
        }
    }

    #[test]
    fn choices_have_a_property_per_type() {
        let patient = type_named("Patient").expect("Patient");
        let (element, t) = patient.property("deceasedDateTime").expect("a branch");
        assert_eq!(
            (element.name(), t.name(), element.json_name(t), element.companion(t)),
            ("deceased[x]", "dateTime", "deceasedDateTime", "_deceasedDateTime")
        );
        assert!(patient.property("deceased[x]").is_none() && patient.property("deceased").is_none() && patient.property("_birthDate").is_none());
        let (birth_date, date) = patient.property("birthDate").expect("plain");
        assert_eq!((birth_date.companion(date), birth_date.is_list(), birth_date.max()), ("_birthDate", false, Some(1)));
        let observation = type_named("Observation").expect("Observation");
        let value = observation.element("value[x]").expect("value[x]");
        assert_eq!(value.types().count(), 11);
        assert_eq!(value.json_name(type_named("Quantity").expect("Quantity")), "valueQuantity");
        assert!(patient.names().any(|n| n == "multipleBirthInteger"));
    }

    #[test]
    fn nested_and_referred_content_has_a_type() {
        let bundle = type_named("Bundle.entry").expect("nested");
        assert_eq!(bundle.element("link").and_then(|e| e.types().next()).map(Type::name), Some("Bundle.link"));
        assert_eq!(bundle.kind(), Kind::Backbone);
        let contact = type_named("Patient").and_then(|t| t.element("contact")).expect("contact");
        assert_eq!((contact.types().next().map(Type::name), contact.max(), contact.is_list()), (Some("Patient.contact"), None, true));
        for t in types() {
            for e in t.elements() {
                assert!(e.types().count() > 0, "{t:?}.{e:?}");
                for branch in e.types() {
                    let found = t.property(e.json_name(branch));
                    assert_eq!(found, Some((e, branch)), "{t:?}.{e:?}");
                }
                assert!(e.binding().is_none_or(|b| !b.value_set.url().is_empty()));
                assert!(e.targets().all(|target| type_named(target).is_some_and(|t| t.kind() == Kind::Resource)), "{t:?}.{e:?}");
            }
        }
    }

    #[test]
    fn codes_are_bound() {
        let gender = type_named("Patient").and_then(|t| t.element("gender")).and_then(Element::binding).expect("bound");
        assert_eq!((gender.strength, gender.value_set.name(), gender.value_set.is_complete()), (Strength::Required, "administrative-gender", true));
        assert_eq!(gender.value_set.codes().map(|c| c.1).collect::<Vec<_>>(), ["male", "female", "other", "unknown"]);
        assert_eq!(gender.value_set.find("female"), Some(("http://hl7.org/fhir/administrative-gender", "Female")));
        assert_eq!(gender.value_set.find("f"), None);
        assert_eq!(value_set("http://hl7.org/fhir/ValueSet/administrative-gender|4.0.1"), Some(gender.value_set));
        for set in value_set_names().filter_map(value_set) {
            for (_, code, _) in set.codes() {
                assert!(set.find(code).is_some(), "{set:?} {code}");
            }
        }
        let appointment = type_named("Appointment").expect("Appointment");
        let participant = appointment.element("participant").expect("participant");
        assert_eq!((participant.min(), participant.max()), (1, None));
        let actor = participant.types().next().and_then(|t| t.element("actor")).expect("actor");
        assert!(actor.targets().any(|t| t == "Practitioner"));
    }

    #[test]
    fn extensions_have_a_value_or_parts() {
        let citizenship = extension("http://hl7.org/fhir/StructureDefinition/patient-citizenship").expect("defined");
        assert_eq!(citizenship.parts().map(|p| p.name()).collect::<Vec<_>>(), ["code", "period"]);
        assert!(citizenship.value().is_none() && citizenship.max().is_none());
        let absent = extension("data-absent-reason").expect("defined");
        let value = absent.value().expect("a value");
        let code = value.types().next().expect("code");
        assert_eq!((value.json_name(code), value.is_list(), absent.max()), ("valueCode", false, Some(1)));
        assert_eq!(value.binding().map(|b| b.strength), Some(Strength::Required));
        for e in extension_names().filter_map(extension) {
            assert!(e.value().is_some() != (e.parts().count() > 0), "{e:?}");
            assert!(e.parts().all(|p| p.value().types().count() > 0), "{e:?}");
        }
    }

    #[test]
    fn inheritance_is_known() {
        let is = |a: &str, b: &str| type_named(a).expect(a).is(type_named(b).expect(b));
        assert!(is("Age", "Quantity") && is("Patient", "Resource") && is("code", "string") && is("Patient.contact", "BackboneElement"));
        assert!(!is("Quantity", "Age") && !is("Patient", "BackboneElement"));
        assert!(type_named("Resource").expect("Resource").is_abstract() && !type_named("Patient.contact").expect("nested").is_abstract());
        assert!(type_named("patient").is_none() && type_named("Patient.name").is_none());
    }
}
