//! From `Saves` to what goes over the wire: a step per entry, and the Bundle that holds the steps.

use crate::exchange::{DeliveryId, MessageId};
use crate::fhir::identity::{entry_url, has_identifier, put_id, search};
use crate::fhir::node::write_text;
use crate::fhir::{Amendment, Json, Node, Patch, Save, SaveMode, Saves};
use serde_json::Value;

/// A server id learned from a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownId {
    /// The logical id on that server.
    pub id: String,
    /// The last ETag seen, as sent, such as `W/"3"`.
    pub etag: Option<String>,
}

/// How one entry of `Saves` goes to a server.
#[derive(Clone, PartialEq)]
pub enum Step {
    /// Not written. Others refer to it by this string: `Patient/12`, `Patient?identifier=...`.
    Refer(String),
    /// POST; with `once` only if no resource has the identity (If-None-Exist).
    Post {
        /// Only if none exists.
        once: bool,
    },
    /// PUT to `Type?identifier=...`: the server looks.
    PutWhere,
    /// PUT to `Type/id`.
    Put {
        /// The logical id.
        id: String,
        /// If-Match.
        etag: Option<String>,
        /// The whole resource, where it is not the entry's own body (a merge).
        body: Option<Value>,
    },
    /// PATCH to `Type/id`.
    Patch(Box<Amendment>),
    /// DELETE `Type/id`.
    Delete {
        /// The logical id.
        id: String,
    },
    /// DELETE `Type?identifier=...`.
    DeleteWhere,
}

/// The two kinds of Bundle that a server acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleKind {
    /// All or nothing.
    Transaction,
    /// Each entry for itself.
    Batch,
}

/// One interaction, as a Bundle's `request` or an HTTP request says it. URL and condition may hold patient data.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// Relative to the base: `Patient`, `Patient/12`, `Patient?identifier=...`.
    pub url: String,
    /// The If-None-Exist criterion.
    pub if_none_exist: Option<String>,
    /// The If-Match tag.
    pub if_match: Option<String>,
}

/// The step for each entry as far as it can be told without asking the server. A `merge` or `patch` of an unknown resource is planned like an `update`
/// and one of a known resource without its stored content: whoever can ask, reads first and takes a better step.
pub fn plan(saves: &Saves, secret: &[u8; 32], known: &[Option<KnownId>]) -> Vec<Step> {
    let step = |(n, save): (usize, &Save)| {
        let made = || put_id(secret, save.resource_type, &save.identity);
        let known = known.get(n).and_then(Option::as_ref);
        let searchable = has_identifier(save.resource_type);
        let id = known.map(|k| k.id.clone()).or_else(|| (save.mode == SaveMode::Put || !(searchable || save.identity.is_empty())).then(made));
        let etag = known.and_then(|k| k.etag.clone());
        match (save.mode, id) {
            (SaveMode::Create, _) => Step::Post { once: false },
            (SaveMode::CreateIfNone, Some(id)) if known.is_some() => Step::Refer(format!("{}/{id}", save.resource_type)),
            (SaveMode::CreateIfNone, Some(id)) => Step::Put { id, etag: None, body: None },
            (SaveMode::CreateIfNone, None) => Step::Post { once: true },
            (SaveMode::Update | SaveMode::Merge | SaveMode::Patch, Some(id)) => Step::Put { id, etag, body: None },
            (SaveMode::Update | SaveMode::Merge | SaveMode::Patch, None) => Step::PutWhere,
            (SaveMode::Put, id) => Step::Put { id: id.unwrap_or_else(made), etag: None, body: None },
            (SaveMode::Find, Some(id)) => Step::Refer(format!("{}/{id}", save.resource_type)),
            (SaveMode::Find, None) => Step::Refer(where_url(save)),
            (SaveMode::Delete, Some(id)) => Step::Delete { id },
            (SaveMode::Delete, None) => Step::DeleteWhere,
        }
    };
    saves.entries.iter().enumerate().map(step).collect()
}

/// `Patient?identifier=...`
fn where_url(save: &Save) -> String {
    format!("{}?{}", save.resource_type, search(&save.identity))
}

impl Step {
    /// True if the step sends something.
    pub fn writes(&self) -> bool {
        !matches!(self, Self::Refer(_))
    }

