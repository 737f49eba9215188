//! Extensions by their names, and the companions of primitives that hold them.

use crate::diagnostic::Diagnostic;
use crate::fhir::{self, Node, Type};
use crate::route::code::{Body, BodyLine, Item, Needs};
use crate::route::compile::body::Part;
use crate::route::compile::needs;
use crate::route::compile::scope::Scope;
use crate::route::compile::{Compiler, Wanted};
use crate::route::tree::{self, Key};
use std::sync::Arc;

impl<'a> Compiler<'a> {
    /// `extension: { patient-religion: PID-17 }`: the definitions supply URL, type and parts.
    pub(crate) fn extensions(
        &mut self,
        scope: &mut Scope<'a>,
        body: &'a tree::Body,
        list: &str,
        ty: Type,
        path: &str,
        line: &tree::Line,
        out: &mut Body,
    ) -> bool {
        let mut constant = true;
        let position = ty.element(list).map_or(2, |e| e.position());
        let name = if list == "extension" { "extension" } else { "modifierExtension" };
        for extension in &body.lines {
            let Some(def) = fhir::extension(&extension.element.text) else {
                let names: Vec<&str> = fhir::extension_names().collect();
                let help = crate::diagnostic::suggest(&extension.element.text, names.iter().copied())
                    .map_or_else(|| "extensions are named by the last part of their URL".to_owned(), |n| format!("did you mean {n}?"));
                self.report(
                    Diagnostic::error("K301", extension.element.span, format!("there is no extension {}", extension.element.text))
                        .label("unknown extension")
                        .help(help),
                );
                continue;
            };
            let allowed = def.contexts().any(|c| {
                c == path
                    || c == ty.name()
                    || matches!(c, "Element" | "Resource" | "DomainResource" | "BackboneElement")
                    || fhir::type_named(c).is_some_and(|t| ty.is(t))
            });
            if !allowed && def.contexts().next().is_some() {
                let contexts: Vec<&str> = def.contexts().collect();
                self.report(
                    Diagnostic::error("K315", extension.element.span, format!("{} may not stand on {path}", extension.element.text))
                        .label("not allowed here")
                        .help(format!("it belongs to: {}", contexts.join(", "))),
                );
            }
            let part = self.extension(scope, &extension.item, def, &extension.element);
            constant &= part.constant;
            let (place, column) = self.spot(extension.element.span);
            let branches = Vec::new();
            out.lines.push(BodyLine {
                position,
                name,
                list: true,
                append: true,
                branches,
                needs: needs::of(&part.item),
                item: part.item,
                line: place,
                column,
                places: part.places,
            });
        }
        let _ = line;
        constant
    }

