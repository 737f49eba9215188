//! Answers to a route's questions for commands that run without a daemon: from a file beside the message, or from the targets themselves.

use crate::cli::fhir_target;
use crate::cli::paint::err;
use crate::fhir::{Answered, Answers, Found};
use crate::hl7v2::Message;
use crate::route::{Asking, Context, RouteId, RouteSet};
use crate::site::words;
use crate::target::FhirTarget;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// What the file beside `NAME.hl7` is called.
const BESIDE: &str = "answers.json";

/// What follows a last match where a target was asked by hand: nobody can go on from here.
const MORE: &str = "more";

/// Who answers.
pub(crate) enum Source {
    /// Nobody: a route that asks stops.
    Nobody,
    /// A file.
    Canned(Canned),
    /// The targets of the site.
    Live(Box<Live>),
}

/// Answers of a file, by the questions' names.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Canned(BTreeMap<String, Found>);

/// How a command is told who answers.
#[derive(clap::Args)]
pub(crate) struct AnswerArgs {
    /// Answers to the routes' questions: `{ "found": [ resources ] }` by the names in `ask`; else NAME.answers.json beside NAME.hl7
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
    /// Ask the site's targets what the routes want to know
    #[arg(long, conflicts_with = "answers")]
    ask: bool,
}

impl AnswerArgs {
    /// Who answers for the messages of a file.
    ///
    /// # Errors
    /// A file that cannot be read, in a sentence.
    pub(crate) fn source(&self, message: &Path, config: &Path) -> Result<Source, String> {
        if self.ask {
            return Live::new(config).map(|live| Source::Live(Box::new(live)));
        }
        let canned = match &self.answers {
            Some(file) => Some(Canned::of_file(file)?),
            None => Canned::beside(message)?,
        };
        Ok(canned.map_or(Source::Nobody, Source::Canned))
    }
}

/// Targets that are asked.
pub(crate) struct Live {
    runtime: tokio::runtime::Runtime,
    config: PathBuf,
    targets: HashMap<String, FhirTarget>,
}

impl Canned {
    /// The file beside a message, if there is one.
    ///
    /// # Errors
    /// It cannot be read, in a sentence.
    pub(crate) fn beside(message: &Path) -> Result<Option<Self>, String> {
        let file = message.with_extension(BESIDE);
        if file.is_file() { Self::of_file(&file).map(Some) } else { Ok(None) }
    }

    /// What was found before.
    pub(crate) fn of(all: impl Iterator<Item = Answers>) -> Self {
        let found = |entry: Answered| Some((entry.name, entry.answer?.1));
        Self(all.flat_map(|answers| answers.entries).filter_map(found).collect())
    }

    /// Reads `{ "found": [ resources ] }`; instead of the list a searchset Bundle, or `{ "matches": [], "included": [], "total": 12, "more": "..." }`.
    ///
    /// # Errors
    /// It cannot be read, in a sentence.
    pub(crate) fn of_file(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {}", file.display(), words(&e)))?;
        let read = || -> Result<Self, String> {
            let value: Value = serde_json::from_str(&text).map_err(|e| format!("no JSON: {e}"))?;
            let Value::Object(object) = value else { return Err("answers are an object: { \"found\": [ ... ] } with the names of the questions".to_owned()) };
            object
                .into_iter()
                .map(|(name, answer)| found(answer).map(|found| (name.clone(), found)).map_err(|what| format!("{name}: {what}")))
                .collect::<Result<_, _>>()
                .map(Self)
        };
        read().map_err(|what| format!("{}: {what}", file.display()))
    }
}

fn found(value: Value) -> Result<Found, String> {
    match value {
        Value::Array(matches) => Ok(Found { matches, ..Found::default() }),
        Value::Object(bundle) if bundle.get("resourceType").and_then(Value::as_str) == Some("Bundle") => {
            let mut found = Found { total: bundle.get("total").and_then(Value::as_u64), ..Found::default() };
            for entry in bundle.get("entry").and_then(Value::as_array).into_iter().flatten() {
                found.base = found.base.or_else(|| Found::base_of(entry));
                let Some(resource) = entry.get("resource") else { continue };
                match entry.pointer("/search/mode").and_then(Value::as_str) {
                    None | Some("match") => found.matches.push(resource.clone()),
                    Some("include") => found.included.push(resource.clone()),
                    Some(_) => {}
                }
            }
            Ok(found)
        }
        other => serde_json::from_value(other).map_err(|_| "an answer is a list of resources, a Bundle, or { \"matches\": [ ... ] }".to_owned()),
    }
}

impl Live {
    /// Asks the targets of that site file.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn new(config: &Path) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| words(&e))?;
        Ok(Self { runtime, config: config.to_path_buf(), targets: HashMap::new() })
    }

    fn ask(&mut self, asking: &Asking) -> Result<Found, String> {
        let name = &*asking.target;
        if !self.targets.contains_key(name) {
            let target = FhirTarget::open(fhir_target::config(name, &self.config)?).map_err(|e| format!("target {name}: {e}"))?;
            self.targets.insert(name.to_owned(), target);
        }
        let (Some(target), Some(question)) = (self.targets.get(name), &asking.question) else { return Ok(Found::default()) };
        let asked = self.runtime.block_on(target.ask(question, None));
        let mut found = asked.map_err(|setback| format!("{name}: {}", setback.summary))?;
        found.more = found.resume.is_some().then(|| MORE.to_owned());
        Ok(found)
    }
}

impl Source {
    /// Answers all questions of a route, as far as somebody can; where nobody does, the run says which is open.
    /// Where the route stops at an answer, the run stops there as well.
    pub(crate) fn answers(&mut self, set: &RouteSet, route: RouteId, message: &Message, context: &Context<'_>) -> Answers {
        let mut answers = Answers::default();
        while let Ok(Some(asking)) = set.question(route, message, &Context { answers: &answers, ..*context }) {
            let answer = match (&asking.question, &mut *self) {
                (None, _) => None,
                (Some(_), Self::Nobody) => break,
                (Some(question), Self::Canned(canned)) => match canned.0.get(&*asking.name) {
                    Some(found) => Some((question.clone(), found.clone())),
                    None => break,
                },
                (Some(question), Self::Live(live)) => match live.ask(&asking) {
                    Ok(found) => Some((question.clone(), found)),
                    Err(what) => {
                        err!("kiln: `{}`: {what}", asking.name);
                        break;
                    }
                },
            };
            answers.entries.push(Answered { name: asking.name.to_string(), target: asking.target.to_string(), answer });
        }
        answers
    }
}
