//! How two resources differ, element by element, with list entries matched by what they say and not by where they stand.

use crate::fhir::{Binding, Strength, Type, type_named};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// `name`.
    Element(String),
    /// `[1]`, from 0: in the new list; for what was removed, in the old one.
    Entry(usize),
    /// `[patient-religion]`: an entry of a list of extensions, by its URL.
    Extension(String),
}

/// What happened to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// There is another one in its place.
    Changed,
    /// It came.
    Added,
    /// It went.
    Removed,
    /// The same entries stand in another order.
    Reordered,
}

/// One element that differs. Its values are patient data.
#[derive(Clone, PartialEq)]
pub struct Difference {
    /// From the resource to the element.
    pub path: Vec<Step>,
    /// What happened.
    pub change: Change,
    /// The value before.
    pub old: Option<Value>,
    /// The value after.
    pub new: Option<Value>,
    /// True if the values are booleans or codes of a value set that FHIR binds as required: a closed list, which tells nothing about who it is.
    pub closed: bool,
}

/// It holds patient data: only its path is printed.
impl std::fmt::Debug for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.change, self.place())
    }
}

impl Difference {
    /// `name[0].family`; empty for the resource itself.
    pub fn place(&self) -> String {
        written(&self.path, true)
    }

    /// The same without places in lists: `name[].family`.
    pub fn shape(&self) -> String {
        written(&self.path, false)
    }
}

fn written(path: &[Step], places: bool) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Element(name) if text.is_empty() => text.push_str(name),
            Step::Element(name) => {
                text.push('.');
                text.push_str(name);
            }
            Step::Entry(n) if places => text.push_str(&format!("[{n}]")),
            Step::Entry(_) => text.push_str("[]"),
            Step::Extension(url) => text.push_str(&format!("[{}]", url.strip_prefix("http://hl7.org/fhir/StructureDefinition/").unwrap_or(url))),
        }
    }
    text
}

/// Everything that differs between two values of a type, in the order of the old one; what only the new one has follows.
pub fn differences(old: &Value, new: &Value, t: Option<Type>) -> Vec<Difference> {
    let mut walk = Walk { path: Vec::new(), found: Vec::new() };
    walk.value(old, new, Meaning { t, binding: None });
    walk.found
}

/// What the definitions say about the value in hand.
#[derive(Clone, Copy)]
struct Meaning {
    t: Option<Type>,
    binding: Option<Binding>,
}

impl Meaning {
    /// That of a property.
    fn of(self, object: &Map<String, Value>, name: &str) -> Self {
        // A resource inside another says itself what it is.
        let t = object.get("resourceType").and_then(Value::as_str).and_then(type_named).or(self.t);
        let Some((element, kind)) = t.and_then(|t| t.property(name)) else { return Self { t: None, binding: None } };
        // The code of a Coding is bound where its CodeableConcept is.
        let inherited = self.binding.filter(|_| t.is_some_and(|t| matches!(t.name(), "Coding" | "CodeableConcept")));
        Self { t: Some(kind), binding: inherited.or(element.binding()) }
    }

    fn closed(self, value: &Value) -> bool {
        match value {
            Value::Bool(_) => true,
            Value::String(code) => {
                self.binding.is_some_and(|b| b.strength == Strength::Required && b.value_set.is_complete() && b.value_set.find(code).is_some())
            }
            _ => false,
        }
    }
}

struct Walk {
    path: Vec<Step>,
    found: Vec<Difference>,
}

/// Lists whose unmatched entries are more than so many pairs are matched by place: comparing each with each would take too long.
const PAIRS_MAX: usize = 40_000;

/// Two entries are one that changed if they have so much in common, in thousandths.
const LIKENESS_MIN: usize = 125;

impl Walk {
    fn add(&mut self, change: Change, old: Option<&Value>, new: Option<&Value>, meaning: Meaning) {
        let closed = [old, new].into_iter().flatten().all(|v| meaning.closed(v));
        self.found.push(Difference { path: self.path.clone(), change, old: old.cloned(), new: new.cloned(), closed });
    }

