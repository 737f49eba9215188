//! `patch by`: what changes between two states of a resource, as JSON Patch (RFC 6902) and as FHIRPath Patch (<https://hl7.org/fhir/R4/fhirpatch.html>).

use crate::fhir::{Element, Kind, Type, type_named};
use serde_json::{Map, Value, json};

/// How a server takes patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PatchFormat {
    /// JSON Patch.
    #[default]
    Json,
    /// FHIRPath Patch, a Parameters resource. It has no `test`, so only If-Match guards it.
    FhirPath,
}

/// A patch as it goes over the wire.
#[derive(Clone, PartialEq)]
pub enum Patch {
    /// An array of operations.
    Json(Value),
    /// A Parameters resource.
    FhirPath(Value),
}

/// A resource that is to be patched.
#[derive(Clone, PartialEq)]
pub struct Amendment {
    /// The logical id.
    pub id: String,
    /// If-Match, where the server gives ETags.
    pub etag: Option<String>,
    /// The resource as it was read.
    pub base: Value,
    /// The resource as it shall be.
    pub whole: Value,
    /// What leads from one to the other.
    pub patch: Patch,
}

impl Patch {
    /// The media type of its content when it is sent by itself.
    pub fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json-patch+json",
            Self::FhirPath(_) => "application/fhir+json",
        }
    }

    /// The content itself.
    pub fn content(&self) -> &Value {
        match self {
            Self::Json(content) | Self::FhirPath(content) => content,
        }
    }

    /// True if it holds a reference that only a server in a transaction can resolve. It may do so in resources, not within a patch.
    pub fn has_open_reference(&self) -> bool {
        fn open(value: &Value) -> bool {
            match value {
                Value::Object(object) => {
                    object.get("reference").and_then(Value::as_str).is_some_and(|r| r.starts_with("urn:uuid:") || r.contains('?')) || object.values().any(open)
                }
                Value::Array(list) => list.iter().any(open),
                _ => false,
            }
        }
        open(self.content())
    }

    /// The patch from `base` to `whole`. `guarded`: If-Match sees to it that nobody else has changed the resource; otherwise a JSON Patch begins with
    /// a test of all that was read. `None` where the format cannot say the change.
    pub fn between(base: &Value, whole: &Value, format: PatchFormat, guarded: bool) -> Option<Self> {
        match format {
            PatchFormat::Json => Some(Self::Json(Value::Array(json_patch(base, whole, guarded)))),
            PatchFormat::FhirPath => fhirpath_patch(base, whole).map(Self::FhirPath),
        }
    }
}

/// Operations that make `whole` of `base`. What is replaced or removed is tested first, also behind If-Match, which not every server heeds in a Bundle.
fn json_patch(base: &Value, whole: &Value, guarded: bool) -> Vec<Value> {
    let mut operations = Vec::new();
    if !guarded {
        operations.push(json!({"op": "test", "path": "", "value": base}));
    }
    let (Value::Object(old), Value::Object(new)) = (base, whole) else { return operations };
    json_object("", old, new, guarded, &mut operations);
    operations
}

fn json_object(path: &str, old: &Map<String, Value>, new: &Map<String, Value>, test: bool, out: &mut Vec<Value>) {
    let below = |name: &str| format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
    for (name, a) in old {
        let path = below(name);
        match (a, new.get(name)) {
            (a, Some(b)) if a == b => {}
            (Value::Object(a), Some(Value::Object(b))) => json_object(&path, a, b, test, out),
            (Value::Array(a), Some(Value::Array(b))) => json_list(&path, a, b, test, out),
            (a, b) => {
                if test {
                    out.push(json!({"op": "test", "path": path, "value": a}));
                }
                out.push(match b {
                    Some(b) => json!({"op": "replace", "path": path, "value": b}),
                    None => json!({"op": "remove", "path": path}),
                });
            }
        }
    }
    for (name, b) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        out.push(json!({"op": "add", "path": below(name), "value": b}));
    }
}

