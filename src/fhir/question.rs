//! What a route asks before it maps: searches at a FHIR server, and what they found (<https://hl7.org/fhir/R4/search.html>).

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One search. Its parameters may hold patient data: they belong into a form or the journal, never into a log line.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Question {
    /// The resource type that is searched: `Patient`.
    pub resource_type: String,
    /// Parameters and values in the order of the route's lines, escaped as searches want it, not percent-encoded.
    pub parameters: Vec<(String, String)>,
    /// At most so many matches (`_count`); `None` wants all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<usize>,
    /// Where an earlier answer ended: the text that [`Found::more`] gave. The parameters are then those of the earlier question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<String>,
}

impl Question {
    /// The question as a search is written, for people: `Patient?family=Meier&_count=5`. Holds patient data.
    pub fn written(&self) -> String {
        let mut text = self.resource_type.clone();
        let count = self.at_most.map(|n| ("_count".to_owned(), n.to_string()));
        for (n, (name, value)) in self.parameters.iter().chain(&count).enumerate() {
            text.push(if n == 0 { '?' } else { '&' });
            text.push_str(&format!("{name}={value}"));
        }
        if let Some(pointer) = &self.continues {
            text.push_str(&format!(" (continues {pointer})"));
        }
        text
    }
}

/// Parameters are patient data: they print as a placeholder.
impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{} by {} parameters>", self.resource_type, self.parameters.len())
    }
}

/// What a search found.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Found {
    /// The matches, in the server's order.
    #[serde(default)]
    pub matches: Vec<Value>,
    /// Resources that came along (`_include`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub included: Vec<Value>,
    /// How many matches there are in all, if the server says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// A name for what comes behind the last match, if there is more: what `more()` yields in routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<String>,
    /// The address of the server's resources, as its answer names them: absolute references below it are the server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Where the target goes on for that; only the target that gave it can read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// Where a search goes on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The page to be read: its address on the server, or how many matches come before it; neither is the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// How many matches come before the page, where the server gives no links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
    /// How many matches of that page were given already.
    #[serde(default)]
    pub skip: usize,
}

/// A link repeats the parameters of its search: it prints as a placeholder.
impl std::fmt::Debug for Resume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<where a search goes on>")
    }
}

/// Resources are patient data: they print as a placeholder.
impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{} found>", self.matches.len())
    }
}

impl Found {
    /// The address of the server's resources by an entry of its searchset: what stands before `Patient/7` in `fullUrl` (FHIR R4, bundle.html#references).
    pub fn base_of(entry: &Value) -> Option<String> {
        let part = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str);
        let url = part("/fullUrl").filter(|url| url.contains("://"))?;
        let place = format!("/{}/{}", part("/resource/resourceType")?, part("/resource/id")?);
        url.strip_suffix(&*place).map(str::to_owned)
    }

    /// What an absolute reference in the answer means there, written without the server's address: `Patient/7`. A relative one stays as it is; `None` leads to
    /// another server, or the answer does not say where it comes from.
    pub fn local<'r>(&self, reference: &'r str) -> Option<&'r str> {
        if !(reference.contains("://") || reference.starts_with("urn:")) {
            return Some(reference);
        }
        reference.strip_prefix(self.base.as_deref()?.trim_end_matches('/'))?.strip_prefix('/')
    }
}

/// The answers to a route's questions, in the order of its `ask`.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Answers {
    /// One for each question that was come to.
    pub entries: Vec<Answered>,
}

/// One question of a route, and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// The question's name in the route.
    pub name: String,
    /// The target that was asked.
    #[serde(default)]
    pub target: String,
    /// What was asked and found; nothing if its condition did not hold, or none of its parameters had a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<(Question, Found)>,
}

impl Answers {
    /// No answers: for routes that ask nothing.
    pub const NONE: &'static Answers = &Answers { entries: Vec::new() };

    /// What was found for question `n`.
    pub fn found(&self, n: usize) -> Option<&Found> {
        self.entries.get(n).and_then(|entry| entry.answer.as_ref()).map(|(_, found)| found)
    }

    /// All resources of an answer: what was found, and what came along.
    pub fn resources_of(answered: &Answered) -> impl Iterator<Item = &Value> {
        answered.answer.iter().flat_map(|(_, found)| found.matches.iter().chain(&found.included))
    }

    /// The form that the journal keeps.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts, numbers and trees are JSON")
    }

    /// Reads what the journal keeps; `None` if it is no such thing.
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// Escapes a value so that a server takes it for one value (<https://hl7.org/fhir/R4/search.html#escaping>). `keeps_bar`: a bar divides system and code.
pub fn escape_searched(text: &str, keeps_bar: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, ',' | '$' | '\\') || (c == '|' && !keeps_bar) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_patient_data() {
        let question = Question {
            resource_type: "Patient".to_owned(),
            parameters: vec![("family".to_owned(), "Marked".to_owned())],
            at_most: Some(5),
            continues: Some("Marked".to_owned()),
        };
        let resume = Resume { link: Some("http://server/Patient?family=Marked".to_owned()), offset: None, skip: 0 };
        let found = Found { matches: vec!["Marked".into()], more: Some("Marked".to_owned()), resume: Some(resume.clone()), ..Found::default() };
        let entry = Answered { name: "found".to_owned(), target: "main".to_owned(), answer: Some((question.clone(), found)) };
        let printed = format!("{question:?} {resume:?} {:?}", Answers { entries: vec![entry] });
        assert!(!printed.contains("Marked"), "{printed}");
        assert!(printed.contains("main"), "{printed}");
    }

    #[test]
    fn only_a_servers_own_references_are_local() {
        let found = |base: &str| Found { base: Some(base.to_owned()), ..Found::default() };
        for base in ["http://here.example/fhir", "http://here.example/fhir/"] {
            assert_eq!(found(base).local("http://here.example/fhir/Patient/7"), Some("Patient/7"));
            assert_eq!(found(base).local("Patient/7"), Some("Patient/7"));
            assert_eq!(found(base).local("http://here.example/fhir2/Patient/7"), None);
            assert_eq!(found(base).local("http://there.example/fhir/Patient/7"), None);
            assert_eq!(found(base).local("urn:uuid:7b0f9a4e-5f0d-4c63-9d39-1f6a2f7f5a52"), None);
        }
        assert_eq!(Found::default().local("http://here.example/fhir/Patient/7"), None);
    }
}