    fn value(&mut self, old: &Value, new: &Value, meaning: Meaning) {
        match (old, new) {
            (a, b) if a == b => {}
            (Value::Object(a), Value::Object(b)) if a.get("resourceType") == b.get("resourceType") => self.object(a, b, meaning),
            (Value::Array(a), Value::Array(b)) => self.list(a, b, meaning),
            (a, b) => self.add(Change::Changed, Some(a), Some(b), meaning),
        }
    }

    fn object(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, meaning: Meaning) {
        for (name, a) in old {
            self.path.push(Step::Element(name.clone()));
            match new.get(name) {
                Some(b) => self.value(a, b, meaning.of(old, name)),
                None => self.whole(Change::Removed, a, meaning.of(old, name)),
            }
            self.path.pop();
        }
        for (name, b) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            self.path.push(Step::Element(name.clone()));
            self.whole(Change::Added, b, meaning.of(new, name));
            self.path.pop();
        }
    }

    /// Something that came or went. Each entry of a list is told by itself.
    fn whole(&mut self, change: Change, value: &Value, meaning: Meaning) {
        match value {
            Value::Array(entries) => {
                for (n, entry) in entries.iter().enumerate() {
                    self.entry(change, n, entry, meaning);
                }
            }
            value if change == Change::Added => self.add(change, None, Some(value), meaning),
            value => self.add(change, Some(value), None, meaning),
        }
    }

    fn entry(&mut self, change: Change, n: usize, entry: &Value, meaning: Meaning) {
        self.path.push(self.step(n, entry));
        match change {
            Change::Added => self.add(change, None, Some(entry), meaning),
            _ => self.add(change, Some(entry), None, meaning),
        }
        self.path.pop();
    }

    fn step(&self, n: usize, entry: &Value) -> Step {
        let extensions = matches!(self.path.last(), Some(Step::Element(name)) if name == "extension" || name == "modifierExtension");
        match entry.get("url").and_then(Value::as_str) {
            Some(url) if extensions => Step::Extension(url.to_owned()),
            _ => Step::Entry(n),
        }
    }

    fn list(&mut self, old: &[Value], new: &[Value], meaning: Meaning) {
        let pairs = pairs(old, new);
        let mut kept: Vec<(usize, usize)> = pairs.iter().filter(|(i, j)| old.get(*i) == new.get(*j)).copied().collect();
        kept.sort_by_key(|(_, j)| *j);
        if kept.windows(2).any(|w| matches!(w, [(a, _), (b, _)] if a > b)) {
            self.found.push(Difference { path: self.path.clone(), change: Change::Reordered, old: None, new: None, closed: false });
        }
        let mut by_new: BTreeMap<usize, usize> = pairs.iter().map(|(i, j)| (*j, *i)).collect();
        for (j, b) in new.iter().enumerate() {
            match by_new.remove(&j).and_then(|i| old.get(i)) {
                Some(a) => {
                    self.path.push(self.step(j, b));
                    self.value(a, b, meaning);
                    self.path.pop();
                }
                None => self.entry(Change::Added, j, b, meaning),
            }
        }
        let matched: BTreeSet<usize> = pairs.iter().map(|(i, _)| *i).collect();
        for (i, a) in old.iter().enumerate().filter(|(i, _)| !matched.contains(i)) {
            self.entry(Change::Removed, i, a, meaning);
        }
    }
}