/// A list is tested as a whole: the place of an entry means something only in the list that was read.
fn json_list(path: &str, old: &[Value], new: &[Value], test: bool, out: &mut Vec<Value>) {
    if test {
        out.push(json!({"op": "test", "path": path, "value": old}));
    }
    let kept = old.iter().zip(new).filter(|(a, b)| a == b).count();
    if new.len() < old.len() || kept * 2 < old.len() {
        out.push(json!({"op": "replace", "path": path, "value": new}));
        return;
    }
    for (n, (a, b)) in old.iter().zip(new).enumerate().filter(|(_, (a, b))| a != b) {
        let path = format!("{path}/{n}");
        match (a, b) {
            (Value::Object(a), Value::Object(b)) => json_object(&path, a, b, false, out),
            (_, b) => out.push(json!({"op": "replace", "path": path, "value": b})),
        }
    }
    out.extend(new.iter().skip(old.len()).map(|b| json!({"op": "add", "path": format!("{path}/-"), "value": b})));
}

/// A Parameters resource with an operation for each change; `None` for what is no R4 resource or has elements that R4 does not know.
fn fhirpath_patch(base: &Value, whole: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (base, whole) else { return None };
    let name = base.get("resourceType")?.as_str()?;
    let mut operations = Vec::new();
    fhirpath_object(name, type_named(name)?, old, new, &mut operations)?;
    Some(json!({"resourceType": "Parameters", "parameter": operations}))
}

/// One value of an element: its type, its JSON value, and the `_` companion of a primitive.
type Piece<'a> = (Type, Option<&'a Value>, Option<&'a Value>);

fn fhirpath_object(path: &str, t: Type, old: &Map<String, Value>, new: &Map<String, Value>, out: &mut Vec<Value>) -> Option<()> {
    let mut elements: Vec<Element> = Vec::new();
    for name in old.keys().chain(new.keys()).filter(|name| *name != "resourceType" && old.get(*name) != new.get(*name)) {
        let (element, _) = t.property(name.strip_prefix('_').unwrap_or(name))?;
        if !elements.contains(&element) {
            elements.push(element);
        }
    }
    for element in elements {
        let name = element.name().trim_end_matches("[x]");
        let here = format!("{path}.{name}");
        let (a, b) = (pieces(element, old), pieces(element, new));
        let place = |n: usize| if element.is_list() { format!("{here}[{n}]") } else { here.clone() };
        for (n, (before, after)) in a.iter().zip(&b).enumerate().filter(|(_, (before, after))| before != after) {
            match (before, after) {
                ((_, Some(Value::Object(before)), _), (kind, Some(Value::Object(after)), _)) if kind.kind() == Kind::Backbone => {
                    fhirpath_object(&place(n), *kind, before, after, out)?;
                }
                (_, piece) => out.push(operation("replace", &place(n), None, Some(part("value", piece)?))),
            }
        }
        // From the end, so that the places before it stay what they are.
        for n in (b.len()..a.len()).rev() {
            out.push(operation("delete", &place(n), None, None));
        }
        for piece in b.iter().skip(a.len()) {
            out.push(operation("add", path, Some(name), Some(part("value", piece)?)));
        }
    }
    Some(())
}

fn operation(kind: &str, path: &str, name: Option<&str>, value: Option<Value>) -> Value {
    let mut parts = vec![json!({"name": "type", "valueCode": kind}), json!({"name": "path", "valueString": path})];
    parts.extend(name.map(|name| json!({"name": "name", "valueString": name})));
    parts.extend(value);
    json!({"name": "operation", "part": parts})
}

