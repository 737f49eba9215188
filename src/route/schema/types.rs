//! FHIR's types as definitions of a schema: elements with their descriptions, bodies, extensions.

use crate::fhir::{self, Element, ExtensionDef, Kind, Type};
use crate::route::schema::{described, item, reference};
use serde_json::{Map, Value, json};

/// The name of the definition of a type's lines.
pub(super) fn lines(ty: &str) -> String {
    format!("{ty}.lines")
}

/// Adds, for every type, its lines, its body (lines and `$` keys) and what a line of that type takes.
pub(super) fn define(defs: &mut Map<String, Value>) {
    for ty in fhir::types() {
        if ty.is_abstract() && ty.kind() != Kind::Resource {
            continue;
        }
        defs.insert(lines(ty.name()), lines_of(ty));
        defs.insert(format!("{}.body", ty.name()), body(ty));
        defs.insert(format!("{}.item", ty.name()), item(&reference(&format!("{}.body", ty.name()))));
    }
    // The value's type decides the branch, or a line names it: `valueQuantity`. Which there are, the checker knows.
    let branch = json!({ "^[a-z]+[A-Z][A-Za-z0-9]*$": reference("item") });
    let own = json!({ "type": "object", "$ref": "#/$defs/in-body", "patternProperties": branch, "unevaluatedProperties": false });
    defs.insert("choice".to_owned(), item(&own));
    defs.insert("extensions".to_owned(), extensions());
    let part = json!({ "$ref": "#/$defs/in-body", "type": "object", "properties": { "extension": reference("extensions"), "id": reference("expression") }, "unevaluatedProperties": false });
    defs.insert("companion".to_owned(), part);
}

fn body(ty: Type) -> Value {
    let lines = reference(&lines(ty.name()));
    if ty.name() == "Reference" {
        // With `$from`, the lines are those of the resource that is referred to.
        let open = json!({ "patternProperties": { "^[^$]": reference("item") } });
        return json!({
            "type": "object", "$ref": "#/$defs/in-body",
            "if": { "required": ["$from"] }, "then": open, "else": lines,
            "unevaluatedProperties": false,
        });
    }
    json!({ "type": "object", "allOf": [lines, reference("in-body")], "unevaluatedProperties": false })
}

fn lines_of(ty: Type) -> Value {
    let mut properties = Map::new();
    let mut appended: Map<String, Value> = Map::new();
    for element in ty.elements() {
        let takes = takes(element);
        if element.is_list() {
            appended.insert(format!("^{}\\+$", element.name()), takes.clone());
        }
        properties.insert(element.name().to_owned(), described(takes, &about(element)));
        if element.is_choice() {
            for branch in element.types() {
                let text = format!("{} ({})", element.short(), branch.name());
                properties.insert(element.json_name(branch).to_owned(), described(reference(&format!("{}.item", branch.name())), &text));
            }
        }
    }
    appended.insert("^_[a-z][A-Za-z0-9]*$".to_owned(), reference("companion"));
    let mut schema = json!({ "properties": properties, "patternProperties": appended });
    schema = described(schema, ty.short());
    schema
}

fn takes(element: Element) -> Value {
    if matches!(element.name(), "extension" | "modifierExtension") {
        return reference("extensions");
    }
    if element.is_choice() {
        return reference("choice");
    }
    match element.types().next() {
        // Whole resources inside others: any lines.
        Some(ty) if !ty.is_abstract() => reference(&format!("{}.item", ty.name())),
        _ => reference("item"),
    }
}

/// `A name associated with the patient. 0..*, HumanName; required codes of administrative-gender`.
fn about(element: Element) -> String {
    let most = element.max().map_or("*".to_owned(), |n| n.to_string());
    let types: Vec<&str> = element.types().map(|t| t.name()).collect();
    let types = if types.len() > 5 { "several types".to_owned() } else { types.join(" or ") };
    let mut text = format!("{}. {}..{most}, {types}", element.short(), element.min());
    if let Some(binding) = element.binding() {
        let strength = match binding.strength {
            fhir::Strength::Required => "required",
            fhir::Strength::Extensible => "extensible",
            fhir::Strength::Preferred => "preferred",
            fhir::Strength::Example => "example",
        };
        text.push_str(&format!("; {strength} codes: {}", binding.value_set.name()));
    }
    text
}

/// `extension: { patient-religion: PID-17 }`: by name or URL; or a list of whole extensions.
fn extensions() -> Value {
    let names: Map<String, Value> =
        fhir::extension_names().filter_map(fhir::extension).map(|e| (e.name().to_owned(), described(extension(e), e.title()))).collect();
    let body = json!({
        "type": "object", "properties": names, "patternProperties": { "^https?://": reference("item") },
        "$ref": "#/$defs/in-body", "unevaluatedProperties": false,
    });
    json!({ "anyOf": [reference("expression"), body, { "type": "array", "items": { "anyOf": [reference("expression"), reference("Extension.body")] } }] })
}

fn extension(def: ExtensionDef) -> Value {
    if let Some(element) = def.value() {
        return value(element);
    }
    let parts: Map<String, Value> = def.parts().map(|p| (p.name().to_owned(), value(p.value()))).collect();
    item(&json!({ "type": "object", "properties": parts, "$ref": "#/$defs/in-body", "unevaluatedProperties": false }))
}

fn value(element: Element) -> Value {
    let mut types = element.types();
    match (types.next(), types.next()) {
        (Some(one), None) if !one.is_abstract() => reference(&format!("{}.item", one.name())),
        _ => reference("choice"),
    }
}
