//! Completion: what may be written at a position.

use crate::fhir::{self, Element, Kind as FhirKind, Type};
use crate::hl7v2;
use crate::route::assist::View;
use crate::route::assist::context::{Context, Wanted, makes_resource};
use crate::route::assist::hover;
use crate::route::assist::index::arrow;
use crate::route::assist::outline::{Quote, Section, Where};
use crate::route::keys::{Declared, IN, KINDS, OWN, Place, ROW, Takes, UNMAPPED};
use std::ops::Range;

/// What sort of thing is offered, for the editor's icon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuggestionKind {
    /// A FHIR element or an extension.
    Element,
    /// A key of Kiln's.
    Key,
    /// A v2 segment, field, component or type.
    Path,
    /// A function.
    Function,
    /// `if`, `valued`.
    Keyword,
    /// A table, map, resource, overlay or variable by name.
    Name,
    /// A code of a value set or table, or another word of a closed list.
    Code,
}

/// One thing that may be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    /// What is shown.
    pub label: String,
    /// Its sort.
    pub kind: SuggestionKind,
    /// Beside the label: `0..*, HumanName`.
    pub detail: String,
    /// Markdown.
    pub documentation: String,
    /// What is written in place of `replaces`.
    pub insert: String,
    /// Bytes of the text.
    pub replaces: Range<usize>,
}

/// So many codes of one value set are offered at most.
pub(crate) const CODES_MAX: usize = 300;

pub(super) fn complete(view: &View<'_>, at: usize) -> Vec<Suggestion> {
    let Some(section) = view.outline.section(at) else { return Vec::new() };
    let mut out = Offers { view, at, section, list: Vec::new() };
    match view.outline.locate(&view.text, at) {
        None => {}
        Some(Where::Key(n)) => {
            let range = view.outline.entry(n).map_or(at..at, |e| e.key.clone());
            let bare = view.outline.entry(n).is_some_and(|e| e.bare);
            let chain = view.outline.chain(n);
            let around = chain.get(..chain.len().saturating_sub(1)).unwrap_or_default();
            out.keys(around, &range, bare, Some(n));
        }
        Some(Where::Inside(around)) => {
            let chain = around.map(|n| view.outline.chain(n)).unwrap_or_default();
            if around.and_then(|n| view.outline.entry(n)).is_some_and(|e| e.value.start < e.value.end && view.part(&e.value).starts_with('[')) {
                out.value(&chain, at..at, Quote::Plain);
            } else {
                out.keys(&chain, &(at..at), true, None);
            }
        }
        Some(Where::Value(n)) => {
            let chain = view.outline.chain(n);
            if let Some(entry) = view.outline.entry(n) {
                let inside = entry.value.start <= at && at <= entry.value.end && !(entry.value.is_empty() && entry.quote == Quote::Plain);
                // Behind the last blank of a plain value, the value goes on.
                let goes_on = entry.quote == Quote::Plain && !entry.value.is_empty() && entry.value.end < at;
                let range = if inside {
                    entry.value.clone()
                } else if goes_on {
                    entry.value.start..at
                } else {
                    at..at
                };
                out.value(&chain, range.clone(), if inside { entry.quote } else { Quote::Plain });
                // `- ` may begin a body as well.
                if entry.list && (!inside || entry.quote == Quote::Plain) && !entry.brackets {
                    let owner = view.owner(&chain);
                    out.keys(&owner, &range, true, None);
                }
            }
        }
    }
    out.list
}

pub(crate) struct Offers<'v> {
    pub(crate) view: &'v View<'v>,
    pub(crate) at: usize,
    pub(crate) section: &'v Section,
    pub(crate) list: Vec<Suggestion>,
}

impl<'v> Offers<'v> {
    pub(crate) fn add(
        &mut self,
        label: &str,
        kind: SuggestionKind,
        detail: impl Into<String>,
        documentation: impl Into<String>,
        insert: String,
        replaces: &Range<usize>,
    ) {
        if self.list.iter().all(|s| s.label != label) {
            self.list.push(Suggestion {
                label: label.to_owned(),
                kind,
                detail: detail.into(),
                documentation: documentation.into(),
                insert,
                replaces: replaces.clone(),
            });
        }
    }