/// The values of an element, whichever branch of a choice they stand in.
fn pieces<'a>(element: Element, object: &'a Map<String, Value>) -> Vec<Piece<'a>> {
    let mut all = Vec::new();
    for t in element.types() {
        let value = object.get(element.json_name(t));
        let companion = Some(element.companion(t)).filter(|name| !name.is_empty()).and_then(|name| object.get(name));
        let present = |v: Option<&'a Value>| v.filter(|v| !v.is_null());
        match (value, companion) {
            (None, None) => {}
            (Some(Value::Array(values)), _) | (_, Some(Value::Array(values))) => {
                let list = |v: Option<&'a Value>| v.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                let (own, extra) = (list(value), list(companion));
                all.extend((0..values.len().max(extra.len())).map(|n| (t, present(own.get(n)), present(extra.get(n)))));
            }
            _ => all.push((t, present(value), present(companion))),
        }
    }
    all
}

/// The types that `Parameters.parameter.value[x]` takes (<https://hl7.org/fhir/R4/datatypes.html#open>); others are said in parts.
fn is_open(t: Type) -> bool {
    type_named("Parameters")
        .and_then(|p| p.element("parameter"))
        .and_then(|e| e.types().next())
        .and_then(|p| p.element("value[x]"))
        .is_some_and(|v| v.types().any(|o| o == t))
}

