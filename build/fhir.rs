//! Packs `definitions/fhir-r4` into `$OUT_DIR/fhir.bin` (little-endian 32-bit words) and `$OUT_DIR/fhir.txt` (the strings), read in place by `src/fhir/table.rs`.
//!
//! The layout is written once here and read once there; `MAGIC` must change in both when it changes.

use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;

/// Says which layout the words have.
const MAGIC: u32 = 0x4B46_0001;
/// "No such thing" in a word that otherwise holds an index.
const NONE: u32 = u32::MAX;

const SETS: &str = "http://hl7.org/fhir/ValueSet/";
const EXTENSIONS: &str = "http://hl7.org/fhir/StructureDefinition/";

/// Everything on its way into the table.
#[derive(Default)]
struct Packer {
    text: String,
    string_ends: Vec<u32>,
    string_ids: HashMap<String, u32>,
    /// Full type name (`Patient`, `Patient.contact`) to index in `types`.
    type_ids: HashMap<String, u32>,
    set_ids: HashMap<String, u32>,
    types: Vec<u32>,
    elements: Vec<u32>,
    lists: Vec<u32>,
    sets: Vec<u32>,
    extensions: Vec<u32>,
}

impl Packer {
    fn string(&mut self, text: &str) -> u32 {
        if let Some(id) = self.string_ids.get(text) {
            return *id;
        }
        let id = u32::try_from(self.string_ends.len()).expect("fewer than 2^32 strings");
        self.text.push_str(text);
        self.string_ends.push(u32::try_from(self.text.len()).expect("less than 4 GiB of text"));
        self.string_ids.insert(text.to_owned(), id);
        id
    }

    fn list(&mut self, items: Vec<u32>) -> [u32; 2] {
        let start = u32::try_from(self.lists.len()).expect("fewer than 2^32 list items");
        let length = u32::try_from(items.len()).expect("fewer than 2^32 list items");
        self.lists.extend(items);
        [start, length]
    }

    /// One element record of 11 words. `owner` is the path that names a nested type (`Patient.contact`), where the element has one.
    fn element(&mut self, name: &str, owner: &str, def: &Map<String, Value>, has_children: bool, position: usize) {
        let choice = name.ends_with("[x]");
        let stem = name.trim_end_matches("[x]");
        let mut types = Vec::new();
        let mut names = Vec::new();
        if let Some(target) = def.get("contentRef").and_then(Value::as_str) {
            types.push(*self.type_ids.get(target).unwrap_or_else(|| panic!("content reference to {target}, which has no type")));
            names.push((stem.to_owned(), format!("_{stem}")));
        }
        for t in def.get("type").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            let full = if has_children { owner } else { t };
            types.push(*self.type_ids.get(full).unwrap_or_else(|| panic!("{owner} has the unknown type {full}")));
            let mut json = stem.to_owned();
            if choice {
                let mut letters = t.chars();
                json.extend(letters.next().into_iter().flat_map(char::to_uppercase));
                json.push_str(letters.as_str());
            }
            names.push((json.clone(), format!("_{json}")));
        }
        let names: Vec<u32> = names.iter().flat_map(|(json, companion)| [self.string(json), self.string(companion)]).collect();
        // The source also names two of Medplum's own types (AuditEvent.source.observer), which are not R4.
        let targets: Vec<String> = strings(def.get("targets")).into_iter().filter(|t| self.type_ids.contains_key(t)).collect();
        let targets: Vec<u32> = targets.iter().map(|t| self.string(t)).collect();
        let (strength, set) = match def.get("binding").and_then(Value::as_array) {
            Some(pair) => (strength(text(pair.first())), *self.set_ids.get(text(pair.get(1))).expect("every bound value set has an entry")),
            None => (NONE, NONE),
        };
        let [types_at, types_n] = self.list(types);
        let [names_at, _] = self.list(names);
        let [targets_at, targets_n] = self.list(targets);
        let flags = u32::from(choice) | u32::from(def.get("modifier").is_some_and(|m| m == &Value::Bool(true))) << 1;
        let name = self.string(name);
        let short = self.string(def.get("short").and_then(Value::as_str).unwrap_or(""));
        let position = u32::try_from(position).expect("a type has few elements");
        // 16 bits each are plenty for counts; indices keep a word of their own.
        self.elements.extend([
            name,
            short,
            flags | position << 16,
            number(def, "min", 0),
            number(def, "max", 1),
            types_at,
            types_n,
            names_at,
            targets_at << 8 | targets_n,
            strength,
            set,
        ]);
        assert!(targets_n < 256 && targets_at < 1 << 24, "targets fit their word");
    }
}

