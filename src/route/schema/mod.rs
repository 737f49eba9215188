//! A JSON Schema (draft 2020-12) for route files: what an editor completes and describes without asking the language server.
//!
//! It knows keys, elements and words. Quoting, paths and scope are beyond it: the language server and `kiln check` know those.

mod types;

use crate::fhir::{self, Kind as FhirKind};
use crate::route::functions::FUNCTIONS;
use crate::route::keys::{Declared, FIELD, IN, KINDS, OWN, Place, ROW, RULE, SENDER, Takes, UNMAPPED};
use serde_json::{Map, Value, json};

/// The schema of one document of a route file.
pub fn schema() -> Value {
    let mut defs = Map::new();
    let first: Vec<Value> = KINDS.iter().map(|k| json!({ "required": [k.first] })).collect();
    let chosen: Vec<Value> = KINDS.iter().map(|k| json!({ "if": begins(k.first), "then": reference(k.first) })).collect();
    let heads: Map<String, Value> = KINDS.iter().map(|k| (k.first.to_owned(), json!({ "description": k.meaning }))).collect();
    defs.insert("expression".to_owned(), expression());
    defs.insert("text".to_owned(), json!({ "type": ["string", "number", "boolean"] }));
    defs.insert("texts".to_owned(), json!({ "anyOf": [reference("text"), { "type": "array", "items": reference("text") }] }));
    defs.insert("arrow".to_owned(), json!({ "type": "string", "pattern": "^\\s*[A-Za-z][A-Za-z0-9_]*\\s*->\\s*[A-Za-z][A-Za-z0-9_.\\[\\]-]*\\s*$" }));
    defs.insert("item".to_owned(), item(&reference("any-body")));
    defs.insert("any-body".to_owned(), any_body());
    for (name, place) in [("in-body", Place::Inside), ("in-map", Place::Map), ("in-resource", Place::Resource)] {
        defs.insert(name.to_owned(), own_keys(place, &reference("any-body")));
    }
    for kind in KINDS {
        let schema = match kind.first {
            "map" => map_document(),
            "extend" => extension(),
            _ => document(kind.first, kind.keys, kind.meaning),
        };
        defs.insert(kind.first.to_owned(), schema);
    }
    for (name, keys) in [("row", ROW), ("sender", SENDER), ("rule", RULE), ("field", FIELD)] {
        defs.insert(name.to_owned(), closed(keys, false));
    }
    // Columns stand beside the keys of a row.
    defs.insert("row".to_owned(), json!({ "type": "object", "properties": properties(ROW, false), "additionalProperties": reference("text") }));
    defs.insert("map-lines".to_owned(), map_lines());
    defs.insert("resource".to_owned(), resource());
    types::define(&mut defs);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A route file of Kiln",
        "description": "The first key of a document says what it is.",
        "type": ["object", "null"],
        "properties": heads,
        "if": { "type": "object" },
        "then": { "anyOf": first },
        "allOf": chosen,
        "$defs": defs,
    })
}

/// A document of that kind. A map may have an element of another kind's name (`Immunization.route`), and a schema sees no order.
fn begins(first: &str) -> Value {
    match first {
        "map" | "extend" => json!({ "required": [first] }),
        _ => json!({ "required": [first], "not": { "anyOf": [{ "required": ["map"] }, { "required": ["extend"] }] } }),
    }
}

/// `#/$defs/NAME`.
fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn described(mut schema: Value, meaning: &str) -> Value {
    if let Value::Object(map) = &mut schema {
        map.insert("description".to_owned(), json!(meaning));
    }
    schema
}

/// An expression is text for a schema; YAML editors read some of it as numbers and truth values.
fn expression() -> Value {
    let names: Vec<&str> = FUNCTIONS.iter().map(|f| f.name).collect();
    let about = format!(
        "plain: an expression (`PID-5`, `PID-3 where CX.5 = \"MR\"`, `a ?? b`, `if C then A else B`); quoted: a constant. Functions: {}",
        names.join(", ")
    );
    json!({ "type": ["string", "number", "boolean", "null"], "description": about })
}

/// The right side of a line: an expression, a constant, a body, or a list of these.
fn item(body: &Value) -> Value {
    json!({ "anyOf": [reference("expression"), body, { "type": "array", "items": { "anyOf": [reference("expression"), body] } }] })
}

/// Lines whose type a schema cannot tell.
fn any_body() -> Value {
    json!({ "type": "object", "patternProperties": { "^[^$]": reference("item") }, "$ref": "#/$defs/in-body", "unevaluatedProperties": false })
}

/// The `$` keys of a body; `same` is the definition of a body of its type.
fn own_keys(place: Place, same: &Value) -> Value {
    let keys: Map<String, Value> = OWN
        .iter()
        .filter(|k| k.allowed(place) && (k.name != IN.name || place == Place::Map))
        .map(|k| (k.name.to_owned(), described(value(k, same), k.meaning)))
        .collect();
    json!({ "properties": keys })
}

