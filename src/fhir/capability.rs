//! What a server says that it can do (CapabilityStatement, <https://hl7.org/fhir/R4/capabilitystatement.html>), held against what routes want of it.

use crate::fhir::{BundleKind, SaveMode, has_identifier};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a CapabilityStatement says, as far as saving depends on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capabilities {
    /// `fhirVersion`: `4.0.1`.
    pub fhir_version: Option<String>,
    /// Name and version of the software, if it says.
    pub software: Option<String>,
    /// Media types of PATCH bodies.
    pub patch_formats: Vec<String>,
    /// Interactions of the whole system: `transaction`, `batch`.
    interactions: Vec<String>,
    resources: BTreeMap<String, ResourceCapability>,
}

/// What it says about one type. `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
struct ResourceCapability {
    interactions: Vec<String>,
    conditional_create: Option<bool>,
    conditional_update: Option<bool>,
    update_create: Option<bool>,
    search: Vec<String>,
}

/// What one route wants of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The route's name.
    pub route: String,
    /// How its resources are sent; `None` for one request per resource.
    pub bundle: Option<BundleKind>,
    /// The types and ways of saving.
    pub saves: Vec<(&'static str, SaveMode)>,
}

/// Something that routes want, and the server does not promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// True: the server says that it cannot. False: it does not say that it can.
    pub denied: bool,
    /// What: `conditional update of Patient`, `transactions`.
    pub what: String,
    /// What is to be done, or what happens otherwise.
    pub advice: &'static str,
    /// The routes that want it.
    pub routes: Vec<String>,
}

/// One thing that a server can or cannot do, in the order of telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Bundle(&'static str),
    Type,
    Interaction(&'static str),
    ConditionalCreate,
    ConditionalUpdate,
    UpdateCreate,
    SearchByIdentifier,
}

impl Capabilities {
    /// Reads a CapabilityStatement; `None` if it is none.
    pub fn read(statement: &Value) -> Option<Self> {
        if text(statement, "resourceType") != Some("CapabilityStatement") {
            return None;
        }
        let software = statement.get("software");
        let said: Vec<&str> = ["name", "version"].iter().filter_map(|key| text(software?, key)).collect();
        let mut all = Self {
            // It comes into logs: what is no version is not shown.
            fhir_version: text(statement, "fhirVersion")
                .filter(|v| v.len() <= 20 && v.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b)))
                .map(str::to_owned),
            software: (!said.is_empty()).then(|| said.join(" ")),
            patch_formats: texts(statement.get("patchFormat")),
            ..Self::default()
        };
        for rest in list(statement.get("rest")).iter().filter(|r| text(r, "mode") != Some("client")) {
            all.interactions.extend(codes(rest.get("interaction")));
            for resource in list(rest.get("resource")) {
                let Some(name) = text(resource, "type") else { continue };
                let flag = |key: &str| resource.get(key).and_then(Value::as_bool);
                let params = list(resource.get("searchParam"));
                let capability = ResourceCapability {
                    interactions: codes(resource.get("interaction")),
                    conditional_create: flag("conditionalCreate"),
                    conditional_update: flag("conditionalUpdate"),
                    update_create: flag("updateCreate"),
                    search: params.iter().filter_map(|p| text(p, "name")).map(str::to_owned).collect(),
                };
                all.resources.insert(name.to_owned(), capability);
            }
        }
        Some(all)
    }

    /// Everything that the routes want and the server does not promise; what it denies comes first.
    pub fn shortfalls(&self, wanted: &[Wanted]) -> Vec<Shortfall> {
        let mut missing: BTreeMap<(bool, &str, Need), (String, Vec<String>)> = BTreeMap::new();
        for route in wanted {
            for (resource_type, need) in needs(route) {
                if let Some(denied) = self.lacks(resource_type, need) {
                    let entry = missing.entry((!denied, resource_type, need)).or_insert_with(|| (words(resource_type, need), Vec::new()));
                    if !entry.1.contains(&route.route) {
                        entry.1.push(route.route.clone());
                    }
                }
            }
        }
        let mut all: Vec<Shortfall> =
            missing.into_iter().map(|((unsaid, _, need), (what, routes))| Shortfall { denied: !unsaid, what, advice: advice(need), routes }).collect();
        if let Some(version) = self.fhir_version.as_deref().filter(|v| !v.starts_with("4.0")) {
            let routes = wanted.iter().map(|w| w.route.clone()).collect();
            let what = format!("FHIR R4 (4.0); it speaks {version}");
            all.insert(0, Shortfall { denied: true, what, advice: "Kiln makes resources of FHIR R4; give the URL of the server's R4 endpoint", routes });
        }
        all
    }

    /// The types that these routes search for by identifier, without those that the server does not have.
    pub fn searched(&self, wanted: &[Wanted]) -> Vec<&'static str> {
        let all = wanted.iter().flat_map(needs).filter(|(_, need)| *need == Need::SearchByIdentifier);
        let all = all.filter(|(resource_type, _)| self.lacks(resource_type, Need::Type) != Some(true));
        all.map(|(resource_type, _)| resource_type).collect()
    }

    /// `Some(true)` if the server says that it cannot, `Some(false)` if it says neither.
    fn lacks(&self, resource_type: &str, need: Need) -> Option<bool> {
        let listed = |list: &[String], word: &str| match list {
            // A server that lists nothing has not said anything.
            [] => Some(false),
            list if list.iter().any(|i| i == word) => None,
            _ => Some(true),
        };
        let flag = |flag: Option<bool>| match flag {
            Some(true) => None,
            said => Some(said.is_some()),
        };
        if let Need::Bundle(word) = need {
            return listed(&self.interactions, word);
        }
        if self.resources.is_empty() {
            return (need == Need::Type).then_some(false);
        }
        let Some(resource) = self.resources.get(resource_type) else { return (need == Need::Type).then_some(true) };
        match need {
            Need::Bundle(_) | Need::Type => None,
            Need::Interaction(word) => listed(&resource.interactions, word),
            Need::ConditionalCreate => flag(resource.conditional_create),
            Need::ConditionalUpdate => flag(resource.conditional_update),
            Need::UpdateCreate => flag(resource.update_create),
            Need::SearchByIdentifier => listed(&resource.search, "identifier"),
        }
    }
}