/// Writes the packed table.
pub(crate) fn pack(out: &Path) {
    let definitions = read("definitions/fhir-r4/definitions.json");
    let valuesets = read("definitions/fhir-r4/valuesets.json");
    let us_core = read("definitions/fhir-r4/us-core.json");
    let mut p = Packer::default();

    let mut sets = object(valuesets.get("valueSets")).clone();
    sets.extend(object(us_core.get("valueSets")).clone());
    let mut set_names: Vec<&String> = sets.keys().collect();
    set_names.sort();
    for (n, name) in (0u32..).zip(&set_names) {
        p.set_ids.insert((*name).clone(), n);
    }
    for name in &set_names {
        value_set(&mut p, name, object(sets.get(*name)));
    }

    let mut all: Vec<(&String, &Map<String, Value>)> =
        ["types", "resources"].iter().flat_map(|k| object(definitions.get(*k)).iter().map(|(n, t)| (n, object(Some(t))))).collect();
    all.sort_by_key(|(name, _)| *name);
    let by_name: HashMap<&str, &Map<String, Value>> = all.iter().map(|(n, d)| (n.as_str(), *d)).collect();
    // The names of all types, nested ones included, in the order of the table: sorted, so that a name is found by bisection.
    let mut nested: Vec<(String, &str, Option<&str>)> = Vec::new();
    for (name, def) in &all {
        nested.push(((*name).clone(), name, None));
        let elements = object(def.get("elements"));
        for path in elements.keys() {
            if has_children(elements, path) {
                nested.push((format!("{name}.{path}"), name, Some(path)));
            }
        }
    }
    nested.sort_by(|a, b| a.0.cmp(&b.0));
    for (n, (full, _, _)) in (0u32..).zip(&nested) {
        p.type_ids.insert(full.clone(), n);
    }
    for (full, top, path) in &nested {
        one_type(&mut p, &by_name, full, top, *path);
    }

    let mut extensions = object(definitions.get("extensions")).clone();
    extensions.extend(object(us_core.get("extensions")).clone());
    let mut names: Vec<&String> = extensions.keys().collect();
    names.sort();
    for name in names {
        extension(&mut p, name, object(extensions.get(name)));
    }

    let sections = [&p.string_ends, &p.types, &p.elements, &p.lists, &p.sets, &p.extensions];
    let mut words = vec![MAGIC];
    let mut at = 1 + 2 * u32::try_from(sections.len()).expect("six sections");
    for section in sections {
        let length = u32::try_from(section.len()).expect("a section fits");
        words.extend([at, length]);
        at += length;
    }
    for section in sections {
        words.extend(section);
    }
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    std::fs::write(out.join("fhir.bin"), bytes).expect("OUT_DIR is writable");
    std::fs::write(out.join("fhir.txt"), &p.text).expect("OUT_DIR is writable");
}

/// Seven words: name, url, title, complete, codes, number of codes, systems at and number.
fn value_set(p: &mut Packer, name: &str, def: &Map<String, Value>) {
    let url = if name.contains("://") || name.starts_with("urn:") { name.to_owned() } else { format!("{SETS}{name}") };
    let mut codes: Vec<(String, [u32; 3])> = Vec::new();
    let mut systems: Vec<u32> = Vec::new();
    for (system, entries) in def.get("codes").and_then(Value::as_object).into_iter().flatten() {
        let system = p.string(system);
        systems.push(system);
        for (code, display) in object(Some(entries)) {
            codes.push((code.clone(), [system, p.string(code), p.string(display.as_str().unwrap_or(""))]));
        }
    }
    for system in strings(def.get("systems")) {
        let system = p.string(&system);
        if !systems.contains(&system) {
            systems.push(system);
        }
    }
    // The codes in their order, then their places in alphabetical order, for bisection.
    let mut sorted: Vec<u32> = (0u32..).zip(&codes).map(|(n, _)| n).collect();
    sorted.sort_by(|a, b| codes[*a as usize].0.cmp(&codes[*b as usize].0).then(a.cmp(b)));
    let count = u32::try_from(codes.len()).expect("few codes");
    let words: Vec<u32> = codes.iter().flat_map(|c| c.1).chain(sorted).collect();
    let [codes_at, _] = p.list(words);
    let [systems_at, systems_n] = p.list(systems);
    let complete = u32::from(def.get("complete") == Some(&Value::Bool(true)));
    let record = [p.string(name), p.string(&url), complete, codes_at, count, systems_at, systems_n];
    p.sets.extend(record);
}