/// What a declared key takes.
fn value(key: &Declared, same: &Value) -> Value {
    let object = |values: Value| json!({ "type": "object", "additionalProperties": values });
    let text = reference("text");
    match key.takes {
        Takes::Expression | Takes::Each | Takes::Save => reference("expression"),
        Takes::Expressions => json!({ "anyOf": [reference("expression"), { "type": "array", "items": reference("expression") }] }),
        Takes::Word => text,
        Takes::Words => reference("texts"),
        Takes::Choice(words) => json!({ "enum": choices(words) }),
        Takes::Texts => object(text),
        Takes::Item => reference("item"),
        Takes::Alternatives => json!({ "type": "array", "items": { "anyOf": [reference("expression"), same] } }),
        Takes::NamedItems => object(reference("item")),
        Takes::Arrows => json!({ "anyOf": [reference("arrow"), { "type": "array", "items": reference("arrow") }] }),
        Takes::Body => same.clone(),
        Takes::Message(words) => json!({ "anyOf": [{ "enum": words }, { "type": "object" }] }),
        Takes::Questions => json!({ "type": "object" }),
        Takes::Resources => object(json!({ "anyOf": [{ "const": "nothing" }, reference("resource")] })),
        Takes::Saves => object(reference("expression")),
        Takes::Rows => object(json!({ "anyOf": [text, reference("row")] })),
        Takes::Unmapped => json!({ "anyOf": [{ "enum": UNMAPPED }, text] }),
        Takes::Senders => json!({ "type": "array", "items": reference("sender") }),
        Takes::Rules => json!({ "type": "array", "items": reference("rule") }),
        Takes::Fields => {
            json!({ "type": "object", "propertyNames": { "pattern": "^[1-9][0-9]*$" }, "additionalProperties": { "anyOf": [text, reference("field")] } })
        }
    }
}

/// Words as YAML editors read them: `true` is a truth value there.
fn choices(words: &[&str]) -> Vec<Value> {
    let truth = |word: &&str| word.parse::<bool>().ok().map(|b| json!(b));
    words.iter().map(|w| json!(w)).chain(words.iter().filter_map(truth)).collect()
}

/// The keys as properties; in an `extend:`, the lists also with a `+`.
fn properties(keys: &'static [Declared], extends: bool) -> Map<String, Value> {
    let mut map = Map::new();
    for key in keys {
        let schema = described(value(key, &reference("any-body")), key.meaning);
        if extends && key.appends {
            map.insert(format!("{}+", key.name), described(schema.clone(), &format!("appends: {}", key.meaning)));
        }
        map.insert(key.name.to_owned(), schema);
    }
    map
}

fn closed(keys: &'static [Declared], extends: bool) -> Value {
    json!({ "type": "object", "properties": properties(keys, extends), "additionalProperties": false })
}

/// A document whose keys are plain words.
fn document(first: &str, keys: &'static [Declared], meaning: &str) -> Value {
    let mut map = Map::new();
    map.insert(first.to_owned(), described(reference("text"), meaning));
    map.insert(IN.name.to_owned(), described(reference("text"), IN.meaning));
    map.append(&mut properties(keys, false));
    json!({ "type": "object", "properties": map, "required": [first], "additionalProperties": false })
}

fn map_document() -> Value {
    let meaning = KINDS.first().map_or("", |k| k.meaning);
    json!({
        "type": "object",
        "properties": { "map": described(reference("arrow"), meaning) },
        "required": ["map"],
        "allOf": [reference("in-map"), reference("map-lines")],
        "unevaluatedProperties": false,
    })
}

/// `extend:`: of a map, or of another kind of document, by the keys that it has.
fn extension() -> Value {
    let meaning = KINDS.iter().find(|k| k.first == "extend").map_or("", |k| k.meaning);
    let head = || {
        let mut map = Map::new();
        map.insert("extend".to_owned(), described(reference("text"), meaning));
        map.insert(IN.name.to_owned(), described(reference("text"), IN.meaning));
        map
    };
    let others: Vec<Value> = KINDS
        .iter()
        .filter(|k| !k.keys.is_empty())
        .map(|k| {
            let mut map = head();
            map.append(&mut properties(k.keys, true));
            json!({ "properties": map, "additionalProperties": false })
        })
        .collect();
    json!({
        "type": "object",
        "required": ["extend"],
        "if": { "properties": { "extend": { "type": "string", "pattern": "->" } } },
        "then": { "properties": head(), "allOf": [reference("in-map"), reference("map-lines")], "unevaluatedProperties": false },
        "else": { "anyOf": others },
    })
}

