//! Completion inside an expression: paths, functions, words, names.

use crate::hl7v2;
use crate::route::assist::complete::{CODES_MAX, Offers, SuggestionKind};
use crate::route::assist::context::{Part, Wanted};
use crate::route::assist::hover;
use crate::route::assist::index::arrow;
use crate::route::assist::words;
use crate::route::compile::same_type;
use crate::route::functions::FUNCTIONS;
use crate::route::types::Ty;
use std::ops::Range;

impl<'v> Offers<'v> {
    /// Inside an expression.
    pub(crate) fn expression(&mut self, chain: &[usize], value: &Range<usize>, wanted: Wanted) {
        let view = self.view;
        let text = view.part(value);
        let here = self.at.saturating_sub(value.start).min(text.len());
        let absolute = |r: Range<usize>| value.start + r.start..value.start + r.end;
        let mut current = view.current(&self.section.roots, chain);
        if let Some(open) = words::string_start(text, here) {
            let range = absolute(open..here);
            match text.get(..open).and_then(words::compared) {
                Some(path) => {
                    if let Some(Ty::V2 { table: Some(table), .. }) = words::type_of(path, &current, &view.assist.index.v2) {
                        self.table_codes(table, &range);
                    }
                }
                None => match wanted {
                    Wanted::Element(e, branch) => self.codes(e, branch, &range, ""),
                    Wanted::Coded(table) => self.table_codes(table, &range),
                    _ => {}
                },
            }
            return;
        }
        let begin = words::start(text, here);
        let word = text.get(begin..here).unwrap_or("");
        let range = absolute(begin..here);
        // `PATH where ` sees each candidate.
        if let Some((path, _)) = text.get(..begin).unwrap_or("").rsplit_once(" where ") {
            let from = words::start(path, path.len());
            if let Some(ty) = path.get(from..).and_then(|p| words::type_of(p, &current, &view.assist.index.v2)) {
                current.insert(0, ty);
            }
        }
        match words::before(text, begin) {
            "via" => self.tables(word, &range),
            "as" => {
                let path = text.get(..begin).unwrap_or("").trim_end().strip_suffix("as").unwrap_or("").trim_end();
                let ty = path.get(words::start(path, path.len())..).and_then(|p| words::type_of(p, &current, &view.assist.index.v2));
                self.targets(ty.as_ref(), &range);
            }
            "in" => {
                self.tables("", &range);
                for (name, meaning) in [("systems", "authorities with a row or a URI of their own"), ("ucum", "units of UCUM")] {
                    self.add(name, SuggestionKind::Name, "", meaning, name.to_owned(), &range);
                }
            }
            _ if word.starts_with('$') => self.variables(chain, &range),
            _ => self.terms(chain, word, &range, &current, wanted),
        }
    }

    fn tables(&mut self, word: &str, range: &Range<usize>) {
        let tables: Vec<_> = self.view.assist.index.of("table").cloned().collect();
        if let Some((name, _)) = word.split_once('.') {
            for column in tables.iter().filter(|t| t.name == name).flat_map(|t| t.columns.iter()) {
                self.add(&format!("{name}.{column}"), SuggestionKind::Name, "column", "", format!("{name}.{column}"), range);
            }
            return;
        }
        for t in tables {
            self.add(&t.name, SuggestionKind::Name, "table", hover::table(&t), t.name.clone(), range);
        }
    }

    /// Maps from such a value; all of them where its type cannot be told.
    fn targets(&mut self, ty: Option<&Ty>, range: &Range<usize>) {
        let source = match ty {
            Some(Ty::V2 { datatype, .. }) => Some(*datatype),
            Some(Ty::Segment(name)) => Some(*name),
            _ => None,
        };
        let fits = |head: &str| arrow(head).is_some_and(|(from, _)| source.is_none_or(|s| same_type(s, from)));
        let maps: Vec<String> = self.view.assist.index.of("map").map(|d| d.name.clone()).filter(|head| fits(head)).collect();
        for head in maps {
            if let Some((_, target)) = arrow(&head) {
                self.add(target, SuggestionKind::Name, format!("map: {head}"), "", target.to_owned(), range);
            }
        }
    }

    /// `$name`: what `$let` and `$takes` of the bodies around name.
    fn variables(&mut self, chain: &[usize], range: &Range<usize>) {
        for (name, how) in self.view.variables(&self.section.roots, chain) {
            self.add(&format!("${name}"), SuggestionKind::Name, how, "", format!("${name}"), range);
        }
    }

    fn terms(&mut self, chain: &[usize], word: &str, range: &Range<usize>, current: &[Ty], wanted: Wanted) {
        let view = self.view;
        let v2 = &view.assist.index.v2;
        if self.path(word, range, current, "") {
            return;
        }
        for ty in current {
            match ty {
                Ty::V2 { datatype, .. } if !v2.is_primitive(datatype) => self.components(datatype, datatype, range, ""),
                Ty::Segment(name) => self.segment(name, range, ""),
                _ => {}
            }
        }
        for segment in self.segments(current) {
            self.segment(segment, range, "");
        }
        if let Wanted::Element(e, branch) = wanted
            && word.is_empty()
        {
            self.codes(e, branch, range, "\"");
        }
        self.variables(chain, range);
        let (kind, head) = view.kind(&self.section.roots);
        if kind == "route" {
            let mut names: Vec<String> = view.assist.index.named("route", &head).flat_map(|d| d.resources.iter().map(|(n, _)| n.clone())).collect();
            names.extend(view.resource_names(self.section));
            for name in names {
                self.add(&name, SuggestionKind::Name, "resource of this route", "", name.clone(), range);
            }
        }
        for f in FUNCTIONS {
            self.add(f.name, SuggestionKind::Function, f.signature, format!("{}\n\n`{}`", f.meaning, f.example), format!("{}(", f.name), range);
        }
        for (word, meaning) in hover::KEYWORDS {
            self.add(word, SuggestionKind::Keyword, "", *meaning, (*word).to_owned(), range);
        }
    }