/// Six words: name, short, kind and abstract, base, first element, number of elements. Inherited elements are copied in, first.
fn one_type(p: &mut Packer, by_name: &HashMap<&str, &Map<String, Value>>, full: &str, top: &str, path: Option<&str>) {
    let def = by_name[top];
    let elements = object(def.get("elements"));
    let (kind, base, short) = match path {
        Some(path) => {
            let element = object(elements.get(path));
            let base = strings(element.get("type")).into_iter().next().unwrap_or_else(|| "BackboneElement".to_owned());
            (2, Some(base), text(element.get("short")))
        }
        None => {
            let kind = match text(def.get("kind")) {
                "primitive-type" => 0,
                "resource" => 3,
                _ => 1,
            };
            (kind, def.get("base").and_then(Value::as_str).map(str::to_owned), text(def.get("short")))
        }
    };
    let mut chain = Vec::new();
    let mut next = base.clone();
    while let Some(name) = next {
        let def = by_name[name.as_str()];
        next = def.get("base").and_then(Value::as_str).map(str::to_owned);
        chain.push(name);
    }
    let mut members: Vec<(String, String, &Map<String, Value>, bool)> = Vec::new();
    // A primitive's `value` is the JSON scalar itself, never a member of the companion object.
    for name in chain.iter().rev().filter(|_| kind != 0).chain(chain.last().filter(|_| kind == 0)) {
        let inherited = object(by_name[name.as_str()].get("elements"));
        for (element, def) in inherited.iter().filter(|(e, _)| !e.contains('.')) {
            members.push((element.clone(), format!("{name}.{element}"), object(Some(def)), has_children(inherited, element)));
        }
    }
    let prefix = path.map_or(String::new(), |path| format!("{path}."));
    for (key, def) in elements.iter().filter(|_| kind != 0) {
        let Some(own) = key.strip_prefix(&prefix).filter(|own| !own.contains('.')) else { continue };
        let member = (own.to_owned(), format!("{top}.{key}"), object(Some(def)), has_children(elements, key));
        // MoneyQuantity and SimpleQuantity are profiles: they define anew what Quantity has.
        match members.iter_mut().find(|m| m.0 == own) {
            Some(inherited) => *inherited = member,
            None => members.push(member),
        }
    }
    let first = p.elements.len() / 11;
    let position = members.len();
    for (n, (name, owner, def, has_children)) in members.iter().enumerate() {
        p.element(name, owner, def, *has_children, n);
    }
    let base = base.map_or(NONE, |b| p.type_ids[&b]);
    let is_abstract = u32::from(path.is_none() && def.get("abstract") == Some(&Value::Bool(true)));
    let record = [
        p.string(full),
        p.string(short),
        kind | is_abstract << 8,
        base,
        u32::try_from(first).expect("few elements"),
        u32::try_from(position).expect("few elements"),
    ];
    p.types.extend(record);
}

/// Nine words: name, url, title, contexts at and number, value element, parts at and number, max. A part is four words: name, value element, min, max.
fn extension(p: &mut Packer, name: &str, def: &Map<String, Value>) {
    let url = match def.get("url").and_then(Value::as_str) {
        Some(url) => url.to_owned(),
        None if name.contains("://") || name.starts_with("urn:") => name.to_owned(),
        None => format!("{EXTENSIONS}{name}"),
    };
    let value = def.get("value").map_or(NONE, |value| value_element(p, object(Some(value))));
    let mut parts = Vec::new();
    for (part, def) in def.get("parts").and_then(Value::as_object).into_iter().flatten() {
        let def = object(Some(def));
        let value = value_element(p, def);
        parts.extend([p.string(part), value, number(def, "min", 0), number(def, "max", 1)]);
    }
    let contexts: Vec<u32> = strings(def.get("context")).iter().map(|c| p.string(c)).collect();
    let [contexts_at, contexts_n] = p.list(contexts);
    let [parts_at, parts_words] = p.list(parts);
    let record =
        [p.string(name), p.string(&url), p.string(text(def.get("title"))), contexts_at, contexts_n, value, parts_at, parts_words / 4, number(def, "max", 1)];
    p.extensions.extend(record);
}

/// An extension's value is an element `value[x]` like any other.
fn value_element(p: &mut Packer, def: &Map<String, Value>) -> u32 {
    let index = u32::try_from(p.elements.len() / 11).expect("few elements");
    let mut def = def.clone();
    def.remove("max");
    p.element("value[x]", "Extension.value[x]", &def, false, 0);
    index
}

fn has_children(elements: &Map<String, Value>, path: &str) -> bool {
    let prefix = format!("{path}.");
    elements.keys().any(|k| k.starts_with(&prefix))
}

fn number(def: &Map<String, Value>, key: &str, default: i64) -> u32 {
    let n = def.get(key).and_then(Value::as_i64).unwrap_or(default);
    if n < 0 { NONE } else { u32::try_from(n).expect("a small number") }
}

fn strength(word: &str) -> u32 {
    ["required", "extensible", "preferred", "example"].iter().position(|s| *s == word).and_then(|n| u32::try_from(n).ok()).expect("one of the four strengths")
}

fn read(path: &str) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn object(value: Option<&Value>) -> &Map<String, Value> {
    value.and_then(Value::as_object).expect("an object, as definitions/fhir-r4/README.md describes")
}

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or("")
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
