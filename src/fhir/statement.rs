//! What a run asks of a target, as plain JSON: for expectations of tests, and to say how two runs differ.

use crate::fhir::difference::{Change, Difference, Step, differences};
use crate::fhir::{ListMerge, Node, Save, SaveMode, Saves, type_named};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

impl SaveMode {
    /// The words of `$save`: `merge by`.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::CreateIfNone => "create by",
            Self::Update => "update by",
            Self::Merge => "merge by",
            Self::Patch => "patch by",
            Self::Put => "put by",
            Self::Find => "find by",
            Self::Delete => "delete by",
        }
    }
}

/// The resources of a run, in the route's order: `name`, `save`, `identity` (`system|value`), `merge`, `deletes`, `initial` where there are any,
/// and `resource`. A reference to another of them is its `name`. Patient data.
pub fn statements(saves: &Saves) -> Vec<Value> {
    let names = names(saves);
    let link = |n: usize| names.get(n).cloned().unwrap_or_default();
    saves.entries.iter().zip(&names).map(|(save, name)| statement(save, name, &link)).collect()
}

/// Names that are given twice (a route's own and a map's) get a number, since references go by them.
fn names(saves: &Saves) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let name = |save: &Save| {
        let count: &mut u32 = seen.entry(save.name.clone()).or_default();
        *count += 1;
        if *count == 1 { save.name.clone() } else { format!("{}#{count}", save.name) }
    };
    saves.entries.iter().map(name).collect()
}

fn statement(save: &Save, name: &str, link: &dyn Fn(usize) -> String) -> Value {
    let mut told = Map::new();
    told.insert("name".to_owned(), json!(name));
    told.insert("save".to_owned(), json!(save.mode.words()));
    if !save.identity.is_empty() {
        let identity: Vec<_> = save.identity.iter().map(|i| format!("{}|{}", i.system, i.value)).collect();
        told.insert("identity".to_owned(), json!(identity));
    }
    if !save.merge.is_empty() {
        let how = |merge: ListMerge| match merge {
            ListMerge::Replace => "replace".to_owned(),
            ListMerge::Union => "union".to_owned(),
            ListMerge::By(element) => format!("by {element}"),
        };
        told.insert("merge".to_owned(), save.merge.iter().map(|(element, merge)| ((*element).to_owned(), json!(how(*merge)))).collect());
    }
    if !save.deletes.is_empty() {
        told.insert("deletes".to_owned(), save.deletes.iter().map(|path| json!(path.join("."))).collect());
    }
    if let Some(initial) = save.initial.as_ref().filter(|initial| !Node::is_empty(initial)) {
        told.insert("initial".to_owned(), initial.to_value(link));
    }
    told.insert("resource".to_owned(), save.body.to_value(link));
    Value::Object(told)
}

/// What of a saved resource differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// What makes it the same one next time.
    Identity,
    /// How it is saved: `merge by` and the rules of the merge.
    Save,
    /// Whether it is there.
    Presence,
    /// An element of it.
    Element,
}

/// One difference between what two runs ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Disagreement {
    /// The resource's name in the route.
    pub name: String,
    /// `Patient`.
    pub resource_type: String,
    /// What differs.
    pub aspect: Aspect,
    /// How. For an element the path begins in the resource, else in the statement (`save`, `identity`); it is empty for [`Aspect::Presence`].
    pub difference: Difference,
}

/// How two lists of [`statements`] differ. Resources are the same by name and type where they share an identity or no other claims them.
pub fn disagreements(old: &[Value], new: &[Value]) -> Vec<Disagreement> {
    let pairs = pairs(old, new);
    let renamed: BTreeMap<String, String> =
        pairs.iter().filter_map(|(i, j)| Some((name(new.get(*j)?).to_owned(), name(old.get(*i)?).to_owned()))).filter(|(new, old)| new != old).collect();
    let mut found = Vec::new();
    let gone = |value: &Value| {
        one(value, Aspect::Presence, Difference { path: Vec::new(), change: Change::Removed, old: value.get("resource").cloned(), new: None, closed: false })
    };
    let came = |value: &Value| {
        one(value, Aspect::Presence, Difference { path: Vec::new(), change: Change::Added, old: None, new: value.get("resource").cloned(), closed: false })
    };
    for (i, a) in old.iter().enumerate() {
        match pairs.iter().find(|(x, _)| *x == i).and_then(|(_, j)| new.get(*j)) {
            Some(b) => compare(a, b, &renamed, &mut found),
            None => found.push(gone(a)),
        }
    }
    let matched: BTreeSet<usize> = pairs.iter().map(|(_, j)| *j).collect();
    found.extend(new.iter().enumerate().filter(|(j, _)| !matched.contains(j)).map(|(_, b)| came(b)));
    found
}