    /// What goes on from `PID-` or `PID-3.`, and whether the word is of that kind. `end` is written behind what is chosen.
    fn path(&mut self, word: &str, range: &Range<usize>, current: &[Ty], end: &str) -> bool {
        let v2 = &self.view.assist.index.v2;
        if !word.starts_with(|c: char| c.is_ascii_uppercase()) {
            return false;
        }
        if let Some((path, _)) = word.rsplit_once('.') {
            // After a point: components; after an anchor, segments.
            match words::type_of(path, current, v2) {
                Some(Ty::V2 { datatype, .. }) if !v2.is_primitive(datatype) => self.components(path, datatype, range, end),
                Some(Ty::Segment(_)) => {
                    for segment in self.segments(current) {
                        let name = hl7v2::newest_segment(segment).map_or("", |s| s.name());
                        self.add(&format!("{path}.{segment}"), SuggestionKind::Path, "segment", name, format!("{path}.{segment}{end}"), range);
                    }
                }
                _ => {}
            }
            return true;
        }
        let Some((segment, _)) = word.split_once('-') else { return false };
        let name = segment.split(['[', '.']).next_back().filter(|s| v2.is_segment(s)).or_else(|| segment.split('[').next()).unwrap_or(segment);
        self.fields(segment, name, range, end);
        true
    }

    /// Keys of a `message:`'s body.
    pub(crate) fn line(&mut self, part: Part, range: &Range<usize>, bare: bool) {
        let end = if bare { ": " } else { "" };
        let written = self.view.part(&(range.start..self.at.max(range.start)));
        if self.path(written, range, &[], end) {
            return;
        }
        match part {
            Part::Message => {
                for segment in self.segments(&[]) {
                    self.segment(segment, range, end);
                }
                for group in self.view.assist.index.groups(&self.on()) {
                    self.add(group, SuggestionKind::Path, "group", "changes the groups of a copy, or makes groups", format!("{group}{end}"), range);
                }
            }
            Part::Segment(name) => self.fields(name, name, range, end),
            Part::Value(datatype) => self.components(datatype, datatype, range, end),
        }
    }

    /// Codes of a v2 table.
    pub(crate) fn table_codes(&mut self, table: &str, range: &Range<usize>) {
        for (code, display) in hl7v2::newest_table(table).into_iter().flat_map(|t| t.codes()).take(CODES_MAX) {
            self.add(code, SuggestionKind::Code, display, format!("table {table}"), code.to_owned(), range);
        }
    }

    fn segment(&mut self, name: &str, range: &Range<usize>, end: &str) {
        let meaning = hl7v2::newest_segment(name).map_or("", |s| s.name());
        self.add(name, SuggestionKind::Path, "segment", meaning, format!("{name}{end}"), range);
    }

    fn fields(&mut self, written: &str, segment: &str, range: &Range<usize>, end: &str) {
        let v2 = &self.view.assist.index.v2;
        for n in 1..=120 {
            let Some(facts) = v2.field(segment, n) else { continue };
            let path = format!("{written}-{n}");
            self.add(&path, SuggestionKind::Path, hover::field_shape(segment, n, &facts), hover::field(segment, n, &facts), format!("{path}{end}"), range);
        }
    }

    fn components(&mut self, path: &str, datatype: &str, range: &Range<usize>, end: &str) {
        let v2 = &self.view.assist.index.v2;
        let offers: Vec<_> = (1..=60)
            .filter_map(|n| v2.component(datatype, n).map(|facts| (n, facts)))
            .map(|(n, facts)| (format!("{path}.{n}"), hover::component_shape(datatype, n, &facts), hover::component(datatype, n, &facts)))
            .collect();
        for (label, detail, text) in offers {
            self.add(&label, SuggestionKind::Path, detail, text, format!("{label}{end}"), range);
        }
    }

    /// Segments in reach: those of the route's messages, or of the messages that have the map's segment.
    fn segments(&self, current: &[Ty]) -> Vec<&'static str> {
        let index = &self.view.assist.index;
        let (kind, _) = self.view.kind(&self.section.roots);
        if kind == "route" {
            return index.segments_beside(None, &self.on());
        }
        match current.iter().rev().find_map(|t| if let Ty::Segment(name) = t { Some(*name) } else { None }) {
            Some(segment) => {
                let found = index.segments_beside(Some(segment), &[]);
                if found.is_empty() { index.segments_beside(None, &["ADT^*".to_owned(), "ORU^R01".to_owned()]) } else { found }
            }
            // A map of a data type sees its value alone; conditions of tables see the message.
            None if kind == "map" => Vec::new(),
            None => index.segments_beside(None, &[]),
        }
    }

    /// The messages of the route around.
    fn on(&self) -> Vec<String> {
        let (_, head) = self.view.kind(&self.section.roots);
        self.view.on(self.section).into_iter().chain(self.view.assist.index.named("route", &head).flat_map(|d| d.on.clone())).collect()
    }
}