/// Which old entry is which new one: equal ones first, then the likest.
fn pairs(old: &[Value], new: &[Value]) -> Vec<(usize, usize)> {
    let mut equal: BTreeMap<String, VecDeque<usize>> = BTreeMap::new();
    for (i, a) in old.iter().enumerate() {
        equal.entry(a.to_string()).or_default().push_back(i);
    }
    let mut found = Vec::new();
    let mut left_new = Vec::new();
    for (j, b) in new.iter().enumerate() {
        match equal.get_mut(&b.to_string()).and_then(VecDeque::pop_front) {
            Some(i) => found.push((i, j)),
            None => left_new.push(j),
        }
    }
    let mut left_old: Vec<usize> = equal.into_values().flatten().collect();
    left_old.sort_unstable();
    if left_old.len().saturating_mul(left_new.len()) > PAIRS_MAX {
        found.extend(left_old.into_iter().zip(left_new));
        return found;
    }
    let leaves_of = |list: &[Value], places: &[usize]| -> Vec<Leaves> { places.iter().filter_map(|n| list.get(*n)).map(Leaves::of).collect() };
    let (a, b) = (leaves_of(old, &left_old), leaves_of(new, &left_new));
    let mut likeness: Vec<(usize, usize, usize)> = Vec::new();
    for (x, one) in a.iter().enumerate() {
        likeness.extend(b.iter().enumerate().map(|(y, other)| (one.likeness(other), x, y)).filter(|(likeness, ..)| *likeness >= LIKENESS_MIN));
    }
    // Of equally like ones those that stand nearest to each other.
    likeness.sort_by_key(|(likeness, x, y)| (std::cmp::Reverse(*likeness), x.abs_diff(*y), *x));
    let (mut used_old, mut used_new) = (BTreeSet::new(), BTreeSet::new());
    for (_, x, y) in likeness {
        if used_old.contains(&x) || used_new.contains(&y) {
            continue;
        }
        used_old.insert(x);
        used_new.insert(y);
        if let (Some(i), Some(j)) = (left_old.get(x), left_new.get(y)) {
            found.push((*i, *j));
        }
    }
    found
}

/// What an entry of a list says, for comparing it with others.
struct Leaves {
    values: BTreeSet<(String, String)>,
    names: BTreeSet<String>,
    /// What must be equal in one entry and the same entry later: an extension's URL, a resource's type.
    kind: Option<String>,
}

impl Leaves {
    fn of(value: &Value) -> Self {
        let mut values = BTreeSet::new();
        collect(value, String::new(), &mut values);
        let names = values.iter().map(|(name, _)| name.clone()).collect();
        let kind = ["url", "resourceType"].iter().find_map(|k| value.get(k)).and_then(Value::as_str).map(str::to_owned);
        Self { values, names, kind }
    }

    /// 1000 for equal ones, 250 for the same elements with other values.
    fn likeness(&self, other: &Self) -> usize {
        if self.kind != other.kind {
            return 0;
        }
        let equal = |name: &str| {
            let of = |leaves: &Self| leaves.values.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
            of(self) == of(other)
        };
        // A telephone number does not become an e-mail address, nor one hospital's number another's.
        if self.names.contains(".system") && self.names.contains(".value") && other.names.contains(".system") && !equal(".system") && !equal(".value") {
            return 0;
        }
        let most = self.values.len().max(other.values.len()).max(1);
        let (same, named) = (self.values.intersection(&other.values).count(), self.names.intersection(&other.names).count());
        (3 * same + named.min(most)) * 250 / most
    }
}

