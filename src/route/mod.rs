//! The route language: files -> tree -> checked and compiled program -> run. Pure: no I/O, no clock.
//!
//! Never fails on user input: `load` returns what is good and a list of diagnostics.

mod asking;
mod assist;
mod code;
mod compile;
mod decimal;
mod expression;
mod functions;
mod guide;
mod keys;
mod lineage;
mod names;
mod outgoing;
mod overlay;
mod program;
mod read;
mod run;
mod saved;
mod schema;
mod scope;
mod survey;
mod tree;
mod types;
mod yaml;

pub use assist::{Assist, Hover, Suggestion, SuggestionKind, View};
pub use compile::load;
pub use functions::function_reference;
pub use guide::{GUIDE_OVERLAYS, GuideCoverage, GuideRow, Proof, Sheets, Verdict};
pub use lineage::{
    ConditionUse, Deletion, Dropped, ElementLineage, LineUse, Lineage, MessageLineage, Outcome, ResourceLineage, Spot, Stage, Step, Use, ValueUse,
};
pub use program::{
    AfterDeadLetter, Asking, Context, Finding, LoadOptions, Loaded, Matches, OrderValue, Output, RouteId, RouteInfo, RouteSet, Send, Stop, UnknownCode,
};
pub use schema::schema;
pub use survey::{CodeCondition, CodeLine, Survey};
pub use tree::{
    Body, DatatypeDoc, Document, Each, Expr, ExprKind, FieldDoc, Head, Index, Item, Key, Line, Literal, Op, PathStep, RouteDoc, Save, SegmentDoc, SystemsDoc,
    SystemsRule, TableDoc, TableEntry, TableSender, Target, Test, Unmapped, Verb,
};
pub use yaml::layout;
