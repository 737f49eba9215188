//! Maps whose target is v2: `map: PID -> PID`, `map: CX -> CX`.

use crate::diagnostic::{Diagnostic, Span};
use crate::hl7v2::Level;
use crate::route::compile::outgoing::Out;
use crate::route::compile::scope::Scope;
use crate::route::compile::{Compiler, Wanted};
use crate::route::names::intern;
use crate::route::outgoing::{V2Map, V2MapBody};
use crate::route::tree::{self, Key, Target};
use crate::route::types::{FieldType, Ty};
use std::sync::Arc;

impl<'a> Compiler<'a> {
    /// A map to a segment or data type: its body comes later.
    pub(crate) fn collect_v2_map(&mut self, source: &'a Key, from: Ty, target: &'a Target, body: &'a tree::Body, span: Span) {
        if let Some(element) = target.element.first() {
            self.report(
                Diagnostic::error("K213", target.span, format!("{} has no element {element}", target.name))
                    .label("a map makes a segment or a data type as a whole")
                    .help(format!("write `-> {}`", target.name)),
            );
            return;
        }
        let takes = body.takes.iter().map(|(name, ty)| self.takes(name, ty)).collect();
        let into = intern(&target.name);
        self.v2_maps.push(V2MapHead { source, from, target, into, takes, body, span, calls: Vec::new() });
    }

    pub(crate) fn compile_v2_maps(&mut self) -> Vec<V2Map> {
        let mut maps = Vec::new();
        for n in 0..self.v2_maps.len() {
            self.current_v2_map = Some(n);
            let (into, body) = (self.v2_maps[n].into, self.v2_maps[n].body);
            let mut scope = Scope { unit: self.unit(), ..Scope::for_map(&self.v2_maps[n].from, &self.v2_maps[n].takes) };
            let body = if self.v2.is_segment(into) {
                V2MapBody::Segment(self.segment_body(&mut scope, into, body, false))
            } else {
                let out = Out::of(FieldType { datatype: into, table: None, repeats: true }, Level::Repetition, into.to_owned());
                V2MapBody::Value(self.value_body(&mut scope, body, &out).0)
            };
            let head = &self.v2_maps[n];
            let head = Arc::from(format!("{} -> {}", head.source.text, head.target.written()));
            maps.push(V2Map { head, body });
        }
        self.current_v2_map = None;
        self.check_v2_circles();
        maps
    }

    /// K410: maps call maps as a tree.
    fn check_v2_circles(&mut self) {
        for start in 0..self.v2_maps.len() {
            let mut seen = vec![false; self.v2_maps.len()];
            let mut open = self.v2_maps[start].calls.clone();
            while let Some(next) = open.pop() {
                if !std::mem::replace(&mut seen[next], true) {
                    open.extend(self.v2_maps[next].calls.iter().copied());
                }
            }
            if seen[start] {
                let head = &self.v2_maps[start];
                let message = format!("the map {} -> {} leads back to itself", head.source.text, head.target.name);
                let fault = Diagnostic::error("K410", head.span, message).label("maps may not recurse");
                self.report(fault.help("name another map with `as`, or write the lines here"));
            }
        }
    }
}

/// What the head of a map to v2 promises.
pub(crate) struct V2MapHead<'a> {
    pub(crate) source: &'a Key,
    pub(crate) from: Ty,
    pub(crate) target: &'a Target,
    /// The segment or data type that it makes.
    pub(crate) into: &'static str,
    pub(crate) takes: Vec<(String, Ty, Option<Wanted>)>,
    pub(crate) body: &'a tree::Body,
    pub(crate) span: Span,
    pub(crate) calls: Vec<usize>,
}