fn name(statement: &Value) -> &str {
    statement.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn kind(statement: &Value) -> &str {
    statement.get("resource").and_then(|r| r.get("resourceType")).and_then(Value::as_str).unwrap_or("resource")
}

fn identities(statement: &Value) -> impl Iterator<Item = &str> {
    statement.get("identity").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn one(statement: &Value, aspect: Aspect, difference: Difference) -> Disagreement {
    Disagreement { name: name(statement).to_owned(), resource_type: kind(statement).to_owned(), aspect, difference }
}

/// Which old resource is which new one: name and identity, identity, name, and then what is left of the same name without its number.
fn pairs(old: &[Value], new: &[Value]) -> Vec<(usize, usize)> {
    let shared = |a: &Value, b: &Value| identities(a).any(|one| identities(b).any(|other| one == other));
    let base = |v: &Value| name(v).split('[').next().unwrap_or_default().to_owned();
    let rules: [&dyn Fn(&Value, &Value) -> bool; 4] =
        [&|a, b| name(a) == name(b) && shared(a, b), &|a, b| shared(a, b), &|a, b| name(a) == name(b), &|a, b| base(a) == base(b)];
    let (mut used_old, mut used_new, mut found) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    // Nearly always everything stands where it stood.
    for (i, (a, b)) in old.iter().zip(new).enumerate() {
        if kind(a) == kind(b) && name(a) == name(b) && identities(a).eq(identities(b)) {
            used_old.insert(i);
            used_new.insert(i);
            found.push((i, i));
        }
    }
    for rule in rules {
        for (i, a) in old.iter().enumerate() {
            if used_old.contains(&i) {
                continue;
            }
            let fits = |(j, b): &(usize, &Value)| !used_new.contains(j) && kind(a) == kind(b) && rule(a, b);
            if let Some((j, _)) = new.iter().enumerate().find(fits) {
                used_old.insert(i);
                used_new.insert(j);
                found.push((i, j));
            }
        }
    }
    found
}

fn compare(old: &Value, new: &Value, renamed: &BTreeMap<String, String>, found: &mut Vec<Disagreement>) {
    let (Value::Object(a), Value::Object(b)) = (old, new) else { return };
    let without = |object: &Map<String, Value>| -> Value {
        // The name matters only as a reference, and references are compared by what they lead to.
        Value::Object(object.iter().filter(|(key, _)| !matches!(key.as_str(), "name" | "resource")).map(|(k, v)| (k.clone(), v.clone())).collect())
    };
    for difference in differences(&without(a), &without(b), None) {
        let aspect = match difference.path.first() {
            Some(Step::Element(key)) if key == "identity" => Aspect::Identity,
            _ => Aspect::Save,
        };
        found.push(one(old, aspect, difference));
    }
    let empty = Value::Null;
    let (from, to) = (a.get("resource").unwrap_or(&empty), b.get("resource").unwrap_or(&empty));
    let to = if renamed.is_empty() { to.clone() } else { with_old_names(to, renamed) };
    found.extend(differences(from, &to, type_named(kind(old))).into_iter().map(|d| one(old, Aspect::Element, d)));
}

/// The same with references to resources by the names that they had.
fn with_old_names(value: &Value, renamed: &BTreeMap<String, String>) -> Value {
    match value {
        Value::Object(object) => Value::Object(
            object
                .iter()
                .map(|(key, v)| match (key.as_str(), v.as_str().and_then(|name| renamed.get(name))) {
                    ("reference", Some(old)) => (key.clone(), json!(old)),
                    _ => (key.clone(), with_old_names(v, renamed)),
                })
                .collect(),
        ),
        Value::Array(entries) => entries.iter().map(|v| with_old_names(v, renamed)).collect(),
        leaf => leaf.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, save: &str, identity: &[&str], resource: Value) -> Value {
        json!({ "name": name, "save": save, "identity": identity, "resource": resource })
    }

    fn told(old: &[Value], new: &[Value]) -> Vec<String> {
        disagreements(old, new).iter().map(|d| format!("{} {:?} {:?} {}", d.name, d.aspect, d.difference.change, d.difference.place())).collect()
    }

    #[test]
    fn resources_are_matched_by_identity_before_name() {
        let observation = |name: &str, id: &str, text: &str| said(name, "update by", &[id], json!({ "resourceType": "Observation", "valueString": text }));
        let refers = |to: &str| said("report", "create", &[], json!({ "resourceType": "DiagnosticReport", "result": [{ "reference": to }] }));
        let old = [observation("o[1]", "u|1", "a"), observation("o[2]", "u|2", "b"), refers("o[2]")];
        assert_eq!(told(&old, &[observation("o[1]", "u|2", "b"), refers("o[1]")]), ["o[1] Presence Removed "]);
        assert_eq!(told(&old, &old), Vec::<String>::new());
    }

    #[test]
    fn another_identity_and_another_way_of_saving_are_told_apart_from_elements() {
        let patient = |save: &str, id: &str, gender: &str| said("patient", save, &[id], json!({ "resourceType": "Patient", "gender": gender }));
        let new = patient("update by", "s|2", "male");
        let mut expected = vec!["patient Save Changed save", "patient Identity Changed identity[0]", "patient Element Changed gender"];
        let found = told(&[patient("merge by", "s|1", "female")], &[new]);
        assert_eq!(found.len(), expected.len());
        expected.sort_unstable();
        let mut sorted = found;
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
    }
}