    fn extension(&mut self, scope: &mut Scope<'a>, item: &'a tree::Item, def: fhir::ExtensionDef, key: &Key) -> Part {
        let url = def.url();
        if let Some(value) = def.value() {
            let wanted = value_wanted(value, def.max() != Some(1), &format!("{}.value[x]", def.name()));
            let part = self.item(scope, item, &wanted);
            if part.many && !wanted.list {
                self.many_into_one(item, &wanted);
            }
            return Part { item: Item::Extension(url, Box::new(part.item)), ..part };
        }
        if let tree::Item::List(items, _) = item {
            let mut out = Part { item: Item::Nothing, many: true, constant: true, places: Vec::new(), names: Vec::new() };
            let mut parts = Vec::new();
            for item in items {
                let part = self.extension(scope, item, def, key);
                out.constant &= part.constant;
                out.places.extend(part.places);
                parts.push(part.item);
            }
            out.item = Item::List(parts);
            return out;
        }
        let tree::Item::Body(body) = item else {
            let parts: Vec<&str> = def.parts().map(|p| p.name()).collect();
            self.report(
                Diagnostic::error("K401", key.span, format!("{} has parts, not a value", def.name()))
                    .label("needs a body")
                    .help(format!("its parts are: {}", parts.join(", "))),
            );
            return Part { item: Item::Nothing, many: false, constant: true, places: Vec::new(), names: Vec::new() };
        };
        let depth = scope.entries.len();
        let mut made = Body { path: Arc::from(def.name()), url: Some(url), slot: depth, ..Body::default() };
        if let Some(each) = &body.each {
            let (values, by, many) = self.each(scope, each);
            made.each = Some((values, by));
            made.many = many;
        }
        if let Some(when) = &body.when {
            made.when = Some(self.condition(scope, when).x);
        }
        let mut constant = true;
        let mut places = Vec::new();
        let (line, column) = self.spot(key.span);
        made.lines.push(BodyLine {
            position: 3,
            name: "url",
            list: false,
            append: false,
            branches: Vec::new(),
            needs: Needs::ALWAYS,
            item: Item::Constant("url", Node::Text(url.to_owned())),
            line,
            column,
            places: Vec::new(),
        });
        for part_line in &body.lines {
            let Some(part) = def.part(&part_line.element.text) else {
                let parts: Vec<&str> = def.parts().map(|p| p.name()).collect();
                self.report(
                    Diagnostic::error("K301", part_line.element.span, format!("{} has no part {}", def.name(), part_line.element.text))
                        .label("unknown part")
                        .help(format!("its parts are: {}", parts.join(", "))),
                );
                continue;
            };
            let wanted = value_wanted(part.value(), part.max() != Some(1), &format!("{}.{}", def.name(), part.name()));
            let compiled = self.item(scope, &part_line.item, &wanted);
            if compiled.many && !wanted.list {
                self.many_into_one(&part_line.item, &wanted);
            }
            constant &= compiled.constant;
            places.extend(compiled.places.iter().cloned());
            let (line, column) = self.spot(part_line.element.span);
            let item = Item::Extension(part.name(), Box::new(compiled.item));
            let (branches, places) = (Vec::new(), compiled.places);
            made.lines.push(BodyLine {
                position: 2,
                name: "extension",
                list: true,
                append: true,
                branches,
                needs: needs::of(&item),
                item,
                line,
                column,
                places,
            });
        }
        scope.entries.truncate(depth);
        made.constant = constant;
        let many = made.many;
        Part { item: Item::Body("extension", Box::new(made)), many, constant, places, names: vec!["extension"] }
    }

    /// `_birthDate: { extension: {...} }`: the companion of a primitive.
    pub(crate) fn companion(&mut self, scope: &mut Scope<'a>, primitive: &str, ty: Type, path: &str, line: &'a tree::Line, out: &mut Body) -> bool {
        let found = ty.element(primitive).and_then(|e| e.types().next().map(|t| (e, t))).or_else(|| ty.property(primitive));
        let Some((element, branch)) = found.filter(|(_, t)| t.kind() == fhir::Kind::Primitive) else {
            let help = self.suggest_element(ty, primitive);
            self.report(
                Diagnostic::error("K301", line.element.span, format!("{path} has no primitive element {primitive}")).label("unknown element").help(help),
            );
            return true;
        };
        let tree::Item::Body(body) = &line.item else {
            self.report(
                Diagnostic::error("K401", line.element.span, format!("_{primitive} holds extensions"))
                    .label("needs a body")
                    .help("write `{ extension: { NAME: VALUE } }`"),
            );
            return true;
        };
        let place = format!("{}.{primitive}", ty.name());
        let compiled = self.body(scope, body, branch, &place, false);
        let constant = compiled.constant;
        let position = element.position();
        let name = element.companion(branch);
        let (source, column) = self.spot(line.element.span);
        let places = compiled.places.clone();
        let item = Item::Body(name, Box::new(compiled));
        out.lines.push(BodyLine {
            position,
            name,
            // Beside a list of values stands a list of their companions (https://hl7.org/fhir/R4/json.html#primitive).
            list: element.is_list(),
            append: false,
            branches: Vec::new(),
            needs: needs::of(&item),
            item,
            line: source,
            column,
            places,
        });
        constant
    }
}

fn value_wanted(value: fhir::Element, list: bool, path: &str) -> Wanted {
    let types: Vec<Type> = value.types().collect();
    let first = types.first().copied();
    Wanted {
        element: Some(value),
        name: first.map_or("value", |t| value.json_name(t)),
        companion: first.map_or("_value", |t| value.companion(t)),
        types,
        choice: Some(value),
        list,
        path: path.to_owned(),
    }
}
