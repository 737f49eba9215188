//! What documents promise before any body is compiled: heads of maps, what they take, declared segments and types.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir;
use crate::route::compile::{Compiler, MapHead, Wanted};
use crate::route::names::intern;
use crate::route::tree::{Body, Document, Head, Key, Target};
use crate::route::types::Ty;

impl<'a> Compiler<'a> {
    /// Sorts documents by kind and reads the heads of maps, so that order of files never matters.
    pub(crate) fn collect(&mut self, documents: &'a [Document]) {
        for document in documents {
            match &document.head {
                Head::Segment(doc) => self.v2.declare_segment(doc),
                Head::Datatype(doc) => self.v2.declare_datatype(doc),
                Head::Table(doc) => self.table_docs.push(doc),
                Head::Systems(doc) => self.systems_docs.push(doc),
                Head::Route(doc) => self.route_docs.push(doc),
                Head::Map { .. } => {}
            }
        }
        for document in documents {
            if let Head::Map { source, target, body } = &document.head {
                self.collect_map(source, target, body, document.span);
            }
        }
        for document in documents {
            match &document.head {
                Head::Segment(doc) => {
                    self.check_declared(&doc.fields);
                    self.check_place(doc);
                }
                Head::Datatype(doc) => self.check_declared(&doc.components),
                _ => {}
            }
        }
        self.collect_structures();
    }

    fn collect_map(&mut self, source: &'a Key, target: &'a Target, body: &'a Body, span: Span) {
        let from = if self.v2.is_segment(&source.text) {
            Ty::Segment(intern(&source.text))
        } else if self.v2.is_datatype(&source.text) {
            Ty::V2 { datatype: intern(&source.text), table: None }
        } else if let Some(ty) = fhir::type_named(&source.text) {
            Ty::Fhir(ty)
        } else {
            if source.text.len() == 3 && source.text.starts_with('Z') {
                let fault = Diagnostic::error("K212", source.span, format!("the Z-segment {} is not declared", source.text)).label("a site's own segment");
                self.report(fault.help(format!("declare it: `segment: {}` with `after:` and `fields:`", source.text)));
                return;
            }
            let help = self.suggest_source(&source.text);
            self.report(Diagnostic::error("K202", source.span, format!("there is no segment or data type {}", source.text)).label("unknown source").help(help));
            return;
        };
        let Some(mut ty) = fhir::type_named(&target.name) else {
            if self.v2.is_segment(&target.name) || self.v2.is_datatype(&target.name) {
                self.collect_v2_map(source, from, target, body, span);
                return;
            }
            let names: Vec<&str> = fhir::types().map(|t| t.name()).collect();
            let help = crate::diagnostic::suggest(&target.name, names.iter().copied())
                .map_or_else(|| "write a FHIR R4 type or resource, such as Patient or Identifier".to_owned(), |name| format!("did you mean {name}?"));
            self.report(Diagnostic::error("K302", target.span, format!("FHIR R4 has no type {}", target.name)).label("unknown type").help(help));
            return;
        };
        let mut choice = None;
        for element in &target.element {
            let Some(found) = ty.element(element).or_else(|| ty.property(element).map(|(e, _)| e)) else {
                let help = self.suggest_element(ty, element);
                self.report(Diagnostic::error("K301", target.span, format!("{} has no element {element}", ty.name())).label("unknown element").help(help));
                return;
            };
            if found.is_choice() {
                choice = Some(found);
            } else if let Some(inner) = found.types().next() {
                ty = inner;
            }
        }
        let resource = (target.element.is_empty() && ty.kind() == fhir::Kind::Resource).then(|| ty.name());
        let takes = body.takes.iter().map(|(name, ty)| self.takes(name, ty)).collect();
        let head = MapHead { source: source.text.clone(), from, target, ty, choice, resource, takes, body, span, calls: Vec::new() };
        self.map_index.add(self.maps.len(), &head);
        self.maps.push(head);
    }

    /// A parameter's type: a v2 data type, a FHIR type, a resource (a reference to it), or an element.
    pub(crate) fn takes(&mut self, name: &Key, ty: &Key) -> (String, Ty, Option<Wanted>) {
        let name = name.text.clone();
        if self.v2.is_datatype(&ty.text) {
            return (name, Ty::V2 { datatype: intern(&ty.text), table: None }, None);
        }
        let mut parts = ty.text.split('.');
        let mut found = parts.next().and_then(fhir::type_named);
        let mut element = None;
        for part in parts {
            element = found.and_then(|t| t.element(part).or_else(|| t.property(part).map(|(e, _)| e)));
            found = element.and_then(|e| e.types().next());
        }
        match found {
            Some(t) if t.kind() == fhir::Kind::Resource => {
                let reference = fhir::type_named("Reference").unwrap_or(t);
                let mut wanted = Wanted::bare(reference);
                wanted.path.clone_from(&ty.text);
                (name, Ty::Resource(vec![t.name()]), Some(wanted))
            }
            Some(t) if t.name() == "string" => (name, Ty::Text, None),
            Some(t) => {
                let mut wanted = Wanted::bare(t);
                wanted.element = element;
                wanted.path.clone_from(&ty.text);
                (name, Ty::Fhir(t), Some(wanted))
            }
            None => {
                self.report(
                    Diagnostic::error("K302", ty.span, format!("there is no type {}", ty.text))
                        .label("unknown type")
                        .help("write a v2 data type (HD), a FHIR type (string), a resource (Location) or an element (Location.physicalType)"),
                );
                (name, Ty::Nothing, None)
            }
        }
    }
}