fn collect(value: &Value, at: String, into: &mut BTreeSet<(String, String)>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(name, v)| collect(v, format!("{at}.{name}"), into)),
        Value::Array(entries) => entries.iter().for_each(|v| collect(v, at.clone(), into)),
        leaf => {
            into.insert((at, leaf.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn told(old: Value, new: Value) -> Vec<String> {
        let text = |v: &Option<Value>| v.as_ref().map_or_else(String::new, Value::to_string);
        differences(&old, &new, type_named("Patient"))
            .iter()
            .map(|d| {
                let closed = if d.closed { " (closed)" } else { "" };
                match d.change {
                    Change::Changed => format!("{}: {} -> {}{closed}", d.place(), text(&d.old), text(&d.new)),
                    Change::Added => format!("+ {}: {}{closed}", d.place(), text(&d.new)),
                    Change::Removed => format!("- {}: {}{closed}", d.place(), text(&d.old)),
                    Change::Reordered => format!("~ {}", d.place()),
                }
            })
            .collect()
    }

    fn patient(elements: Value) -> Value {
        let mut patient = json!({ "resourceType": "Patient" });
        patient.as_object_mut().expect("an object").extend(elements.as_object().expect("an object").clone());
        patient
    }

    #[test]
    fn an_element_is_told_by_its_path() {
        let old = patient(json!({ "name": [{ "family": "Meier", "given": ["Eva"] }], "gender": "male", "birthDate": "1970-01-02" }));
        let new = patient(json!({ "name": [{ "family": "Maier", "given": ["Eva", "Maria"] }], "gender": "female", "active": true }));
        assert_eq!(
            told(old, new),
            [
                "name[0].family: \"Meier\" -> \"Maier\"",
                "+ name[0].given[1]: \"Maria\"",
                "gender: \"male\" -> \"female\" (closed)",
                "- birthDate: \"1970-01-02\"",
                "+ active: true (closed)",
            ]
        );
    }

    #[test]
    fn entries_of_lists_are_matched_by_what_they_say() {
        let phone = |value: &str, kind: &str| json!({ "system": "phone", "value": value, "use": kind });
        let mail = json!({ "system": "email", "value": "eva@h.example" });
        let old = patient(json!({ "telecom": [phone("1", "home"), phone("2", "work")] }));
        assert_eq!(
            told(old.clone(), patient(json!({ "telecom": [mail, phone("1", "mobile"), phone("2", "work")] }))),
            [format!("+ telecom[0]: {mail}"), "telecom[1].use: \"home\" -> \"mobile\" (closed)".to_owned(),]
        );
        assert_eq!(told(old.clone(), patient(json!({ "telecom": [phone("2", "work"), phone("1", "home")] }))), ["~ telecom"]);
        assert_eq!(told(old.clone(), patient(json!({ "telecom": [mail] }))).len(), 3, "a number does not become an address");
        assert_eq!(told(old, patient(json!({}))).len(), 2, "each entry by itself");
    }

    #[test]
    fn extensions_go_by_their_url() {
        let e = |name: &str, value: &str| json!({ "url": format!("http://hl7.org/fhir/StructureDefinition/{name}"), "valueString": value });
        let old = patient(json!({ "extension": [e("patient-birthPlace", "Ulm"), e("patient-x", "1")] }));
        let new = patient(json!({ "extension": [e("patient-x", "2")] }));
        assert_eq!(
            told(old, new),
            ["extension[patient-x].valueString: \"1\" -> \"2\"".to_owned(), format!("- extension[patient-birthPlace]: {}", e("patient-birthPlace", "Ulm")),]
        );
    }

    #[test]
    fn only_codes_of_closed_sets_are_closed() {
        let status = |code: &str| json!({ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", "code": code }] });
        let old = patient(json!({ "maritalStatus": status("M"), "gender": "male" }));
        let new = patient(json!({ "maritalStatus": status("W"), "gender": "Eva Meier" }));
        assert_eq!(told(old, new), ["maritalStatus.coding[0].code: \"M\" -> \"W\"", "gender: \"male\" -> \"Eva Meier\""]);
    }

    #[test]
    fn decimals_differ_as_they_are_written() {
        let one: Value = serde_json::from_str(r#"{"v":1.50}"#).expect("JSON");
        let other: Value = serde_json::from_str(r#"{"v":1.5}"#).expect("JSON");
        assert_eq!(differences(&one, &other, None).len(), 1);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!("a")), Just(json!("b")), Just(json!(1)), Just(json!(true))];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                prop::collection::btree_map("[ab]|url|system|value", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn there_is_a_difference_if_and_only_if_they_differ(old in any_value(), new in any_value()) {
            prop_assert!(differences(&old, &old, None).is_empty());
            // An empty list or object has no element that could have come: FHIR has neither.
            let bare = |v: &Value| v.to_string().contains("[]") || v.to_string().contains("{}");
            if old != new && !bare(&old) && !bare(&new) {
                prop_assert!(!differences(&old, &new, None).is_empty());
            }
        }
    }
}