/// The lines of a map, chosen by the target in its head.
fn map_lines() -> Value {
    let mut chosen = Vec::new();
    for ty in fhir::types().filter(|t| t.kind() != FhirKind::Backbone && !t.is_abstract()) {
        let name = ty.name();
        chosen.push(json!({ "if": heads(&format!("{name}(-[A-Za-z0-9_]+|\\.[A-Za-z.]+\\[x\\])?")), "then": reference(&types::lines(name)) }));
        let inner: Vec<Value> = fhir::types()
            .filter(|t| t.kind() == FhirKind::Backbone && t.name().strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
            .map(|t| json!({ "if": heads(&t.name().replace('.', "\\.")), "then": reference(&types::lines(t.name())) }))
            .collect();
        // An element that is no type of its own (`Patient.name`): its lines are not told apart here.
        let known: Vec<Value> = inner.iter().filter_map(|i| i.get("if").cloned()).collect();
        if ty.kind() != FhirKind::Primitive {
            let open = json!({ "if": { "not": { "anyOf": known } }, "then": { "patternProperties": { "^[^$]": reference("item") } } });
            let all: Vec<Value> = inner.into_iter().chain((!known.is_empty()).then_some(open)).collect();
            let all = if all.is_empty() { vec![json!({ "patternProperties": { "^[^$]": reference("item") } })] } else { all };
            chosen.push(json!({ "if": heads(&format!("{name}\\.[A-Za-z.]*[A-Za-z]")), "then": { "allOf": all } }));
        }
    }
    // v2 as a target: fields, components, groups.
    chosen.push(json!({ "if": heads("[A-Z][A-Z0-9_]*(-[A-Za-z0-9_]+)?"), "then": { "patternProperties": { "^[A-Z]": reference("item") } } }));
    json!({ "allOf": chosen })
}

/// Holds where the head's target fits the pattern: of the two keys, one is there.
fn heads(target: &str) -> Value {
    let pattern = json!({ "pattern": format!("->\\s*{target}\\s*$") });
    json!({ "properties": { "map": pattern, "extend": pattern } })
}

/// A resource of a route, its lines chosen by the target of its maps.
fn resource() -> Value {
    let mut chosen = Vec::new();
    for ty in fhir::types().filter(|t| t.kind() == FhirKind::Resource && !t.is_abstract()) {
        let pattern = json!({ "type": "string", "pattern": format!("->\\s*{}(-[A-Za-z0-9_]+)?\\s*$", ty.name()) });
        let maps = json!({ "anyOf": [pattern, { "type": "array", "contains": pattern }] });
        chosen.push(json!({ "if": { "properties": { "$map": maps } }, "then": reference(&types::lines(ty.name())) }));
    }
    let open = json!({ "patternProperties": { "^[^$]": reference("item") } });
    json!({
        "type": "object",
        "$ref": "#/$defs/in-resource",
        "if": { "required": ["$map"] },
        "then": { "allOf": chosen },
        "else": open,
        "unevaluatedProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Sources;
    use crate::route::keys::{ROUTE, names};
    use crate::route::read::read;

    /// Does the schema have this path of keys?
    fn has(schema: &Value, pointer: &str) -> bool {
        schema.pointer(pointer).is_some()
    }

    #[test]
    fn every_declared_key_is_in_the_schema_and_known_to_the_reader() {
        let schema = schema();
        for kind in KINDS {
            assert!(has(&schema, &format!("/$defs/{0}", kind.first)), "{}", kind.first);
            for key in kind.keys {
                assert!(has(&schema, &format!("/$defs/{}/properties/{}", kind.first, key.name)), "{} {}", kind.first, key.name);
                let text = format!("{}: x\n{}: y\n", kind.first, key.name);
                let mut sources = Sources::default();
                let id = sources.add("a.yaml", text);
                assert!(read(&sources, id).1.iter().all(|d| d.code != "K113"), "the reader does not know {} of {}", key.name, kind.first);
            }
        }
        for key in OWN {
            for (name, place) in [("in-body", Place::Inside), ("in-map", Place::Map), ("in-resource", Place::Resource)] {
                let there = has(&schema, &format!("/$defs/{name}/properties/{}", key.name));
                assert_eq!(there, key.allowed(place) && (key.name != "$in" || place == Place::Map), "{} {name}", key.name);
            }
            let mut sources = Sources::default();
            let id = sources.add("a.yaml", format!("map: CX -> Identifier\n{}: y\n", key.name));
            let told: Vec<_> = read(&sources, id).1.into_iter().filter(|d| d.message.contains("is no key")).collect();
            assert_eq!(told, [], "the reader does not know {}", key.name);
        }
        for (name, keys) in [("row", ROW), ("sender", SENDER), ("rule", RULE), ("field", FIELD)] {
            assert!(keys.iter().all(|k| has(&schema, &format!("/$defs/{name}/properties/{}", k.name))), "{name}");
        }
        assert_eq!(names(ROUTE).len(), 17, "a new key of a route: does the schema know its shape?");
    }

    #[test]
    fn every_element_and_branch_of_every_type_is_in_its_definition() {
        let schema = schema();
        for ty in fhir::types().filter(|t| !t.is_abstract()) {
            let lines = schema.pointer(&format!("/$defs/{}/properties", types::lines(ty.name()))).expect("a definition of the type");
            for name in ty.names() {
                assert!(lines.get(name).is_some(), "{} {name}", ty.name());
            }
        }
    }
}
