//! What a route asks before it maps: each question in turn, from the message and from what was found before.

use crate::fhir::{Node, Question, SEARCH_PREFIXES, Type, escape_searched};
use crate::hl7v2::{Message, Moment};
use crate::route::asking::{AskX, ParameterX, SearchedX, Several};
use crate::route::decimal::whole;
use crate::route::program::{Asking, Context, RouteId, RouteSet, Stop};
use crate::route::run::value::Value;
use crate::route::run::{Env, Run};
use serde_json::Value as Json;
use std::sync::Arc;
use std::time::Duration;

impl RouteSet {
    /// The question that comes after those that `context.answers` answers; `None` after the last.
    ///
    /// # Errors
    /// A [`Stop`] where an answer is not what the route can go on with (`$none: refuse`, `$several: refuse`).
    pub fn question(&self, route: RouteId, message: &Message, context: &Context<'_>) -> Result<Option<Asking>, Stop> {
        match self.start(route, message, context) {
            Some(run) => run.question(),
            None => Ok(None),
        }
    }
}

impl<'m> Run<'m> {
    fn question(mut self) -> Result<Option<Asking>, Stop> {
        self.check_answers()?;
        let route = self.route;
        let Some(ask) = route.asks.get(self.context.answers.entries.len()) else { return Ok(None) };
        let question = self.asked_of(ask);
        match self.stop.take() {
            Some(stop) => Err(stop),
            None => Ok(Some(Asking {
                name: Arc::clone(&ask.name),
                target: Arc::clone(&ask.target),
                question,
                cache: ask.cache_seconds.map(Duration::from_secs),
                timeout: ask.timeout_seconds.map(Duration::from_secs),
            })),
        }
    }

    /// Stops where an answer is not what the route can go on with.
    pub(crate) fn check_answers(&self) -> Result<(), Stop> {
        let route = self.route;
        for (n, ask) in route.asks.iter().enumerate() {
            let found = self.context.answers.found(n).map(|found| found.matches.len());
            let (kind, what) = match found {
                Some(0) if ask.refuses_none => ("none-found", "no".to_owned()),
                Some(many) if many > 1 && ask.several == Several::Refuse => ("several-found", many.to_string()),
                _ => continue,
            };
            let (resource, target) = (ask.resource.name(), &ask.target);
            let text = format!("`{}` found {what} {resource} at {target}, and the route wants one: put it right there and replay this message", ask.name);
            return Err(Stop { kind, text, places: ask.places.clone(), unknown: Vec::new(), line: ask.line.to_string() });
        }
        Ok(())
    }

    /// Stops where questions of the route have no answers: a run asks nobody itself.
    pub(crate) fn check_answered(&self) -> Result<(), Stop> {
        self.check_answers()?;
        let Some(ask) = self.route.asks.get(self.context.answers.entries.len()) else { return Ok(()) };
        let text = format!("`{}` asks {} for {}, and there is no answer to it here", ask.name, ask.target, ask.resource.name());
        Err(Stop { kind: "not-asked", text, places: Vec::new(), unknown: Vec::new(), line: ask.line.to_string() })
    }

    /// The search; nothing if its condition does not hold, or the message has a value for none of its parameters.
    fn asked_of(&mut self, ask: &'m AskX) -> Option<Question> {
        let env = Env::root();
        if let Some(when) = &ask.when
            && !self.holds(when, &env)
        {
            return None;
        }
        let continues = ask.continues.as_ref().map(|x| self.first_text(x, &env)).filter(|text| !text.is_empty());
        let mut parameters = Vec::new();
        let (mut constant, mut alive) = (true, false);
        for parameter in &ask.parameters {
            match &parameter.value {
                SearchedX::Constant(text) => parameters.push((parameter.name.clone(), text.clone())),
                SearchedX::X { x, made } => {
                    constant = false;
                    let values = self.eval(x, &env);
                    let contributes = values.alive;
                    let texts: Vec<String> = values.into_iter().filter_map(|value| self.searched_text(&value, parameter, *made)).collect();
                    if !texts.is_empty() {
                        alive |= contributes;
                        parameters.push((parameter.name.clone(), texts.join(",")));
                    }
                }
            }
        }
        if !(alive || constant || continues.is_some()) {
            return None;
        }
        // Whoever says how many, and says it so that nobody can read it, does not want all of them.
        let at_most = ask.count.as_ref().map(|x| self.first_text(x, &env)).filter(|text| !text.is_empty()).map(|text| whole(&text).unwrap_or(1).max(1));
        Some(Question { resource_type: ask.resource.name().to_owned(), parameters, at_most, continues })
    }

