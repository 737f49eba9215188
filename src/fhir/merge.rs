//! `merge by` and `patch by`: the stored resource with what the route maps, without what the sender deleted, and otherwise as it is.

use crate::fhir::{Kind, ListMerge, Node, Save, Type, type_named};
use serde_json::{Map, Value};

/// What the stored resource becomes. If nothing changes, the result equals `current` and needs no write.
///
/// - An element that the route maps takes the old one's place; with it go the other branches of its choice (`deceasedBoolean` when
///   `deceasedDateTime` comes) and, when a primitive's value changes, the extensions of the old value (`_birthDate`).
/// - Inside nested elements (`hospitalization`), `Period` and `Meta` the parts that the route does not map stay: an empty v2 field leaves them unchanged.
///   Every other data type is one value and is replaced as a whole, so that a new code never keeps the old one's text.
/// - Lists meet as [`ListMerge`] says, by default the new one replaces the old one.
/// - `deletes` are removed before anything is added.
pub fn merge(current: &Value, save: &Save, link: &dyn Fn(usize) -> String) -> Value {
    let Value::Object(stored) = current else { return save.creation().to_value(link) };
    let mut merged = stored.clone();
    let t = type_named(save.resource_type);
    for path in &save.deletes {
        delete(&mut merged, path, t);
    }
    if let Value::Object(new) = save.body.to_value(link) {
        merge_object(&mut merged, new, t, &save.merge);
    }
    Value::Object(merged)
}

impl Save {
    /// The body of a resource that does not exist yet: what the route maps, and the `initial` elements that it leaves open.
    pub fn creation(&self) -> Node {
        let (Node::Object(body), Some(Node::Object(initial))) = (&self.body, &self.initial) else { return self.body.clone() };
        let t = type_named(self.resource_type);
        let element = |name: &str| t.and_then(|t| t.property(name.strip_prefix('_').unwrap_or(name))).map(|(e, _)| e);
        // Another branch of a choice counts as filled, too.
        let filled = |name: &str| {
            body.iter()
                .any(|(own, _)| *own == name || (element(own).is_some() && element(own) == element(name) && own.starts_with('_') == name.starts_with('_')))
        };
        let mut all = body.clone();
        all.extend(initial.iter().filter(|(name, _)| !filled(name)).cloned());
        all.sort_by_key(|(name, _)| if *name == "resourceType" { 0 } else { element(name).map_or(u16::MAX, |e| e.position() + 1) });
        Node::Object(all)
    }
}

/// True for types whose parts come and go on their own.
fn has_parts(t: Type) -> bool {
    t.kind() == Kind::Backbone || matches!(t.name(), "Period" | "Meta")
}