/// What a route's ways of saving come to on the wire (docs/guarantees.md).
fn needs(route: &Wanted) -> Vec<(&'static str, Need)> {
    use Need::{ConditionalCreate, ConditionalUpdate, Interaction, SearchByIdentifier, Type, UpdateCreate};
    let at_once = route.bundle == Some(BundleKind::Transaction);
    let mut all = match route.bundle {
        Some(BundleKind::Transaction) => vec![("", Need::Bundle("transaction"))],
        Some(BundleKind::Batch) => vec![("", Need::Bundle("batch"))],
        None => Vec::new(),
    };
    let looked_up = [SearchByIdentifier, Interaction("create"), ConditionalCreate, Interaction("update")];
    for (resource_type, mode) in &route.saves {
        let own: &[Need] = match mode {
            SaveMode::Create => &[Interaction("create")],
            SaveMode::CreateIfNone => &[Interaction("create"), ConditionalCreate],
            SaveMode::Update if at_once => &[Interaction("update"), ConditionalUpdate],
            SaveMode::Update | SaveMode::Merge => &looked_up,
            SaveMode::Patch => &[SearchByIdentifier, Interaction("create"), ConditionalCreate, Interaction("patch")],
            SaveMode::Put => &[Interaction("update"), UpdateCreate],
            SaveMode::Find => &[SearchByIdentifier],
            SaveMode::Delete => &[SearchByIdentifier, Interaction("delete")],
        };
        all.push((resource_type, Type));
        // A type without identifiers is addressed by an id of our own.
        let own: &[Need] = if has_identifier(resource_type) || *mode == SaveMode::Create { own } else { &[Interaction("update"), UpdateCreate] };
        all.extend(own.iter().map(|need| (*resource_type, *need)));
    }
    all
}

fn words(resource_type: &str, need: Need) -> String {
    match need {
        Need::Bundle("batch") => "batches".to_owned(),
        Need::Bundle(word) => format!("{word}s"),
        Need::Type => resource_type.to_owned(),
        Need::Interaction(word) => format!("{word} of {resource_type}"),
        Need::ConditionalCreate => format!("conditional create of {resource_type}"),
        Need::ConditionalUpdate => format!("conditional update of {resource_type}"),
        Need::UpdateCreate => format!("update of a {resource_type} that is not there yet, under an id of Kiln's"),
        Need::SearchByIdentifier => format!("search for {resource_type} by identifier"),
    }
}

