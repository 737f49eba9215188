//! What a place in a file is for: which element's value, which body's lines, which document's keys; and which values are in reach there.

use crate::fhir::{self, Element, ExtensionDef, Kind as FhirKind, Type};
use crate::route::assist::View;
use crate::route::assist::index::arrow;
use crate::route::assist::outline::Section;
use crate::route::assist::words;
use crate::route::keys::{DATATYPE, Declared, FIELD, OWN, Place, ROUTE, ROW, RULE, SEGMENT, SENDER, SYSTEMS, TABLE, Takes, find};
use crate::route::names::intern;
use crate::route::types::Ty;

/// What keys an entry's children may have.
#[derive(Clone, Copy)]
pub(crate) enum Context {
    /// A document's own keys.
    Document(&'static [Declared]),
    /// Nested data: a sender, a rule, a field.
    Keys(&'static [Declared]),
    /// A row of a table, with its columns beside these.
    Row,
    /// Lines of a FHIR type, if it is known.
    Body(Option<Type>, Place),
    /// Names of extensions, of a type if it is known.
    Extensions(Option<Type>),
    /// Parts of an extension.
    Parts(ExtensionDef),
    /// `$let`, `$with`: a name, then an item.
    Items,
    /// Names of resources.
    Resources,
    /// List elements of a type: `$merge`.
    Lists(Option<Type>),
    /// Resource types: `shared`.
    Types,
    /// `codes:`.
    Rows,
    /// `fields:`.
    Fields,
    /// Lines of a v2 message that is made.
    Draft(Part, Place),
    /// Questions of `ask`, by name.
    Questions,
    /// Search parameters of a resource type, if it is known.
    Question(Option<Type>),
    /// Names that the writer chooses.
    Names,
}

/// What lines of a `message:` are about.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    /// The message, or a group of it: keys are segments, fields and groups.
    Message,
    /// A segment: keys are its fields.
    Segment(&'static str),
    /// A field or component of this data type: keys are its components.
    Value(&'static str),
}

/// What a value is for.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    /// An element's value.
    Element(Element, Option<Type>),
    /// A key of Kiln's.
    Key(&'static Declared),
    /// The head of a document.
    Head,
    /// A name's value in `$let`, `$with`.
    Item,
    /// A v2 value that this table codes.
    Coded(&'static str),
    /// A row's code.
    Code,
    /// Something else.
    Other,
}

impl View<'_> {
    /// The kind of the document around: its first key, for an `extend:` what it extends; and its head.
    pub(crate) fn kind(&self, roots: &[usize]) -> (String, String) {
        let first = roots.first().and_then(|n| self.outline.entry(*n));
        let Some(first) = first.filter(|e| !e.bare) else { return (String::new(), String::new()) };
        let (kind, head) = (self.part(&first.key).to_owned(), self.part(&first.value).to_owned());
        if kind != "extend" {
            return (kind, head);
        }
        if head.contains("->") {
            return ("map".to_owned(), head);
        }
        let base = self.assist.index.docs.iter().find(|d| d.name == head && d.kind != "extend" && d.kind != "map");
        (base.map_or("route", |d| &d.kind).to_owned(), head)
    }

    /// What the children of the last entry of a chain are.
    pub(crate) fn context(&self, roots: &[usize], chain: &[usize]) -> Context {
        let (kind, head) = self.kind(roots);
        let mut context = match kind.as_str() {
            "map" => Context::Body(target_type(&head), Place::Map),
            "route" => Context::Document(ROUTE),
            "table" => Context::Document(TABLE),
            "systems" => Context::Document(SYSTEMS),
            "segment" => Context::Document(SEGMENT),
            "datatype" => Context::Document(DATATYPE),
            _ => Context::Document(&[]),
        };
        for n in chain {
            context = self.below(context, *n);
        }
        context
    }

    fn below(&self, context: Context, n: usize) -> Context {
        let Some(entry) = self.outline.entry(n) else { return Context::Names };
        if entry.list {
            return context;
        }
        let written = self.part(&entry.key);
        let key = written.strip_suffix('+').unwrap_or(written);
        match context {
            Context::Document(keys) | Context::Keys(keys) => match find(keys, key).map(|k| k.takes) {
                Some(Takes::Resources) => Context::Resources,
                Some(Takes::Rows) => Context::Rows,
                Some(Takes::Senders) => Context::Keys(SENDER),
                Some(Takes::Rules) => Context::Keys(RULE),
                Some(Takes::Fields) => Context::Fields,
                Some(Takes::Saves) => Context::Types,
                Some(Takes::Message(_)) => Context::Draft(Part::Message, Place::Message),
                Some(Takes::Questions) => Context::Questions,
                _ => Context::Names,
            },
            Context::Rows => Context::Row,
            Context::Fields => Context::Keys(FIELD),
            Context::Resources => Context::Body(self.resource_type(n), Place::Resource),
            Context::Items => Context::Body(None, Place::Inside),
            Context::Extensions(_) => match fhir::extension(key) {
                Some(def) if def.value().is_none() => Context::Parts(def),
                Some(def) => Context::Body(def.value().and_then(|e| e.types().next()), Place::Inside),
                None => Context::Body(None, Place::Inside),
            },
            Context::Parts(def) => Context::Body(def.part(key).and_then(|p| p.value().types().next()), Place::Inside),
            Context::Body(ty, _) if key.starts_with('$') => match find(OWN, key).map(|k| k.takes) {
                Some(Takes::NamedItems) => Context::Items,
                Some(Takes::Alternatives | Takes::Item | Takes::Body) => Context::Body(ty, Place::Inside),
                Some(Takes::Texts) if key == "$merge" => Context::Lists(ty),
                _ => Context::Names,
            },
            Context::Body(ty, _) if matches!(key, "extension" | "modifierExtension") => Context::Extensions(ty),
            Context::Body(ty, _) => {
                let plain = key.strip_prefix('_').unwrap_or(key);
                let found = ty.and_then(|t| element(t, plain));
                let mut inner = found.and_then(|(e, branch)| branch.or_else(|| e.types().next()));
                // With `$from`, lines below a reference are those of the resource.
                if inner.is_some_and(|t| t.name() == "Reference")
                    && let Some(from) = self.outline.child(n, "$from", &self.text).and_then(|c| self.outline.entry(c))
                    && let Some((_, target)) = self.part(&from.value).split_once(" as ")
                {
                    inner = target_type(&format!("X -> {}", target.trim())).or(inner);
                }
                Context::Body(inner, Place::Inside)
            }
            Context::Draft(part, _) if key.starts_with('$') => match find(OWN, key).map(|k| k.takes) {
                Some(Takes::NamedItems) => Context::Items,
                Some(Takes::Alternatives | Takes::Item) => Context::Draft(part, Place::Inside),
                _ => Context::Names,
            },
            Context::Draft(..) => match self.line(key) {
                Some(Ty::Segment(name)) => Context::Draft(Part::Segment(name), Place::Inside),
                Some(Ty::V2 { datatype, .. }) => Context::Draft(Part::Value(datatype), Place::Inside),
                // A group.
                _ => Context::Draft(Part::Message, Place::Inside),
            },
            Context::Questions => Context::Question(
                self.outline.child(n, "$search", &self.text).and_then(|c| self.outline.entry(c)).and_then(|e| fhir::type_named(self.part(&e.value))),
            ),
            Context::Question(_) | Context::Row | Context::Lists(_) | Context::Types | Context::Names => Context::Names,
        }
    }

    /// The type that a resource's `$map` makes, else that of the route's resource of that name where an `extend:` changes it.
    fn resource_type(&self, n: usize) -> Option<Type> {
        let map = self.outline.child(n, "$map", &self.text).and_then(|c| self.outline.entry(c))?;
        let first = map.children.first().and_then(|c| self.outline.entry(*c)).unwrap_or(map);
        target_type(self.part(&first.value))
    }

    /// What a line of a `message:` is about: `PID`, `PID-3.4`, `CX.4`, `PID.NTE`; nothing for a group.
    pub(crate) fn line(&self, key: &str) -> Option<Ty> {
        let v2 = &self.assist.index.v2;
        let key = key.strip_suffix('+').unwrap_or(key);
        // Behind an anchor stands what is meant.
        words::type_of(key, &[], v2).or_else(|| key.rsplit_once('.').and_then(|(_, last)| words::type_of(last, &[], v2)))
    }

    /// The chain without its last entries of lists, so that it ends with a key.
    pub(crate) fn owner(&self, chain: &[usize]) -> Vec<usize> {
        let mut chain = chain.to_vec();
        while chain.last().and_then(|n| self.outline.entry(*n)).is_some_and(|e| e.list) {
            chain.pop();
        }
        chain
    }

    /// What the value at the end of a chain is for.
    pub(crate) fn wanted(&self, roots: &[usize], chain: &[usize]) -> Wanted {
        let chain = self.owner(chain);
        let Some((last, around)) = chain.split_last() else { return Wanted::Other };
        if around.is_empty() && roots.first() == Some(last) {
            return Wanted::Head;
        }
        let Some(entry) = self.outline.entry(*last) else { return Wanted::Other };
        let written = self.part(&entry.key);
        let key = written.strip_suffix('+').unwrap_or(written);
        match self.context(roots, around) {
            Context::Document(keys) | Context::Keys(keys) => find(keys, key).map_or(Wanted::Other, Wanted::Key),
            Context::Row => find(ROW, key).map_or(Wanted::Other, Wanted::Key),
            Context::Body(ty, place) => match find(OWN, key).filter(|k| k.allowed(place)) {
                // The body's value is the element's.
                Some(own) if matches!(own.name, "$value" | "$from" | "$first") => match self.wanted(roots, around) {
                    wanted @ Wanted::Element(..) => wanted,
                    _ => Wanted::Key(own),
                },
                Some(own) => Wanted::Key(own),
                None => ty.and_then(|t| element(t, key)).map_or(Wanted::Item, |(e, branch)| Wanted::Element(e, branch)),
            },
            Context::Extensions(_) => fhir::extension(key).and_then(|d| d.value()).map_or(Wanted::Item, |e| Wanted::Element(e, None)),
            Context::Parts(def) => def.part(key).map_or(Wanted::Item, |p| Wanted::Element(p.value(), None)),
            Context::Draft(_, place) => match find(OWN, key).filter(|k| k.allowed(place)) {
                Some(own) => Wanted::Key(own),
                None => match self.line(key) {
                    Some(Ty::V2 { table: Some(table), .. }) => Wanted::Coded(table),
                    _ => Wanted::Item,
                },
            },
            Context::Question(_) => find(OWN, key).filter(|k| k.allowed(Place::Question)).map_or(Wanted::Item, Wanted::Key),
            Context::Items => Wanted::Item,
            Context::Rows => Wanted::Code,
            Context::Types => find(OWN, "$save").map_or(Wanted::Other, Wanted::Key),
            _ => Wanted::Other,
        }
    }

    /// The current values at the end of a chain, innermost first: the map's source, then each `$each` and `$from` around.
    pub(crate) fn current(&self, roots: &[usize], chain: &[usize]) -> Vec<Ty> {
        let (kind, head) = self.kind(roots);
        let mut current = Vec::new();
        if kind == "map"
            && let Some((source, _)) = arrow(&head)
        {
            let v2 = &self.assist.index.v2;
            if v2.is_segment(source) {
                current.push(Ty::Segment(intern(source)));
            } else if v2.is_datatype(source) {
                current.push(Ty::V2 { datatype: intern(source), table: None });
            }
        }
        for (depth, n) in chain.iter().enumerate() {
            for key in ["$each", "$from"] {
                let Some(each) = self.outline.child(*n, key, &self.text).filter(|c| chain.get(depth + 1) != Some(c)) else { continue };
                let Some(entry) = self.outline.entry(each) else { continue };
                if let Some(ty) = words::type_of(self.part(&entry.value), &current, &self.assist.index.v2) {
                    current.insert(0, ty);
                }
            }
        }
        current
    }
}

impl View<'_> {
    /// Names of `$let` and `$takes` in reach.
    pub(super) fn variables(&self, roots: &[usize], chain: &[usize]) -> Vec<(String, &'static str)> {
        let holders = chain.iter().flat_map(|n| self.outline.entry(*n).map(|e| e.children.clone()).unwrap_or_default()).chain(roots.iter().copied());
        let mut names = Vec::new();
        for n in holders {
            let Some(e) = self.outline.entry(n) else { continue };
            let how = match self.part(&e.key) {
                "$let" => "$let",
                "$takes" => "$takes",
                _ => continue,
            };
            names.extend(e.children.iter().filter_map(|c| self.outline.entry(*c)).map(|c| (self.part(&c.key).to_owned(), how)));
        }
        names
    }

    fn root(&self, section: &Section, key: &str) -> Option<usize> {
        section.roots.iter().copied().find(|n| self.outline.entry(*n).is_some_and(|e| self.part(&e.key) == key))
    }

    /// Resources of the route as its text stands now.
    pub(super) fn resource_names(&self, section: &Section) -> Vec<String> {
        let children = self.root(section, "resources").and_then(|n| self.outline.entry(n)).map(|e| e.children.clone()).unwrap_or_default();
        children.into_iter().filter_map(|n| self.outline.entry(n)).map(|e| self.part(&e.key).to_owned()).collect()
    }

    /// The messages of the route as its text stands now.
    pub(super) fn on(&self, section: &Section) -> Vec<String> {
        let Some(e) = self.root(section, "on").and_then(|n| self.outline.entry(n)) else { return Vec::new() };
        if e.children.is_empty() {
            return vec![self.part(&e.value).to_owned()];
        }
        e.children.iter().filter_map(|c| self.outline.entry(*c)).map(|c| self.part(&c.value).to_owned()).collect()
    }
}

/// The element of that JSON name, with its branch for `valueQuantity`.
pub(crate) fn element(ty: Type, name: &str) -> Option<(Element, Option<Type>)> {
    ty.element(name).map(|e| (e, None)).or_else(|| ty.property(name).map(|(e, branch)| (e, Some(branch))))
}

/// The FHIR type whose lines a map with this head has.
pub(crate) fn target_type(head: &str) -> Option<Type> {
    let (_, target) = arrow(head)?;
    let mut parts = target.split('.');
    let mut ty = fhir::type_named(parts.next()?.split('-').next()?)?;
    for part in parts {
        let (found, branch) = element(ty, part)?;
        if found.is_choice() && branch.is_none() {
            break;
        }
        ty = branch.or_else(|| found.types().next())?;
    }
    Some(ty)
}

/// Whether a map of this head makes a resource.
pub(crate) fn makes_resource(head: &str) -> bool {
    arrow(head).is_some_and(|(_, t)| !t.contains('.')) && target_type(head).is_some_and(|t| t.kind() == FhirKind::Resource)
}