    /// Keys of the body or document at the end of a chain, without those that stand there already.
    fn keys(&mut self, chain: &[usize], range: &Range<usize>, bare: bool, own: Option<usize>) {
        let roots = &self.section.roots;
        let there: Vec<String> = self
            .view
            .outline
            .children(chain.last().copied(), self.section)
            .into_iter()
            .filter(|n| Some(*n) != own)
            .filter_map(|n| self.view.outline.entry(n))
            .map(|e| self.view.part(&e.key).to_owned())
            .collect();
        let key = |name: &str| if bare { format!("{name}: ") } else { name.to_owned() };
        if chain.is_empty() && (roots.is_empty() || roots.first().copied() == own) {
            for kind in KINDS {
                self.add(kind.first, SuggestionKind::Key, "document", kind.meaning, key(kind.first), range);
            }
            return;
        }
        let context = self.view.context(roots, chain);
        let declared = |out: &mut Self, keys: &mut dyn Iterator<Item = &'static Declared>| {
            for k in keys.filter(|k| !there.iter().any(|t| t == k.name)) {
                out.add(k.name, SuggestionKind::Key, "", k.meaning, key(k.name), range);
            }
        };
        match context {
            Context::Document(keys) => {
                declared(self, &mut keys.iter().chain(chain.is_empty().then_some(&IN)));
            }
            Context::Keys(keys) => declared(self, &mut keys.iter()),
            Context::Row => {
                declared(self, &mut ROW.iter());
                let (_, head) = self.view.kind(roots);
                let columns: Vec<String> = self.view.assist.index.named("table", &head).flat_map(|d| d.columns.clone()).collect();
                for column in columns {
                    self.add(&column, SuggestionKind::Name, "column", "", key(&column), range);
                }
            }
            Context::Body(ty, place) => {
                if let Some(ty) = ty {
                    self.elements(ty, &there, range, &key);
                }
                declared(self, &mut OWN.iter().filter(|k| k.allowed(place) && (k.name != IN.name || place == Place::Map)));
            }
            Context::Extensions(ty) => {
                // Of a primitive, the context is its element, which is not known here: then all are offered.
                let allowed = |d: &fhir::ExtensionDef| {
                    ty.is_none_or(|t| {
                        t.kind() == FhirKind::Primitive
                            || d.contexts().any(|c| c == t.name() || c == "Element" || fhir::type_named(c).is_some_and(|base| t.is(base)))
                    })
                };
                let free = fhir::extension_names().filter_map(fhir::extension).filter(|d| !there.iter().any(|t| t == d.name()));
                for def in free.filter(allowed) {
                    let parts: Vec<&str> = def.parts().map(|p| p.name()).collect();
                    let detail = if parts.is_empty() { "extension".to_owned() } else { format!("extension with parts {}", parts.join(", ")) };
                    self.add(def.name(), SuggestionKind::Element, detail, def.title(), key(def.name()), range);
                }
            }
            Context::Parts(def) => {
                for part in def.parts().filter(|p| !there.iter().any(|t| t == p.name())) {
                    self.add(part.name(), SuggestionKind::Element, "part", "", key(part.name()), range);
                }
                declared(self, &mut OWN.iter().filter(|k| k.allowed(Place::Inside) && k.name != IN.name));
            }
            Context::Lists(ty) => {
                for e in ty.into_iter().flat_map(Type::elements).filter(|e| e.is_list() && !there.iter().any(|t| t == e.name())) {
                    self.add(e.name(), SuggestionKind::Element, "list", e.short(), key(e.name()), range);
                }
            }
            Context::Types => {
                for ty in fhir::types().filter(|t| t.kind() == FhirKind::Resource && !t.is_abstract()) {
                    self.add(ty.name(), SuggestionKind::Element, "resource", ty.short(), key(ty.name()), range);
                }
            }
            Context::Draft(part, place) => {
                self.line(part, range, bare);
                declared(self, &mut OWN.iter().filter(|k| k.allowed(place) && k.name != IN.name));
            }
            Context::Question(ty) => {
                for p in ty.map(|t| fhir::search_parameters(t.name())).unwrap_or_default() {
                    self.add(p.name, SuggestionKind::Element, p.kind, hover::parameter(p), key(p.name), range);
                }
                declared(self, &mut OWN.iter().filter(|k| k.only.contains(&Place::Question)));
            }
            Context::Rows | Context::Fields | Context::Items | Context::Resources | Context::Questions | Context::Names => {}
        }
    }

    fn elements(&mut self, ty: Type, there: &[String], range: &Range<usize>, key: &dyn Fn(&str) -> String) {
        for e in ty.elements().filter(|e| !there.iter().any(|t| t.trim_end_matches('+') == e.name())) {
            let text = hover::element(ty, e, None);
            self.add(e.name(), SuggestionKind::Element, hover::shape(e), text.clone(), key(e.name()), range);
            for branch in e.is_choice().then(|| e.types()).into_iter().flatten() {
                self.add(
                    e.json_name(branch),
                    SuggestionKind::Element,
                    format!("{}..1, {}", e.min(), branch.name()),
                    text.clone(),
                    key(e.json_name(branch)),
                    range,
                );
            }
        }
        // The companions of primitives hold extensions.
        for e in ty.elements().filter(|e| !e.is_choice() && e.types().next().is_some_and(|t| t.kind() == FhirKind::Primitive)) {
            if let Some(t) = e.types().next().filter(|_| !matches!(e.name(), "id" | "implicitRules" | "language")) {
                self.add(e.companion(t), SuggestionKind::Element, "extensions", format!("extensions of {}", e.name()), key(e.companion(t)), range);
            }
        }
    }

    fn value(&mut self, chain: &[usize], range: Range<usize>, quote: Quote) {
        let wanted = self.view.wanted(&self.section.roots, chain);
        if quote == Quote::Quoted {
            match wanted {
                Wanted::Element(e, branch) => self.codes(e, branch, &range, ""),
                Wanted::Key(k) => self.words(k, &range),
                Wanted::Coded(table) => self.table_codes(table, &range),
                _ => {}
            }
            return;
        }
        let own_words = match wanted {
            Wanted::Head => {
                self.head(&range);
                true
            }
            Wanted::Key(k) => {
                self.words(k, &range);
                !matches!(k.takes, Takes::Expression | Takes::Expressions | Takes::Each | Takes::Save | Takes::Item | Takes::Alternatives)
            }
            Wanted::Code => {
                let (_, head) = self.view.kind(&self.section.roots);
                let to = self.view.assist.index.named("table", &head).map(|d| d.to.clone()).next_back().unwrap_or_default();
                for (_, code, display) in fhir::value_set(&to).into_iter().flat_map(|s| s.codes().take(CODES_MAX)) {
                    self.add(code, SuggestionKind::Code, display, "", code.to_owned(), &range);
                }
                true
            }
            Wanted::Other => true,
            Wanted::Element(..) | Wanted::Item | Wanted::Coded(_) => false,
        };
        if !own_words {
            self.expression(chain, &range, wanted);
        }
    }

    /// What a key of Kiln's takes, where that is a closed list.
    fn words(&mut self, key: &'static Declared, range: &Range<usize>) {
        let docs = &self.view.assist.index.docs;
        let names = |kind: &str| docs.iter().filter(|d| d.kind == kind).map(|d| (d.name.clone(), kind.to_owned())).collect::<Vec<_>>();
        let found: Vec<(String, String)> = match (key.name, key.takes) {
            (_, Takes::Choice(words)) => words.iter().map(|w| ((*w).to_owned(), String::new())).collect(),
            (_, Takes::Unmapped) => UNMAPPED.iter().map(|w| ((*w).to_owned(), String::new())).collect(),
            (_, Takes::Save) if !self.view.part(&(range.start..self.at)).contains(' ') => {
                ["merge by ", "update by ", "create by ", "put by ", "patch by ", "find by ", "delete by ", "contained", "logical"]
                    .map(|v| (v.to_owned(), String::new()))
                    .to_vec()
            }
            (_, Takes::Arrows) => names("map").into_iter().filter(|(head, _)| makes_resource(head)).collect(),
            ("like", _) => names("route"),
            ("use" | "$in", _) => docs.iter().filter(|d| !d.overlay.is_empty()).map(|d| (d.overlay.clone(), "overlay".to_owned())).collect(),
            ("on", _) => {
                let mut events: Vec<(String, String)> =
                    hl7v2::events(hl7v2::Version::V251).map(|(event, structure)| (event.to_owned(), structure.to_owned())).collect();
                events.push(("otherwise".to_owned(), "what no other route takes".to_owned()));
                events
            }
            ("to", _) if !matches!(self.view.kind(&self.section.roots).0.as_str(), "route") => {
                fhir::value_set_names().map(|n| (n.to_owned(), "value set".to_owned())).collect()
            }
            ("type", _) => hl7v2::datatype_ids().map(|n| (n.to_owned(), "data type".to_owned())).collect(),
            ("$search", _) => {
                fhir::types().filter(|t| t.kind() == FhirKind::Resource && !t.is_abstract()).map(|t| (t.name().to_owned(), t.short().to_owned())).collect()
            }
            ("reply", _) => hl7v2::events(hl7v2::Version::V251).map(|(event, structure)| (format!("{event}^{structure}"), String::new())).collect(),
            ("after", _) => hl7v2::segment_ids().map(|n| (n.to_owned(), "segment".to_owned())).collect(),
            _ => Vec::new(),
        };
        for (word, detail) in found {
            self.add(&word, SuggestionKind::Code, detail, "", word.clone(), range);
        }
    }

    /// The head of a document.
    fn head(&mut self, range: &Range<usize>) {
        let first = self.section.roots.first().and_then(|n| self.view.outline.entry(*n)).map_or("", |e| self.view.part(&e.key));
        let written = self.view.part(&(range.start..self.at));
        match first {
            "extend" => {
                let docs = self.view.assist.index.docs.iter().filter(|d| d.kind != "extend" && !d.name.is_empty());
                for (name, kind) in docs.map(|d| (d.name.clone(), d.kind.clone())).collect::<Vec<_>>() {
                    self.add(&name, SuggestionKind::Name, kind, "", name.clone(), range);
                }
            }
            "map" => {
                if let Some((source, _)) = arrow(written) {
                    for ty in fhir::types().filter(|t| !t.is_abstract() && t.kind() != FhirKind::Primitive) {
                        self.add(ty.name(), SuggestionKind::Element, "FHIR", ty.short(), format!("{source} -> {}", ty.name()), range);
                    }
                    return;
                }
                for id in hl7v2::segment_ids() {
                    let name = hl7v2::newest_segment(id).map_or("", |s| s.name());
                    self.add(id, SuggestionKind::Path, "segment", name, format!("{id} -> "), range);
                }
                for id in hl7v2::datatype_ids() {
                    let name = hl7v2::newest_datatype(id).map_or("", |s| s.name());
                    self.add(id, SuggestionKind::Path, "data type", name, format!("{id} -> "), range);
                }
            }
            _ => {}
        }
    }

    /// Codes of the value set that an element's constants are taken from.
    pub(crate) fn codes(&mut self, element: Element, branch: Option<Type>, range: &Range<usize>, quotes: &str) {
        if let Some(binding) = element.binding() {
            for (system, code, display) in binding.value_set.codes().take(CODES_MAX) {
                self.add(code, SuggestionKind::Code, display, system, format!("{quotes}{code}{quotes}"), range);
            }
        }
        if branch.or_else(|| element.types().next()).is_some_and(|t| t.name() == "boolean") {
            for word in ["true", "false"] {
                self.add(word, SuggestionKind::Code, "", "", word.to_owned(), range);
            }
        }
    }
}