fn merge_object(into: &mut Map<String, Value>, new: Map<String, Value>, t: Option<Type>, lists: &[(&'static str, ListMerge)]) {
    let companions: Vec<String> = new.keys().filter_map(|name| name.strip_prefix('_')).map(str::to_owned).collect();
    for (name, value) in new {
        if name == "resourceType" || (name == "id" && lists_are_top(t)) {
            continue;
        }
        let stem = name.strip_prefix('_').unwrap_or(&name).to_owned();
        let property = t.and_then(|t| t.property(&stem));
        if let Some((element, _)) = property.filter(|(e, _)| e.is_choice()) {
            for branch in element.types().filter(|b| element.json_name(*b) != stem) {
                into.shift_remove(element.json_name(branch));
                into.shift_remove(element.companion(branch));
            }
        }
        if name == stem && !companions.contains(&stem) && into.get(&name) != Some(&value) {
            into.shift_remove(&format!("_{stem}"));
        }
        let inner = property.map(|(_, t)| t);
        match (into.get_mut(&name), value) {
            (Some(Value::Object(old)), Value::Object(new)) if inner.is_some_and(has_parts) => merge_object(old, new, inner, &[]),
            (Some(Value::Array(old)), Value::Array(new)) => {
                let how = lists.iter().find(|(element, _)| *element == name).map_or(ListMerge::Replace, |(_, how)| *how);
                merge_list(old, new, inner, how);
            }
            (_, value) => {
                into.insert(name, value);
            }
        }
    }
}

/// A resource's own `id` is the server's; `id` inside an element is content.
fn lists_are_top(t: Option<Type>) -> bool {
    t.is_none_or(|t| t.kind() == Kind::Resource)
}

fn merge_list(old: &mut Vec<Value>, new: Vec<Value>, t: Option<Type>, how: ListMerge) {
    let same = |a: &Value, b: &Value| match how {
        // An entry without the element is the same only as one that equals it.
        ListMerge::By(element) if a.get(element).is_some() => a.get(element) == b.get(element),
        _ if t.is_some_and(|t| t.name() == "Identifier") && a.get("system").is_some() && a.get("value").is_some() => {
            a.get("system") == b.get("system") && a.get("value") == b.get("value")
        }
        _ => a == b,
    };
    if how == ListMerge::Replace {
        *old = new;
        return;
    }
    // By an element, each stored entry takes one new one: two citizenships are two extensions with one URL.
    let once = matches!(how, ListMerge::By(_));
    let mut taken = vec![false; old.len()];
    for entry in new {
        match old.iter_mut().zip(&mut taken).find(|(stored, taken)| !(once && **taken) && same(&entry, stored)) {
            Some((stored, taken)) => {
                *taken = true;
                match (how, stored, entry) {
                    (ListMerge::By(_), Value::Object(stored), Value::Object(entry)) => merge_object(stored, entry, t, &[]),
                    (_, stored, entry) => *stored = entry,
                }
            }
            None => {
                old.push(entry);
                taken.push(true);
            }
        }
    }
}

/// Removes an element by its path; in lists, from each entry. What becomes empty goes, too. Behind `extension` stands a URL: those go.
fn delete(from: &mut Map<String, Value>, path: &[&'static str], t: Option<Type>) {
    let Some((name, rest)) = path.split_first() else { return };
    let element = t.and_then(|t| t.element(name).or_else(|| t.property(name).map(|(e, _)| e)));
    let mut names: Vec<String> = vec![(*name).to_owned(), format!("_{name}")];
    if let Some(element) = element.filter(|e| e.is_choice() && e.name() == *name) {
        names = element.types().flat_map(|b| [element.json_name(b).to_owned(), element.companion(b).to_owned()]).collect();
    }
    if rest.is_empty() {
        for name in names {
            from.shift_remove(&name);
        }
        return;
    }
    let inner = t.and_then(|t| t.property(name)).map(|(_, t)| t);
    let is_bare = |value: &Value| match value {
        Value::Object(o) => o.is_empty(),
        Value::Array(a) => a.is_empty(),
        _ => false,
    };
    match from.get_mut(*name) {
        Some(Value::Array(entries)) if matches!(*name, "extension" | "modifierExtension") => {
            entries.retain(|entry| entry.get("url").and_then(Value::as_str) != rest.first().copied());
        }
        Some(Value::Object(object)) => delete(object, rest, inner),
        Some(Value::Array(entries)) => {
            for entry in entries.iter_mut() {
                if let Value::Object(object) = entry {
                    delete(object, rest, inner);
                }
            }
            entries.retain(|entry| !is_bare(entry));
        }
        _ => {}
    }
    if from.get(*name).is_some_and(is_bare) {
        from.shift_remove(*name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::SaveMode;
    use proptest::prelude::*;

    /// Makes a body from JSON text; names leak, which a test may.
    fn node(value: &Value) -> Node {
        match value {
            Value::Object(o) => Node::Object(o.iter().map(|(k, v)| (&*k.clone().leak(), node(v))).collect()),
            Value::Array(a) => Node::List(a.iter().map(node).collect()),
            Value::String(s) => Node::Text(s.clone()),
            Value::Number(n) => Node::Number(n.to_string()),
            Value::Bool(b) => Node::Bool(*b),
            Value::Null => Node::List(Vec::new()),
        }
    }

    fn json(text: &str) -> Value {
        serde_json::from_str(text).expect("the test's JSON")
    }

    fn save(resource_type: &'static str, body: &str) -> Save {
        let mode = SaveMode::Merge;
        Save {
            name: resource_type.to_lowercase(),
            resource_type,
            mode,
            identity: Vec::new(),
            body: node(&json(body)),
            deletes: Vec::new(),
            merge: Vec::new(),
            initial: None,
        }
    }

    fn merged(current: &str, save: &Save) -> String {
        merge(&json(current), save, &|n| format!("Patient/{n}")).to_string()
    }

    #[test]
    fn only_what_the_route_maps_changes() {
        let current = r#"{"resourceType":"Patient","id":"1","meta":{"versionId":"3"},"active":true,"gender":"male","photo":[{"url":"x"}]}"#;
        let mut one = save("Patient", r#"{"resourceType":"Patient","gender":"female"}"#);
        assert_eq!(merged(current, &one), current.replace("\"male\"", "\"female\""));
        one.body = node(&json(r#"{"resourceType":"Patient","gender":"male"}"#));
        assert_eq!(merge(&json(current), &one, &|_| String::new()), json(current), "nothing changed, nothing to write");
    }

    #[test]
    fn deleted_elements_go_with_their_companions() {
        let current = r#"{"resourceType":"Patient","birthDate":"1970","_birthDate":{"id":"b"},"deceasedBoolean":false,"maritalStatus":{"text":"m"},"contact":[{"gender":"male"},{"name":{"text":"n"},"gender":"male"}],"active":true}"#;
        let mut one = save("Patient", r#"{"resourceType":"Patient"}"#);
        one.deletes = vec![vec!["birthDate"], vec!["deceased[x]"], vec!["maritalStatus"], vec!["contact", "gender"], vec!["photo", "url"]];
        assert_eq!(merged(current, &one), r#"{"resourceType":"Patient","contact":[{"name":{"text":"n"}}],"active":true}"#);
    }

    #[test]
    fn a_choice_has_one_branch() {
        let one = save("Patient", r#"{"resourceType":"Patient","deceasedDateTime":"2020"}"#);
        assert_eq!(
            merged(r#"{"resourceType":"Patient","deceasedBoolean":true,"_deceasedBoolean":{"id":"d"}}"#, &one),
            r#"{"resourceType":"Patient","deceasedDateTime":"2020"}"#
        );
    }

    #[test]
    fn a_new_value_does_not_keep_the_old_ones_extensions() {
        let current = r#"{"resourceType":"Patient","birthDate":"1970-01-02","_birthDate":{"extension":[{"url":"u","valueDateTime":"1970-01-02T10:00:00Z"}]}}"#;
        assert_eq!(merged(current, &save("Patient", r#"{"birthDate":"1970-01-03"}"#)), r#"{"resourceType":"Patient","birthDate":"1970-01-03"}"#);
        assert_eq!(merged(current, &save("Patient", r#"{"birthDate":"1970-01-02"}"#)), current);
    }

    #[test]
    fn lists_meet_as_told() {
        let current = r#"{"resourceType":"Patient","identifier":[{"system":"a","value":"1","use":"old"},{"system":"b","value":"2"}],"name":[{"family":"A"}]}"#;
        let body = r#"{"identifier":[{"system":"c","value":"3"},{"system":"a","value":"1"}],"name":[{"family":"B"}]}"#;
        let mut one = save("Patient", body);
        assert_eq!(merged(current, &one), format!(r#"{{"resourceType":"Patient",{}"#, &body[1..]));
        one.merge = vec![("identifier", ListMerge::Union), ("name", ListMerge::Union)];
        assert_eq!(
            merged(current, &one),
            r#"{"resourceType":"Patient","identifier":[{"system":"a","value":"1"},{"system":"b","value":"2"},{"system":"c","value":"3"}],"name":[{"family":"A"},{"family":"B"}]}"#
        );
        let mut stay =
            save("Encounter", r#"{"location":[{"location":{"reference":"Location/1"},"status":"completed"},{"location":{"reference":"Location/2"}}]}"#);
        stay.merge = vec![("location", ListMerge::By("location"))];
        assert_eq!(
            merged(r#"{"resourceType":"Encounter","location":[{"location":{"reference":"Location/1"},"period":{"start":"2020"},"status":"active"}]}"#, &stay),
            r#"{"resourceType":"Encounter","location":[{"location":{"reference":"Location/1"},"period":{"start":"2020"},"status":"completed"},{"location":{"reference":"Location/2"}}]}"#
        );
    }

    #[test]
    fn nested_elements_keep_what_is_not_mapped_and_data_types_do_not() {
        let current =
            r#"{"resourceType":"Encounter","period":{"start":"2020-01-01"},"hospitalization":{"admitSource":{"coding":[{"code":"emd"}],"text":"E"}}}"#;
        let one = save(
            "Encounter",
            r#"{"period":{"end":"2020-01-05"},"hospitalization":{"admitSource":{"coding":[{"code":"gp"}]},"dischargeDisposition":{"text":"home"}}}"#,
        );
        assert_eq!(
            merged(current, &one),
            r#"{"resourceType":"Encounter","period":{"start":"2020-01-01","end":"2020-01-05"},"hospitalization":{"admitSource":{"coding":[{"code":"gp"}]},"dischargeDisposition":{"text":"home"}}}"#
        );
    }

    #[test]
    fn extensions_meet_and_go_by_their_url() {
        let stored = json(
            r#"{"resourceType":"Patient","extension":[{"url":"a","valueString":"1"},{"url":"b","valueString":"2"},{"url":"b","valueString":"3"},{"url":"c","valueString":"4"}]}"#,
        );
        let mut one = save("Patient", r#"{"extension":[{"url":"b","valueString":"5"},{"url":"b","valueString":"6"},{"url":"d","valueString":"7"}]}"#);
        one.merge = vec![("extension", ListMerge::By("url"))];
        one.deletes = vec![vec!["extension", "a"]];
        let kept = json(r#"[{"url":"b","valueString":"5"},{"url":"b","valueString":"6"},{"url":"c","valueString":"4"},{"url":"d","valueString":"7"}]"#);
        assert_eq!(merge(&stored, &one, &|_| String::new())["extension"], kept);
    }

    #[test]
    fn initial_counts_only_on_creation_and_never_over_the_body() {
        let mut one = save("Encounter", r#"{"resourceType":"Encounter","class":{"code":"IMP"}}"#);
        one.initial = Some(node(&json(r#"{"status":"in-progress","class":{"code":"AMB"}}"#)));
        assert_eq!(
            merged(r#"{"resourceType":"Encounter","status":"finished"}"#, &one),
            r#"{"resourceType":"Encounter","status":"finished","class":{"code":"IMP"}}"#
        );
        assert_eq!(one.creation().to_value(&|_| String::new()).to_string(), r#"{"resourceType":"Encounter","status":"in-progress","class":{"code":"IMP"}}"#);
    }

    #[test]
    fn decimals_keep_their_digits() {
        let current = r#"{"resourceType":"Observation","valueQuantity":{"value":1.50},"referenceRange":[{"low":{"value":0.10}}]}"#;
        assert_eq!(merged(current, &save("Observation", r#"{"status":"final"}"#)), current.replace("}]}", "}],\"status\":\"final\"}").replace("]}}],", "]}],"));
        assert_eq!(
            merged(current, &save("Observation", r#"{"valueQuantity":{"value":2.500}}"#)),
            r#"{"resourceType":"Observation","valueQuantity":{"value":2.500},"referenceRange":[{"low":{"value":0.10}}]}"#
        );
    }

    /// Anything that a server or a route may have under some of Patient's names, fitting or not.
    fn any_patient() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json("true")), Just(json("1.50")), "[ab]".prop_map(Value::String)];
        let value = leaf.prop_recursive(3, 24, 4, |inner| {
            let names = prop_oneof![Just("system"), Just("value"), Just("start"), Just("end"), Just("gender"), Just("reference")];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec((names, inner), 0..4).prop_map(|o| Value::Object(o.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
            ]
        });
        let names = prop_oneof![
            Just("identifier"),
            Just("birthDate"),
            Just("_birthDate"),
            Just("deceasedBoolean"),
            Just("deceasedDateTime"),
            Just("_deceasedDateTime"),
            Just("contact"),
            Just("meta"),
            Just("unknown"),
        ];
        prop::collection::vec((names, value), 0..7).prop_map(|o| Value::Object(o.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()))
    }

    proptest! {
        #[test]
        fn the_same_merge_again_changes_nothing(current in any_patient(), body in any_patient(), how in 0..3, deleted in 0..3usize) {
            let mut one = save("Patient", "{}");
            one.body = node(&body);
            // A message that deletes a part of an entry and adds the entry with that part contradicts itself.
            let how = if deleted == 2 { ListMerge::Replace } else { [ListMerge::Replace, ListMerge::Union, ListMerge::By("system")][how as usize] };
            one.merge = vec![("identifier", how), ("contact", how)];
            one.deletes = [vec![], vec![vec!["deceased[x]"]], vec![vec!["contact", "gender"], vec!["birthDate"]]][deleted].clone();
            let link = |n: usize| format!("Patient/{n}");
            let once = merge(&current, &one, &link);
            prop_assert_eq!(&merge(&once, &one, &link), &once);
            // What nobody maps or deletes is as it was.
            if body.get("unknown").is_none() {
                prop_assert_eq!(once.get("unknown"), current.get("unknown"));
            }
        }
    }
}