    fn first_text(&mut self, x: &'m crate::route::code::X, env: &Env<'_, 'm>) -> String {
        let value = self.eval(x, env).first();
        value.map(|value| self.text_of(&value).trim().to_owned()).unwrap_or_default()
    }

    /// One value as a search has it.
    fn searched_text(&mut self, value: &Value<'m>, parameter: &ParameterX, made: bool) -> Option<String> {
        let text = match value {
            Value::Node(node) => return of_node(&node.1),
            Value::Fhir(json, ty) => return of_json(json, *ty),
            other => self.text_of(other).trim().to_owned(),
        };
        // A system without a value, `http://hosp.example/mrn|`, finds all that have one there: whoever left the value out meant nobody.
        if text.is_empty() || parameter.kind == "token" && made && text.ends_with('|') {
            return None;
        }
        Some(match parameter.kind {
            "date" => escape_searched(&self.searched_date(&text), false),
            "token" | "quantity" | "special" => escape_searched(&text, made),
            _ => escape_searched(&text, false),
        })
    }

    /// `19800131` as FHIR writes dates; a prefix stays before it. What is no time of v2 stays as it is.
    fn searched_date(&mut self, text: &str) -> String {
        let (prefix, bare) = match text.get(..2) {
            Some(prefix) if SEARCH_PREFIXES.contains(&prefix) => (prefix, text.get(2..).unwrap_or_default()),
            _ => ("", text),
        };
        match Moment::read(bare) {
            Some(moment) => {
                let offset = if moment.has_time() { Some(self.offset_for(&moment)) } else { None };
                format!("{prefix}{}", moment.fhir_datetime(offset))
            }
            None => text.to_owned(),
        }
    }
}

/// `system|value` of an Identifier, `system|code` of a Coding, the text of a time.
fn of_node(node: &Node) -> Option<String> {
    match node {
        Node::Text(text) => Some(escape_searched(text, false)),
        Node::Object(_) => {
            let part = |name: &str| node.get(name).and_then(Node::as_text).unwrap_or_default();
            token(part("system"), if part("code").is_empty() { part("value") } else { part("code") })
        }
        _ => None,
    }
}

fn of_json(json: &Json, ty: Type) -> Option<String> {
    let part = |of: &Json, name: &str| of.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
    match (json, ty.name()) {
        (Json::String(text), _) => (!text.is_empty()).then(|| escape_searched(text, false)),
        (Json::Number(n), _) => Some(n.to_string()),
        (Json::Bool(b), _) => Some(b.to_string()),
        (_, "Identifier") => token(&part(json, "system"), &part(json, "value")),
        (_, "Coding") => token(&part(json, "system"), &part(json, "code")),
        (_, "CodeableConcept") => {
            let codings = json.get("coding").and_then(Json::as_array).into_iter().flatten();
            let all: Vec<String> = codings.filter_map(|coding| token(&part(coding, "system"), &part(coding, "code"))).collect();
            (!all.is_empty()).then(|| all.join(","))
        }
        (_, "Reference") => Some(part(json, "reference")).filter(|text| !text.is_empty()),
        _ => Some(part(json, "id")).filter(|id| !id.is_empty()).map(|id| format!("{}/{id}", ty.name())),
    }
}

/// A value within its system; nothing without a value, since a system alone finds everybody who has one there.
fn token(system: &str, value: &str) -> Option<String> {
    match (system, value.trim()) {
        (_, "") => None,
        ("", value) => Some(escape_searched(value, false)),
        (system, value) => Some(format!("{}|{}", escape_searched(system, false), escape_searched(value, false))),
    }
}
