//! Saves written as JSON, for the tests of targets.

#![allow(dead_code, reason = "each test takes what it needs")]

use kiln::exchange::{DeliveryId, MessageId, Secret};
use kiln::fhir::{Identity, KnownId, ListMerge, Node, Save, SaveMode, Saves};
use kiln::target::{FhirConfig, Job, PatchFormat, Receipt, Saved, Sending, Setback, Target, TargetConfig};
use serde_json::Value;
use std::time::Duration;

pub(crate) const SECRET: [u8; 32] = [42; 32];

/// A body from JSON; a reference `"@1"` is a link to entry 1. Element names leak, which a test may.
pub(crate) fn node(value: &Value) -> Node {
    match value {
        Value::Object(o) => Node::Object(o.iter().map(|(k, v)| (&*k.clone().leak(), node(v))).collect()),
        Value::Array(a) => Node::List(a.iter().map(node).collect()),
        Value::String(s) => s.strip_prefix('@').and_then(|n| n.parse().ok()).map_or_else(|| Node::Text(s.clone()), Node::Link),
        Value::Number(n) => Node::Number(n.to_string()),
        Value::Bool(b) => Node::Bool(*b),
        Value::Null => Node::List(Vec::new()),
    }
}

/// One entry; `identity` is `system|value`, and stands in the body as an identifier where the type has one.
pub(crate) fn save(mode: SaveMode, resource_type: &'static str, identity: &[&str], mut body: Value) -> Save {
    let identity: Vec<Identity> = identity
        .iter()
        .map(|i| i.split_once('|').expect("system|value"))
        .map(|(system, value)| Identity { system: system.to_owned(), value: value.to_owned() })
        .collect();
    let object = body.as_object_mut().expect("an object");
    if !identity.is_empty() && kiln::fhir::has_identifier(resource_type) && !object.contains_key("identifier") {
        let list = identity.iter().map(|i| serde_json::json!({"system": i.system, "value": i.value})).collect();
        object.shift_insert(0, "identifier".to_owned(), Value::Array(list));
    }
    object.shift_insert(0, "resourceType".to_owned(), Value::String(resource_type.to_owned()));
    let merge = if mode.keeps_the_rest() { vec![("identifier", ListMerge::Union)] } else { Vec::new() };
    Save { name: resource_type.to_lowercase(), resource_type, mode, identity, body: node(&body), deletes: Vec::new(), merge, initial: None }
}

/// A delivery, and what the engine would know about it.
pub(crate) struct Delivery {
    pub(crate) number: u64,
    pub(crate) saves: Saves,
    pub(crate) drafts: Vec<kiln::hl7v2::Draft>,
    pub(crate) known: Vec<Option<KnownId>>,
    pub(crate) done: Vec<Saved>,
    pub(crate) after_ambiguous: bool,
    pub(crate) send: Sending,
}

impl Delivery {
    pub(crate) fn new(number: u64, entries: Vec<Save>) -> Self {
        let known = entries.iter().map(|_| None).collect();
        Self { number, saves: Saves { entries }, drafts: Vec::new(), known, done: Vec::new(), after_ambiguous: false, send: Sending::Transaction }
    }

    pub(crate) fn messages(number: u64, drafts: &[(&str, &str)]) -> Self {
        let drafts = drafts
            .iter()
            .map(|(place, text)| kiln::hl7v2::Draft { place: (*place).to_owned(), bytes: text.as_bytes().to_vec(), charset: kiln::hl7v2::Charset::UTF_8 })
            .collect();
        Self { drafts, ..Self::new(number, Vec::new()) }
    }

    pub(crate) fn send(mut self, send: Sending) -> Self {
        self.send = send;
        self
    }

    pub(crate) fn known(mut self, entry: usize, id: &str, etag: Option<&str>) -> Self {
        self.known[entry] = Some(KnownId { id: id.to_owned(), etag: etag.map(str::to_owned) });
        self
    }

    pub(crate) fn ambiguous(mut self) -> Self {
        self.after_ambiguous = true;
        self
    }

    pub(crate) async fn to(&self, target: &Target) -> Result<Receipt, Setback> {
        let delivery = DeliveryId { message: MessageId(self.number), number: 0 };
        let (saves, drafts, known, done) = (&self.saves, &self.drafts, &self.known, &self.done);
        let job = Job { delivery, saves, drafts, known, done, after_ambiguous: self.after_ambiguous, sent: &[], answers: &[] };
        target.deliver(job, self.send).await
    }
}

pub(crate) fn fhir_target(base: &str, timeout: Duration) -> Target {
    patching_target(base, timeout, Some(PatchFormat::Json))
}

pub(crate) fn patching_target(base: &str, timeout: Duration, patch: Option<PatchFormat>) -> Target {
    let config = FhirConfig { timeout, patch, ..FhirConfig::new(base, Secret::new(SECRET)) };
    Target::open(TargetConfig::Fhir(config)).expect("the target opens")
}
