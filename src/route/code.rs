//! The compiled form: expressions and bodies with every position resolved. Nothing in here is looked up by name per message.

mod body;
mod children;
mod expression;
mod join;
mod named;
mod needs;
mod table;

pub(crate) use body::{Body, BodyLine, Item, Required};
pub(crate) use expression::{Function, Line, Path, Root, Said, Step, X};
pub(crate) use join::{CodeTable, Coded, Conversion, Join, table_system};
pub(crate) use named::Let;
pub(crate) use needs::Needs;
pub(crate) use table::{Names, Row, SystemRule, Systems, Table, UnmappedX};

use crate::fhir::{self, Kind, ListMerge, SaveMode};
use crate::route::asking::AskX;
use crate::route::outgoing::{MessageX, V2Map};
use crate::route::program::{AfterDeadLetter, Send};
use crate::route::scope::Lookup;
use std::sync::Arc;

/// Everything that a run needs.
#[derive(Default)]
pub(crate) struct Code {
    pub(crate) routes: Vec<Route>,
    pub(crate) by_event: ByEvent,
    pub(crate) maps: Vec<Map>,
    /// Maps whose target is v2.
    pub(crate) v2_maps: Vec<V2Map>,
    pub(crate) tables: Vec<Table>,
    pub(crate) systems: Systems,
    pub(crate) lookups: Vec<Lookup>,
    /// Does a line say `null`, which deletes whatever was sent?
    pub(crate) says_null: bool,
    /// `(ZPI, PID)`.
    pub(crate) segment_places: Vec<(String, String)>,
}

/// Routes by what they are for, each list in their order: finding those of a message takes no longer where there are many others.
#[derive(Default)]
pub(crate) struct ByEvent {
    /// `ADT^A01`; `ADT` for those that take any event.
    named: Names<Vec<usize>>,
    pub(crate) otherwise: Vec<usize>,
}

impl ByEvent {
    pub(crate) fn new(routes: &[Route]) -> Self {
        let mut made = Self::default();
        for (n, route) in routes.iter().enumerate() {
            for on in &route.on {
                let list = match on {
                    On::Event { code, event: Some(event), .. } => made.named.entry(format!("{code}^{event}")).or_default(),
                    On::Event { code, event: None, .. } => made.named.entry(code.clone()).or_default(),
                    On::Resource(_) => continue,
                    On::Otherwise => &mut made.otherwise,
                };
                if list.last() != Some(&n) {
                    list.push(n);
                }
            }
        }
        made
    }

    /// The routes that name this type and event or the type alone, in their order.
    pub(crate) fn naming(&self, code: &str, event: &str) -> Vec<usize> {
        let list = |name: &str| self.named.get(name).map_or(&[][..], Vec::as_slice);
        let mut all = [list(&format!("{code}^{event}")), list(code)].concat();
        all.sort_unstable();
        all.dedup();
        all
    }
}

pub(crate) struct Route {
    pub(crate) on: Vec<On>,
    pub(crate) from: Vec<String>,
    pub(crate) when: Option<X>,
    /// What keeps its deliveries in order; empty leaves that to the message's identifiers.
    pub(crate) order_by: Vec<OrderX>,
    pub(crate) resources: Vec<Resource>,
    pub(crate) message: Option<MessageX>,
    /// Its questions, in order.
    pub(crate) asks: Vec<AskX>,
    /// Why it cannot run: what it needs comes with a later version of Kiln.
    pub(crate) refused: Option<&'static str>,
    /// Where it is written.
    pub(crate) line: Line,
    /// FHIR type -> how resources made by type maps are saved.
    pub(crate) shared: Vec<(&'static str, Shared)>,
    pub(crate) refuse_invalid: bool,
    pub(crate) send: Send,
    pub(crate) after_dead_letter: AfterDeadLetter,
}

/// An entry of `order-by`.
pub(crate) struct OrderX {
    pub(crate) x: X,
    pub(crate) identifier: Option<IdentifierShape>,
    /// The v2 fields that it reads.
    pub(crate) places: Vec<String>,
}

/// The data types of identifiers (HL7 chapter 2A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdentifierShape {
    /// CX: the value, and the assigning authority in the fourth component.
    Cx,
    /// EI: the value, and the authority in components two to four.
    Ei,
}

/// One entry of `on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// `ADT^A01`, with the structure when one was written.
    Event { code: String, event: Option<String>, structure: Option<String> },
    /// A FHIR resource.
    Resource(&'static str),
    /// What no other route takes.
    Otherwise,
}

impl On {
    /// `ADT^A01`, `ADT^*`, `ORU^R01^ORU_R01`, `Patient` or `otherwise`, as it is written.
    pub(crate) fn named(text: &str) -> Self {
        if text == "otherwise" {
            return Self::Otherwise;
        }
        if let Some(ty) = fhir::type_named(text).filter(|t| t.kind() == Kind::Resource) {
            return Self::Resource(ty.name());
        }
        let (code, event, structure) = event_parts(text);
        Self::Event { code: code.to_owned(), event: event.filter(|e| *e != "*").map(str::to_owned), structure: structure.map(str::to_owned) }
    }

    /// Is there a message that both take?
    pub(crate) fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Event { code: c, event: e, structure: s }, Self::Event { code: d, event: f, structure: t }) => {
                let both = |x: &Option<String>, y: &Option<String>| x.is_none() || y.is_none() || x == y;
                c == d && both(e, f) && both(s, t)
            }
            _ => self == other,
        }
    }
}

/// `ORU^R01^ORU_R01` in parts.
pub(crate) fn event_parts(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let mut parts = text.split('^');
    (parts.next().unwrap_or(""), parts.next(), parts.next())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    Save(SaveMode),
    Contained,
    Logical,
}

/// A resource of a route.
pub(crate) struct Resource {
    pub(crate) name: Arc<str>,
    pub(crate) resource_type: &'static str,
    /// What to make one per: a path that yields segments (or values), and the key by which they are grouped; or nothing for one from the message.
    pub(crate) each: Option<(X, Option<X>)>,
    pub(crate) when: Option<X>,
    /// The maps after the first `$map`, each with the look-up of its source from the resource's own segment.
    pub(crate) maps: Vec<(Option<X>, usize)>,
    /// The route's own lines; they replace what the maps made.
    pub(crate) body: Body,
    pub(crate) save: SaveX,
}

pub(crate) struct SaveX {
    pub(crate) mode: SaveMode,
    pub(crate) shared: Option<Shared>,
    /// Each yields Identifiers.
    pub(crate) by: Vec<X>,
    /// `by derived()`.
    pub(crate) derived: bool,
    pub(crate) missing: Missing,
    pub(crate) merge: Vec<(&'static str, ListMerge)>,
    pub(crate) initial: Option<Body>,
    /// The v2 fields that the identity hangs on, for the message when it is missing.
    pub(crate) places: Vec<String>,
    pub(crate) line: Line,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Missing {
    #[default]
    Refuse,
    Skip,
    Derive,
}

/// A map: how one thing becomes another.
pub(crate) struct Map {
    /// `PID -> Patient`, for messages and lineage.
    pub(crate) head: Arc<str>,
    /// Resource types make resources of their own when a reference wants them.
    pub(crate) resource: Option<&'static str>,
    /// It makes one branch of a choice: the body's only element is the branch.
    pub(crate) choice: bool,
    pub(crate) body: Body,
    pub(crate) save: Option<SaveX>,
}
