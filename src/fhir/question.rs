//! What a route asks before it maps: searches at a FHIR server, and what they found (<https://hl7.org/fhir/R4/search.html>).

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One search. Its parameters may hold patient data: they belong into a form or the journal, never into a log line.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    /// Where the target goes on for that; only the target that gave it can read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// Where a search goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Resources are patient data: they print as a placeholder.
impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{} found>", self.matches.len())
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

    /// All resources that were found or came along.
    pub fn resources(&self) -> impl Iterator<Item = &Value> {
        self.entries.iter().filter_map(|entry| entry.answer.as_ref()).flat_map(|(_, found)| found.matches.iter().chain(&found.included))
    }

    /// The form that the journal keeps.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
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
