//! The lines and conditions of what makes messages: `message:` of a route, and maps to v2.

use crate::route::lineage::Spot;
use crate::route::outgoing::{GroupBody, MessageX, OutJoin, PartItem, PartLine, SegmentBody, SegmentSource, V2Map, V2MapBody, ValueBody, ValueItem, ValueLine};
use crate::route::survey::{CodeLine, Walk};
use std::sync::Arc;

impl<'c> Walk<'c> {
    pub(super) fn message(&mut self, message: &'c MessageX) {
        let around = self.under.len();
        message.each.iter().for_each(|x| self.x(x));
        message.when.iter().for_each(|x| self.condition(x));
        message.lines.iter().for_each(|l| self.part_line(l));
        self.under.truncate(around);
    }

    /// A map to v2 that is called.
    pub(super) fn v2_map(&mut self, n: usize) {
        let Some(V2Map { head, body }) = self.code.v2_maps.get(n) else { return };
        self.head = Arc::clone(head);
        match body {
            V2MapBody::Segment(body) => self.segment_body(body),
            V2MapBody::Value(body) => self.value_body(body),
        }
    }

    fn known(&mut self, line: &Arc<str>, column: u32, element: &str, places: &[String]) {
        let at = Spot { line: Arc::clone(line), column };
        let known = CodeLine { at: at.clone(), map: Arc::clone(&self.head), element: element.to_owned(), places: places.to_vec(), under: self.under.clone() };
        self.lines.entry(at).or_insert(known);
    }

    fn part_line(&mut self, line: &'c PartLine) {
        // `nothing` takes away; there is nothing for it to make.
        if !line.is_field() && !matches!(line.item, PartItem::Nothing) {
            self.known(&line.line, line.column, line.name, &line.places);
        }
        self.part_item(&line.item);
    }

    fn part_item(&mut self, item: &'c PartItem) {
        match item {
            PartItem::Nothing => {}
            PartItem::Fields(body) => self.segment_body(body),
            PartItem::Segments(source) => self.source(source),
            PartItem::List(items) => items.iter().for_each(|i| self.part_item(i)),
            PartItem::Group(body) => {
                let GroupBody { each, when, lines, .. } = &**body;
                let around = self.under.len();
                each.iter().for_each(|x| self.x(x));
                when.iter().for_each(|x| self.condition(x));
                lines.iter().for_each(|l| self.part_line(l));
                self.under.truncate(around);
            }
        }
    }

    fn source(&mut self, source: &'c SegmentSource) {
        self.x(&source.values);
        if let Some((map, arguments)) = &source.map {
            self.wanted_v2.push(*map);
            arguments.iter().for_each(|x| self.x(x));
        }
    }

    fn segment_body(&mut self, body: &'c SegmentBody) {
        let around = self.under.len();
        body.each.iter().for_each(|x| self.x(x));
        body.when.iter().for_each(|x| self.condition(x));
        body.from.iter().chain(&body.value).for_each(|s| self.source(s));
        body.first.iter().for_each(|i| self.part_item(i));
        body.lines.iter().for_each(|l| self.value_line(l));
        self.under.truncate(around);
    }

    fn value_line(&mut self, line: &'c ValueLine) {
        if matches!(line.item, ValueItem::Nothing) {
            return;
        }
        self.known(&line.line, line.column, line.place, &line.places);
        self.value_item(&line.item);
    }

    fn value_item(&mut self, item: &'c ValueItem) {
        match item {
            ValueItem::Nothing => {}
            ValueItem::X(x) => self.x(x),
            ValueItem::Body(body) => self.value_body(body),
            ValueItem::List(items) => items.iter().for_each(|i| self.value_item(i)),
        }
    }

    pub(super) fn value_body(&mut self, body: &'c ValueBody) {
        let around = self.under.len();
        body.each.iter().for_each(|x| self.x(x));
        body.when.iter().for_each(|x| self.condition(x));
        body.from.iter().flat_map(|(values, conversion)| [values, conversion]).for_each(|x| self.x(x));
        body.first.iter().for_each(|i| self.value_item(i));
        body.value.iter().for_each(|i| self.value_item(i));
        body.lines.iter().for_each(|l| self.value_line(l));
        self.under.truncate(around);
    }

    pub(super) fn out(&mut self, join: &'c OutJoin) {
        match join {
            OutJoin::Map(map, arguments) => {
                self.wanted_v2.push(*map);
                arguments.iter().for_each(|x| self.x(x));
            }
            OutJoin::Table(by) => self.table(by.table),
            OutJoin::Date | OutJoin::Coded | OutJoin::YesNo | OutJoin::Authority => {}
        }
    }
}