    /// The logical id, where it is known before the server answers.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Put { id, .. } | Self::Delete { id } => Some(id),
            Self::Patch(change) => Some(&change.id),
            Self::Refer(reference) if !reference.contains('?') => reference.split_once('/').map(|(_, id)| id),
            _ => None,
        }
    }

    /// The interaction; `None` for an entry that is only referred to.
    pub fn request(&self, save: &Save) -> Option<Request> {
        let by_id = |id: &str| format!("{}/{id}", save.resource_type);
        let (method, url) = match self {
            Self::Refer(_) => return None,
            Self::Post { .. } => ("POST", save.resource_type.to_owned()),
            Self::PutWhere => ("PUT", where_url(save)),
            Self::Put { id, .. } => ("PUT", by_id(id)),
            Self::Patch(change) => ("PATCH", by_id(&change.id)),
            Self::Delete { id } => ("DELETE", by_id(id)),
            Self::DeleteWhere => ("DELETE", where_url(save)),
        };
        let if_none_exist = matches!(self, Self::Post { once: true }).then(|| search(&save.identity));
        let if_match = match self {
            Self::Put { etag, .. } => etag.clone(),
            Self::Patch(change) => change.etag.clone(),
            _ => None,
        };
        Some(Request { method, url, if_none_exist, if_match })
    }

    /// What others in the same transaction write into `reference`.
    pub fn reference(&self, save: &Save, delivery: DeliveryId, entry: usize) -> String {
        match self {
            Self::Refer(reference) => reference.clone(),
            Self::Post { .. } | Self::PutWhere => entry_url(delivery, entry),
            Self::Put { id, .. } => format!("{}/{id}", save.resource_type),
            Self::Patch(change) => format!("{}/{}", save.resource_type, change.id),
            Self::Delete { id } => format!("{}/{id}", save.resource_type),
            Self::DeleteWhere => where_url(save),
        }
    }

    /// Appends the resource as a Bundle's entry holds it; false (and nothing) for a step without one.
    pub fn write_resource(&self, save: &Save, link: &dyn Fn(usize) -> String, out: &mut Json) -> bool {
        match self {
            Self::Refer(_) | Self::Delete { .. } | Self::DeleteWhere => return false,
            Self::Patch(change) => write_patch(&change.patch, out.text()),
            Self::Put { body: Some(body), .. } => serde_json::to_writer(out.text(), body).expect("writing JSON to memory cannot fail"),
            Self::Put { id, body: None, .. } => write_with_id(&save.body, id, link, out),
            Self::Post { .. } if save.initial.is_some() => save.creation().write(out, link),
            Self::Post { .. } | Self::PutWhere => save.body.write(out, link),
        }
        true
    }
}

/// A Bundle's entry holds resources only: a JSON Patch travels in a Binary (<https://hl7.org/fhir/R4/http.html#patch>).
fn write_patch(patch: &Patch, out: &mut Vec<u8>) {
    use base64::Engine as _;
    let resource = match patch {
        Patch::FhirPath(parameters) => parameters.clone(),
        Patch::Json(operations) => {
            let data = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
            serde_json::json!({"resourceType": "Binary", "contentType": patch.content_type(), "data": data})
        }
    };
    serde_json::to_writer(&mut *out, &resource).expect("writing JSON to memory cannot fail");
}

/// Appends a resource with an id, which stands second, where FHIR's own examples have it.
pub fn write_with_id(body: &Node, id: &str, link: &dyn Fn(usize) -> String, json: &mut Json) {
    let Node::Object(elements) = body else { return body.write(json, link) };
    json.text().push(b'{');
    let (kind, rest): (Vec<_>, Vec<_>) = elements.iter().filter(|(name, _)| *name != "id").partition(|(name, _)| *name == "resourceType");
    for (name, node) in kind {
        write_text(name, json.text());
        json.text().push(b':');
        node.write(json, link);
        json.text().push(b',');
    }
    json.text().extend_from_slice(b"\"id\":");
    write_text(id, json.text());
    for (name, node) in rest {
        let out = json.text();
        out.push(b',');
        write_text(name, out);
        out.push(b':');
        node.write(json, link);
    }
    json.text().push(b'}');
}

/// Two entries that write one resource, which fails a whole transaction (<https://hl7.org/fhir/R4/http.html#trules>).
pub fn conflict(saves: &Saves, steps: &[Step]) -> Option<(usize, usize)> {
    let writing: Vec<(usize, &Save, &Step)> =
        saves.entries.iter().zip(steps).enumerate().filter(|(_, (_, step))| step.writes()).map(|(n, (save, step))| (n, save, step)).collect();
    for (place, (n, save, step)) in writing.iter().enumerate() {
        for (m, other, other_step) in &writing[..place] {
            let same_id = save.resource_type == other.resource_type && step.id().is_some() && step.id() == other_step.id();
            let plain = save.mode == SaveMode::Create || other.mode == SaveMode::Create;
            if same_id || (!plain && save.same_resource(other)) {
                return Some((*m, *n));
            }
        }
    }
    None
}

