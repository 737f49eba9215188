//! A JSON Schema (draft 2020-12) for the site file, from the same declarations as its reader.

use crate::site::keys::{ROOT, SECRET, SiteKey, Takes};
use serde_json::{Map, Value, json};

/// The schema of `kiln.yaml`.
pub fn schema() -> Value {
    let mut schema = section(ROOT, "A site: where messages come in, and where resources go.");
    if let Value::Object(map) = &mut schema {
        let mut head = Map::new();
        head.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        head.insert("title".to_owned(), json!("Kiln's site file, kiln.yaml"));
        head.append(map);
        *map = head;
    }
    schema
}

fn section(keys: &[SiteKey], description: &str) -> Value {
    let properties: Map<String, Value> = keys.iter().map(|k| (k.name.to_owned(), described(value(k), k.meaning))).collect();
    json!({ "description": description, "type": ["object", "null"], "properties": properties, "additionalProperties": false })
}

fn described(mut schema: Value, meaning: &str) -> Value {
    if let Value::Object(map) = &mut schema {
        map.insert("description".to_owned(), json!(meaning));
    }
    schema
}

/// Every value may be empty, which is as if the key were not there.
fn value(key: &SiteKey) -> Value {
    match key.takes {
        Takes::Text | Takes::Url => json!({ "type": ["string", "number", "boolean", "null"] }),
        Takes::Texts => {
            json!({ "anyOf": [{ "type": ["string", "number", "null"] }, { "type": "array", "items": { "type": ["string", "number"] } }] })
        }
        Takes::Choice(words) => json!({ "enum": choices(words) }),
        Takes::Duration(words) => {
            with_words(json!({ "type": ["string", "integer", "null"], "pattern": "^(0|[0-9]+ *(ms|s|m|min|h|d|w))$", "maximum": 0 }), words)
        }
        Takes::Size => json!({ "type": ["string", "integer", "null"], "pattern": "^(0|[0-9]+ *(B|[KMGT]iB|[kKMGT]B))$", "maximum": 0 }),
        Takes::Share => json!({ "type": ["string", "integer", "null"], "pattern": "^(0|[0-9]{1,2} *%|[0-9]+ *(B|[KMGT]iB|[kKMGT]B))$", "maximum": 0 }),
        Takes::Address => json!({ "type": ["string", "null"], "pattern": "^(off|([0-9.]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5})$" }),
        Takes::Number(least, most) => json!({ "type": ["integer", "null"], "minimum": least, "maximum": most }),
        Takes::Rate => json!({ "type": ["string", "null"], "pattern": "^[0-9]+ */ *(s|m|min|h)$" }),
        Takes::TextOr(keys) => json!({ "anyOf": [section(keys, key.meaning), { "type": "string" }] }),
        Takes::Pairs => json!({ "type": ["object", "null"], "additionalProperties": { "type": ["string", "number", "boolean"] } }),
        Takes::Secret(plain) => secret(plain),
        Takes::Secrets => json!({ "type": ["object", "null"], "additionalProperties": secret(true) }),
        Takes::Section(keys, words) => with_words(section(keys, key.meaning), words),
        Takes::Named(keys) => {
            let names = json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" });
            json!({ "type": ["object", "null"], "propertyNames": names, "additionalProperties": section(keys, key.meaning) })
        }
    }
}

fn secret(plain: bool) -> Value {
    let kept = section(SECRET, "where the secret is kept");
    if plain { json!({ "anyOf": [kept, { "type": "string" }] }) } else { kept }
}

fn with_words(schema: Value, words: &[&str]) -> Value {
    if words.is_empty() {
        return schema;
    }
    json!({ "anyOf": [schema, { "enum": choices(words) }] })
}

/// Words as YAML editors read them: `true` is a truth value there, and `1` a number.
fn choices(words: &[&str]) -> Vec<Value> {
    let typed = |word: &&str| match *word {
        "true" => Some(json!(true)),
        "false" => Some(json!(false)),
        word => word.parse::<i64>().ok().map(|n| json!(n)).or_else(|| word.parse::<f64>().ok().map(|n| json!(n))),
    };
    words.iter().map(|w| json!(w)).chain(words.iter().filter_map(typed)).chain([Value::Null]).collect()
}
