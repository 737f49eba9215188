//! What `kiln explain` and `kiln coverage` look at: a message, and how each route that takes it came to its result.

use crate::cli::answers::Source;
use crate::cli::route_choice::{self, Chosen};
use crate::diagnostic::Sources;
use crate::exchange::{MessageId, Timestamp};
use crate::fhir::Answers;
use crate::hl7v2::Message;
use crate::route::{Lineage, RouteId, RouteSet, Spot};
use crate::site::ListenerSite;
use std::sync::Arc;

/// A message with its runs.
pub(crate) struct Subject {
    /// The file, or `message 1042`.
    pub name: String,
    /// The message.
    pub message: Message,
    /// One per route.
    pub runs: Vec<Run>,
    /// Why there are none, or what was supposed.
    pub notes: Vec<String>,
}

/// One route over the message.
pub(crate) struct Run {
    /// The set that the route is of.
    pub set: Arc<RouteSet>,
    /// Its files.
    pub sources: Arc<Sources>,
    /// The route.
    pub route: RouteId,
    /// What was recorded.
    pub lineage: Lineage,
    /// What its questions found.
    pub answers: Answers,
}

impl Subject {
    /// Runs the routes that want the message, as if it had just come by the listener.
    pub(crate) fn of(name: String, message: Message, chosen: &Chosen, source: &mut Source) -> Self {
        let listener = chosen.listener.as_ref();
        let mut subject = Self { name, message, runs: Vec::new(), notes: Vec::new() };
        let routes = match chosen.only {
            Some(route) => vec![route],
            None => subject.wanting(&chosen.set, listener),
        };
        let received = Timestamp(jiff::Timestamp::now().as_millisecond());
        for route in routes {
            let context = route_choice::context(listener, received, MessageId(1), Answers::NONE);
            // What stops the questions stops the run as well, which says it.
            let answers = source.answers(&chosen.set, route, &subject.message, &context);
            subject.run(&chosen.set, &chosen.sources, route, listener, received, MessageId(1), &answers);
        }
        subject
    }

    /// The routes that want the message; says why where there are none.
    pub(crate) fn wanting(&mut self, set: &RouteSet, listener: Option<&ListenerSite>) -> Vec<RouteId> {
        let matches = set.matching(listener.map_or("", |l| &l.socket.name), &self.message);
        if matches.taken.is_empty() {
            let why = if matches.filtered { "a route names its type, but the route's `when` is false" } else { "no route names its type" };
            self.notes.push(format!("no route takes this {}: {why}", self.message.message_type()));
        }
        matches.taken
    }

    /// One route, recorded.
    pub(crate) fn run(
        &mut self,
        set: &Arc<RouteSet>,
        sources: &Arc<Sources>,
        route: RouteId,
        listener: Option<&ListenerSite>,
        received: Timestamp,
        number: MessageId,
        answers: &Answers,
    ) {
        let context = route_choice::context(listener, received, number, answers);
        let mut lineage = set.lineage(route, &self.message, &context);
        // As `kiln map` does: without a site nobody says whose numbers an identifier without an authority are.
        if listener.is_none()
            && lineage.stop.as_ref().is_some_and(|s| s.kind == "no-identity")
            && let Some(sender) = route_choice::sender(&self.message)
        {
            let supposed = set.lineage(route, &self.message, &crate::route::Context { authority: Some(&sender), ..context });
            if supposed.stop.is_none() {
                lineage = supposed;
                self.notes.push(format!("no authority (CX.4); shown as if the listener said `authority: {sender}` - without that the daemon stops here"));
            }
        }
        self.runs.push(Run { set: Arc::clone(set), sources: Arc::clone(sources), route, lineage, answers: answers.clone() });
    }
}

impl Run {
    /// The text of a line of a route file, without its indentation.
    pub(crate) fn quote(&self, at: &Spot) -> Option<&str> {
        let id = self.sources.ids().find(|id| self.sources.path(*id) == at.file())?;
        let line = self.sources.text(id).lines().nth(at.line_number().checked_sub(1)?)?;
        Some(line.trim())
    }

    /// The same; of a line that goes on below, its first lines.
    pub(crate) fn quote_block(&self, at: &Spot) -> Vec<String> {
        const MOST: usize = 4;
        let Some(id) = self.sources.ids().find(|id| self.sources.path(*id) == at.file()) else { return Vec::new() };
        let mut lines = self.sources.text(id).lines().skip(at.line_number().saturating_sub(1));
        let Some(first) = lines.next() else { return Vec::new() };
        let indent = |line: &str| line.len() - line.trim_start().len();
        let depth = indent(first);
        let mut quoted = vec![first.trim().to_owned()];
        if first.trim_end().ends_with([':', '>', '|']) {
            for line in lines.take_while(|l| l.trim().is_empty() || indent(l) > depth) {
                if quoted.len() == MOST {
                    quoted.push("…".to_owned());
                    break;
                }
                quoted.push(line.get(depth..).unwrap_or(line).trim_end().to_owned());
            }
        }
        quoted
    }
}