/// Appends the Bundle's JSON text and gives the indexes of the entries that it holds, in its order: its answer has the same.
/// `chosen` picks the entries; `link` gives the reference for each entry of `saves`.
pub fn write_bundle(
    kind: BundleKind,
    saves: &Saves,
    steps: &[Step],
    delivery: DeliveryId,
    chosen: &dyn Fn(usize) -> bool,
    link: &dyn Fn(usize) -> String,
    json: &mut Json,
) -> Vec<usize> {
    json.text().extend_from_slice(match kind {
        BundleKind::Transaction => br#"{"resourceType":"Bundle","type":"transaction""#,
        BundleKind::Batch => br#"{"resourceType":"Bundle","type":"batch""#,
    });
    let mut sent = Vec::new();
    for (n, (save, step)) in saves.entries.iter().zip(steps).enumerate() {
        let Some(request) = step.request(save).filter(|_| chosen(n)) else { continue };
        let out = json.text();
        // FHIR has no empty arrays.
        out.extend_from_slice(if sent.is_empty() { b",\"entry\":[{" } else { b",{" });
        if !matches!(step, Step::Delete { .. } | Step::DeleteWhere) {
            // A PATCH needs one, too: without it, validators refuse relative references in what it carries.
            out.extend_from_slice(b"\"fullUrl\":");
            write_text(&entry_url(delivery, n), out);
            out.extend_from_slice(b",\"resource\":");
            step.write_resource(save, link, json);
            json.text().push(b',');
        }
        let out = json.text();
        out.extend_from_slice(b"\"request\":{\"method\":");
        write_text(request.method, out);
        out.extend_from_slice(b",\"url\":");
        write_text(&request.url, out);
        for (name, value) in [("ifNoneExist", &request.if_none_exist), ("ifMatch", &request.if_match)] {
            if let Some(value) = value {
                out.push(b',');
                write_text(name, out);
                out.push(b':');
                write_text(value, out);
            }
        }
        out.extend_from_slice(b"}}");
        sent.push(n);
    }
    json.text().extend_from_slice(if sent.is_empty() { b"}" } else { b"]}" });
    sent
}

/// The transaction of a message whose resources are all still unknown to the server, for people (`kiln map`).
/// A `merge` shows as the conditional update that it would be; ids of `put by` are made without the site's secret.
pub fn display_bundle(saves: &Saves) -> Value {
    // Nobody asked the server, so a merge is shown as the resource that it would create.
    let entries = saves.entries.iter().map(|save| Save { body: save.creation(), ..save.clone() }).collect();
    let saves = &Saves { entries };
    let delivery = DeliveryId { message: MessageId(0), number: 0 };
    let steps = plan(saves, &[0; 32], &[]);
    let mut out = Json::default();
    let link = |n: usize| links(saves, &steps, delivery, n);
    write_bundle(BundleKind::Transaction, saves, &steps, delivery, &|_| true, &link, &mut out);
    serde_json::from_slice(&out.into_vec()).expect("a Bundle that was just written is JSON")
}