fn part(name: &str, (t, value, companion): &Piece<'_>) -> Option<Value> {
    let mut object = Map::new();
    object.insert("name".to_owned(), Value::String(name.to_owned()));
    if t.kind() == Kind::Resource {
        object.insert("resource".to_owned(), (*value)?.clone());
    } else if is_open(*t) {
        let mut letters = t.name().chars();
        let suffix = letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str());
        if let Some(value) = value {
            object.insert(format!("value{suffix}"), (*value).clone());
        }
        if let Some(companion) = companion {
            object.insert(format!("_value{suffix}"), (*companion).clone());
        }
    } else if let Some(Value::Object(content)) = value {
        let mut parts = Vec::new();
        let mut done: Vec<Element> = Vec::new();
        for key in content.keys() {
            let (element, _) = t.property(key.strip_prefix('_').unwrap_or(key))?;
            if done.contains(&element) {
                continue;
            }
            done.push(element);
            for piece in pieces(element, content) {
                parts.push(part(element.name().trim_end_matches("[x]"), &piece)?);
            }
        }
        object.insert("part".to_owned(), Value::Array(parts));
    } else {
        return None;
    }
    Some(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Value {
        serde_json::from_str(text).expect("the test's JSON")
    }

    fn json_of(base: &str, whole: &str, guarded: bool) -> Value {
        Patch::between(&of(base), &of(whole), PatchFormat::Json, guarded).expect("JSON says everything").content().clone()
    }

    #[test]
    fn what_changes_is_tested_and_what_stays_is_not_sent() {
        let base = r#"{"resourceType":"Patient","id":"1","gender":"male","birthDate":"1970","active":true,"name":[{"family":"A"},{"family":"B"}]}"#;
        let whole = r#"{"resourceType":"Patient","id":"1","gender":"female","active":true,"name":[{"family":"A"},{"family":"C"},{"family":"D"}],"deceasedBoolean":false}"#;
        assert_eq!(
            json_of(base, whole, true),
            json!([
                {"op": "test", "path": "/gender", "value": "male"},
                {"op": "replace", "path": "/gender", "value": "female"},
                {"op": "test", "path": "/birthDate", "value": "1970"},
                {"op": "remove", "path": "/birthDate"},
                {"op": "test", "path": "/name", "value": [{"family": "A"}, {"family": "B"}]},
                {"op": "replace", "path": "/name/1/family", "value": "C"},
                {"op": "add", "path": "/name/-", "value": {"family": "D"}},
                {"op": "add", "path": "/deceasedBoolean", "value": false},
            ])
        );
        let unguarded = json_of(base, whole, false);
        assert_eq!(unguarded[0], json!({"op": "test", "path": "", "value": of(base)}));
        assert_eq!(unguarded.as_array().map(|o| o.iter().filter(|o| o["op"] == "test").count()), Some(1));
    }

    #[test]
    fn a_fhirpath_patch_names_elements_and_types() {
        let base = r#"{"resourceType":"Patient","gender":"male","deceasedBoolean":false,"name":[{"family":"A"},{"family":"B"}],"contact":[{"gender":"male"}],"birthDate":"1970"}"#;
        let whole = r#"{"resourceType":"Patient","gender":"female","deceasedDateTime":"2020","name":[{"family":"C"}],"contact":[{"gender":"male","name":{"text":"n"}}],
            "extension":[{"url":"urn:x","valueString":"y"}],"_birthDate":{"id":"b"},"birthDate":"1970"}"#;
        let patch = Patch::between(&of(base), &of(whole), PatchFormat::FhirPath, true).expect("R4 knows all of this");
        let op = |kind: &str, path: &str, rest: Value| {
            let mut parts = vec![json!({"name": "type", "valueCode": kind}), json!({"name": "path", "valueString": path})];
            parts.extend(rest.as_array().expect("parts").iter().cloned());
            json!({"name": "operation", "part": parts})
        };
        let expected = json!([
            op("replace", "Patient.gender", json!([{"name": "value", "valueCode": "female"}])),
            op("replace", "Patient.deceased", json!([{"name": "value", "valueDateTime": "2020"}])),
            op("replace", "Patient.name[0]", json!([{"name": "value", "valueHumanName": {"family": "C"}}])),
            op("delete", "Patient.name[1]", json!([])),
            op("add", "Patient.contact[0]", json!([{"name": "name", "valueString": "name"}, {"name": "value", "valueHumanName": {"text": "n"}}])),
            op(
                "add",
                "Patient",
                json!([{"name": "name", "valueString": "extension"}, {"name": "value", "part": [{"name": "url", "valueUri": "urn:x"}, {"name": "value", "valueString": "y"}]}])
            ),
            op("replace", "Patient.birthDate", json!([{"name": "value", "valueDate": "1970", "_valueDate": {"id": "b"}}])),
        ]);
        assert_eq!(patch.content()["parameter"], expected, "{}", patch.content());
        assert!(Patch::between(&of(r#"{"resourceType":"Patient","own":1}"#), &of(r#"{"resourceType":"Patient"}"#), PatchFormat::FhirPath, true).is_none());
    }

    #[test]
    fn references_that_only_a_transaction_resolves_are_seen() {
        let patient = |to: &str| format!(r#"{{"resourceType":"Patient","managingOrganization":{{"reference":"{to}"}}}}"#);
        for (to, open) in [("urn:uuid:1", true), ("Organization?identifier=a|b", true), ("Organization/1", false)] {
            let patch = Patch::between(&of(r#"{"resourceType":"Patient"}"#), &of(&patient(to)), PatchFormat::Json, true).expect("a patch");
            assert_eq!(patch.has_open_reference(), open, "{to}");
        }
    }

    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::Bool), "[a-c]{0,2}".prop_map(Value::String), (0..3u8).prop_map(|n| json!(n))];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[a-c/~]{1,2}", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-c/~]{1,2}", anything(), 0..5).prop_map(|m| Value::Object(m.into_iter().collect()))
    }

    proptest! {
        /// An implementation of RFC 6902 by others makes of the old state what we wanted.
        #[test]
        fn applied_it_makes_the_new_state(old in object(), new in object(), guarded in any::<bool>()) {
            let operations: json_patch::Patch = serde_json::from_value(Value::Array(json_patch(&old, &new, guarded))).expect("a JSON Patch");
            let mut made = old.clone();
            json_patch::patch(&mut made, &operations).expect("it fits the state that it was made from");
            prop_assert_eq!(&made, &new);
            if old != new {
                let mut other = json!({"somebody": "else"});
                prop_assert!(guarded || json_patch::patch(&mut other, &operations).is_err());
            }
        }
    }
}