fn advice(need: Need) -> &'static str {
    match need {
        Need::Bundle("transaction") => "say `send: single` for the target or the route; then a message is no longer all or nothing",
        Need::Bundle(_) => "say `send: single` for the target or the route",
        Need::Type => "every message with one becomes a dead letter; leave it out of the route, or send it to another target",
        Need::Interaction("patch") => "the server gets the whole resource instead, with If-Match; `patch: none` at the target says so",
        Need::Interaction(_) => "the server must allow it to Kiln, or the route must save in another way",
        Need::ConditionalCreate => "two messages at the same moment could make two of them; `put by` needs no search, where clients may choose ids",
        Need::ConditionalUpdate => "say `send: single`, which searches first; or `merge by` or `put by`",
        Need::UpdateCreate => "say `update by` instead of `put by`",
        Need::SearchByIdentifier => "say `put by`, where clients may choose ids; or have the server index identifiers",
    }
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn texts(value: Option<&Value>) -> Vec<String> {
    list(value).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn codes(value: Option<&Value>) -> Vec<String> {
    list(value).iter().filter_map(|i| text(i, "code")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wanted(bundle: Option<BundleKind>, saves: &[(&'static str, SaveMode)]) -> Vec<Wanted> {
        vec![Wanted { route: "adt".to_owned(), bundle, saves: saves.to_vec() }]
    }

    fn told(statement: Value, wanted: &[Wanted]) -> Vec<String> {
        let capabilities = Capabilities::read(&statement).expect("a CapabilityStatement");
        capabilities.shortfalls(wanted).iter().map(|s| format!("{}{}", if s.denied { "no " } else { "? " }, s.what)).collect()
    }

    fn statement(rest: Value) -> Value {
        json!({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [rest]})
    }

    #[test]
    fn what_a_server_can_do_is_no_shortfall() {
        let patient = json!({"type": "Patient", "interaction": [{"code": "read"}, {"code": "create"}, {"code": "update"}, {"code": "search-type"}, {"code": "patch"}, {"code": "delete"}],
            "conditionalCreate": true, "conditionalUpdate": true, "conditionalDelete": "single", "updateCreate": true, "searchParam": [{"name": "identifier", "type": "token"}]});
        let all = statement(json!({"mode": "server", "interaction": [{"code": "transaction"}, {"code": "batch"}], "resource": [patient]}));
        let modes =
            [SaveMode::Create, SaveMode::CreateIfNone, SaveMode::Update, SaveMode::Merge, SaveMode::Patch, SaveMode::Put, SaveMode::Find, SaveMode::Delete];
        for bundle in [Some(BundleKind::Transaction), Some(BundleKind::Batch), None] {
            for mode in modes {
                assert_eq!(told(all.clone(), &wanted(bundle, &[("Patient", mode)])), Vec::<String>::new(), "{bundle:?} {mode:?}");
            }
        }
    }

    #[test]
    fn what_it_denies_and_what_it_does_not_say_are_told_apart() {
        let saves = wanted(Some(BundleKind::Transaction), &[("Patient", SaveMode::Update), ("Location", SaveMode::CreateIfNone)]);
        let patient = json!({"type": "Patient", "interaction": [{"code": "read"}], "conditionalUpdate": false});
        let few = statement(json!({"mode": "server", "interaction": [{"code": "batch"}], "resource": [patient]}));
        assert_eq!(told(few, &saves), ["no transactions", "no Location", "no update of Patient", "no conditional update of Patient"]);
        let silent = statement(json!({"mode": "server", "resource": [{"type": "Patient"}, {"type": "Location"}]}));
        assert_eq!(
            told(silent, &saves),
            ["? transactions", "? create of Location", "? conditional create of Location", "? update of Patient", "? conditional update of Patient"]
        );
        // Nothing about resources at all: one line for each type, not one for each of its needs.
        assert_eq!(told(statement(json!({"mode": "server", "interaction": [{"code": "transaction"}]})), &saves), ["? Location", "? Patient"]);
    }

    #[test]
    fn another_version_of_fhir_is_told_first() {
        let other = json!({"resourceType": "CapabilityStatement", "fhirVersion": "5.0.0", "rest": [{"interaction": [{"code": "transaction"}]}]});
        assert_eq!(told(other, &wanted(Some(BundleKind::Transaction), &[])), ["no FHIR R4 (4.0); it speaks 5.0.0"]);
        assert!(Capabilities::read(&json!({"resourceType": "Patient"})).is_none());
    }
}