/// The reference for an entry within a transaction; empty for an index that no entry has.
pub fn links(saves: &Saves, steps: &[Step], delivery: DeliveryId, entry: usize) -> String {
    match (saves.entries.get(entry), steps.get(entry)) {
        (Some(save), Some(step)) => step.reference(save, delivery, entry),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::Identity;
    use serde_json::json;

    const DELIVERY: DeliveryId = DeliveryId { message: MessageId(1), number: 0 };

    fn save(resource_type: &'static str, mode: SaveMode, values: &[&str]) -> Save {
        let mut body = vec![("resourceType", Node::Text(resource_type.to_owned()))];
        if resource_type == "Encounter" {
            body.push(("subject", Node::Object(vec![("reference", Node::Link(0))])));
        }
        Save {
            name: format!("{}-{}", resource_type.to_lowercase(), values.join("-")),
            resource_type,
            mode,
            identity: values.iter().map(|v| Identity { system: "urn:s".to_owned(), value: (*v).to_owned() }).collect(),
            body: Node::Object(body),
            deletes: Vec::new(),
            merge: Vec::new(),
            initial: None,
        }
    }

    fn bundle(entries: Vec<Save>, known: &[Option<KnownId>]) -> Value {
        let saves = Saves { entries };
        let steps = plan(&saves, &[1; 32], known);
        let mut out = Json::default();
        write_bundle(BundleKind::Transaction, &saves, &steps, DELIVERY, &|_| true, &|n| links(&saves, &steps, DELIVERY, n), &mut out);
        serde_json::from_slice(&out.into_vec()).expect("JSON")
    }

    /// The request of the first entry and the subject of the last.
    fn requests(patient: Save, known: Option<KnownId>) -> (Value, Value) {
        let made = bundle(vec![patient, save("Encounter", SaveMode::Create, &[])], &[known, None]);
        let entries = made["entry"].as_array().expect("entries");
        let own = if entries.len() == 2 { entries[0]["request"].clone() } else { Value::Null };
        (own, entries[entries.len() - 1]["resource"]["subject"]["reference"].clone())
    }

    #[test]
    fn each_mode_has_its_request_and_its_reference() {
        let known = || Some(KnownId { id: "7".to_owned(), etag: Some("W/\"3\"".to_owned()) });
        let urn = json!(entry_url(DELIVERY, 0));
        let made = put_id(&[1; 32], "Patient", &save("Patient", SaveMode::Put, &["a"]).identity);
        let query = "identifier=urn%3As%7Ca";
        let by = |mode| save("Patient", mode, &["a"]);
        for (mode, known, request, reference) in [
            (SaveMode::Create, None, json!({"method": "POST", "url": "Patient"}), urn.clone()),
            (SaveMode::CreateIfNone, None, json!({"method": "POST", "url": "Patient", "ifNoneExist": query}), urn.clone()),
            (SaveMode::CreateIfNone, known(), Value::Null, json!("Patient/7")),
            (SaveMode::Update, None, json!({"method": "PUT", "url": format!("Patient?{query}")}), urn.clone()),
            (SaveMode::Update, known(), json!({"method": "PUT", "url": "Patient/7", "ifMatch": "W/\"3\""}), json!("Patient/7")),
            (SaveMode::Put, None, json!({"method": "PUT", "url": format!("Patient/{made}")}), json!(format!("Patient/{made}"))),
            (SaveMode::Find, None, Value::Null, json!(format!("Patient?{query}"))),
            (SaveMode::Find, known(), Value::Null, json!("Patient/7")),
            (SaveMode::Delete, None, json!({"method": "DELETE", "url": format!("Patient?{query}")}), json!(format!("Patient?{query}"))),
            (SaveMode::Delete, known(), json!({"method": "DELETE", "url": "Patient/7"}), json!("Patient/7")),
        ] {
            assert_eq!(requests(by(mode), known.clone()), (request, reference), "{mode:?} {known:?}");
        }
    }

    #[test]
    fn a_put_carries_its_id_second() {
        let made = bundle(vec![save("Patient", SaveMode::Put, &["a"])], &[]);
        let resource = made["entry"][0]["resource"].as_object().expect("a resource");
        assert_eq!(resource.keys().collect::<Vec<_>>(), ["resourceType", "id"]);
        assert_eq!(made["entry"][0]["request"]["url"], json!(format!("Patient/{}", resource["id"].as_str().expect("id"))));
    }

    #[test]
    fn a_type_without_identifier_gets_its_id_from_the_identity() {
        for mode in [SaveMode::CreateIfNone, SaveMode::Update, SaveMode::Merge, SaveMode::Patch, SaveMode::Put] {
            let made = bundle(vec![save("Provenance", mode, &["a"])], &[]);
            let url = made["entry"][0]["request"]["url"].as_str().expect("url").to_owned();
            assert!(url.starts_with("Provenance/") && made["entry"][0]["request"]["method"] == json!("PUT"), "{url}");
        }
    }

    #[test]
    fn two_entries_of_one_resource_are_seen() {
        let pair = |a: Save, b: Save, known: &[Option<KnownId>]| {
            let saves = Saves { entries: vec![a, b] };
            conflict(&saves, &plan(&saves, &[0; 32], known))
        };
        let by = |mode, values: &[&str]| save("Patient", mode, values);
        assert_eq!(pair(by(SaveMode::Update, &["a", "b"]), by(SaveMode::Merge, &["b"]), &[]), Some((0, 1)));
        assert_eq!(pair(by(SaveMode::Update, &["a"]), by(SaveMode::Update, &["b"]), &[]), None);
        assert_eq!(pair(by(SaveMode::Create, &["a"]), by(SaveMode::Create, &["a"]), &[]), None);
        assert_eq!(pair(by(SaveMode::Find, &["a"]), by(SaveMode::Update, &["a"]), &[]), None);
        let seven = || Some(KnownId { id: "7".to_owned(), etag: None });
        assert_eq!(pair(by(SaveMode::Update, &["a"]), by(SaveMode::Update, &["b"]), &[seven(), seven()]), Some((0, 1)));
    }

    #[test]
    fn nothing_to_write_is_a_bundle_without_entries() {
        assert_eq!(display_bundle(&Saves::default()), json!({"resourceType": "Bundle", "type": "transaction"}));
    }
}
