//! Documents that are data: tables, systems, segments, data types. Every scalar in them is text, except a sender's `when`.

use crate::diagnostic::{Diagnostic, Span};
use crate::route::keys::{DATATYPE, FIELD, ROW, RULE, SEGMENT, SENDER, SYSTEMS, TABLE, names};
use crate::route::read::Reader;
use crate::route::yaml::{Content, Node, Quoting};
use crate::route::{DatatypeDoc, Document, FieldDoc, Key, SegmentDoc, SystemsDoc, SystemsRule, TableDoc, TableEntry, TableSender, Unmapped};

impl Reader<'_> {
    pub(super) fn table(&mut self, head: &Node, pairs: &[(Node, Node)], document: &mut Document) -> Option<TableDoc> {
        let name = self.key(head, "table")?;
        let mut table =
            TableDoc { name, from: Vec::new(), to: None, system: None, columns: Vec::new(), codes: Vec::new(), unmapped: None, senders: Vec::new() };
        // Rows are read by the columns, wherever these stand.
        if let Some((_, columns)) = pairs.iter().skip(1).find(|(k, _)| k.text() == "columns") {
            table.columns = self.texts(columns, "columns");
        }
        let columns = table.columns.iter().map(|(k, _)| k.text.clone()).collect::<Vec<_>>();
        for (key, value) in pairs.iter().skip(1) {
            match self.plain_key(key, "a table", TABLE, document) {
                Some("from") => table.from = self.keys(value, "from"),
                Some("to") => table.to = self.key(value, "to"),
                Some("system") => table.system = self.key(value, "system"),
                Some("codes") => table.codes = self.rows(value, &columns, document.extends),
                Some("unmapped") => table.unmapped = self.unmapped(value),
                Some("senders") => table.senders = self.senders(value, &columns),
                _ => {}
            }
        }
        if !document.extends && table.codes.is_empty() && table.senders.is_empty() && !pairs.iter().any(|(k, _)| k.text() == "codes") {
            let fault = Diagnostic::error("K115", table.name.span, format!("table `{}` has no `codes`", table.name.text));
            self.faults.push(fault.help("`codes: { F: female, M: male }`: on the left what comes in, on the right what goes out"));
        }
        Some(table)
    }

    fn rows(&mut self, node: &Node, columns: &[String], extends: bool) -> Vec<TableEntry> {
        let pairs = self.pairs(node, "codes");
        let mut rows = Vec::new();
        for (code, value) in pairs {
            let mut row = TableEntry { code: Self::word(code), to: None, display: None, system: None, columns: Vec::new() };
            match &value.content {
                Content::Mapping(_) => {
                    for (key, value) in self.pairs(value, code.text()) {
                        let Some(text) = self.key(value, key.text()) else { continue };
                        match key.text() {
                            word if columns.iter().any(|c| c == word) => row.columns.push((Self::word(key), text)),
                            "code" => row.to = Some(text),
                            "display" => row.display = Some(text),
                            "system" => row.system = Some(text),
                            word => {
                                let known: Vec<&str> = columns.iter().map(String::as_str).chain(names(ROW)).collect();
                                self.no_such_word(&Self::word(key), &format!("`{word}` is no column of this table"), "K113", &known);
                            }
                        }
                    }
                }
                // In an `extend:`, a row that is taken away.
                Content::Scalar(s) if extends && s.quoting == Quoting::Plain && s.text == "nothing" => {}
                _ => match self.key(value, code.text()) {
                    Some(to) => row.to = Some(to),
                    None => continue,
                },
            }
            rows.push(row);
        }
        rows
    }

    fn senders(&mut self, node: &Node, columns: &[String]) -> Vec<TableSender> {
        let Content::Sequence(_) = node.content else { return self.wrong(node, "senders", "a list of `{ when: ..., codes: ... }`").unwrap_or_default() };
        let mut senders = Vec::new();
        for entry in self.entries(node) {
            let (mut when, mut codes) = (None, Vec::new());
            for (key, value) in self.pairs(entry, "senders") {
                match key.text() {
                    "when" => when = self.expr(value, "when"),
                    "codes" => codes = self.rows(value, columns, false),
                    word => self.no_such_word(&Self::word(key), &format!("`{word}` is no key of a sender"), "K113", &names(SENDER)),
                }
            }
            let stated = matches!(&entry.content, Content::Mapping(p) if p.iter().any(|(k, _)| k.text() == "when"));
            match when {
                Some(when) => senders.push(TableSender { when, codes }),
                None if stated => {}
                None => self.lacks(entry.span, "this sender has no `when`", "`when: MSH-3 = \"LAB7\"` says whose codes these are"),
            }
        }
        senders
    }

    fn unmapped(&mut self, node: &Node) -> Option<Unmapped> {
        let key = self.key(node, "unmapped")?;
        let quoted = node.scalar().is_some_and(|s| s.quoting == Quoting::Quoted);
        Some(match key.text.as_str() {
            _ if quoted => Unmapped::Code(key),
            "keep" => Unmapped::Keep(key.span),
            "text" => Unmapped::Text(key.span),
            "drop" => Unmapped::Drop(key.span),
            "absent" => Unmapped::Absent(key.span),
            "refuse" => Unmapped::Refuse(key.span),
            _ => Unmapped::Code(key),
        })
    }

    pub(super) fn systems(&mut self, head: &Node, pairs: &[(Node, Node)], document: &mut Document) -> Option<SystemsDoc> {
        let name = self.key(head, "systems")?;
        let mut systems = SystemsDoc { name, rules: Vec::new(), unknown: None, missing: None, ignore: Vec::new() };
        for (key, value) in pairs.iter().skip(1) {
            match self.plain_key(key, "a systems document", SYSTEMS, document) {
                Some("match") => match value.content {
                    Content::Sequence(_) => systems.rules = self.entries(value).into_iter().filter_map(|n| self.rule(n)).collect(),
                    _ => systems.rules = self.wrong(value, "match", "a list of `{ namespace: ..., system: ... }`").unwrap_or_default(),
                },
                Some("unknown") => systems.unknown = self.key(value, "unknown"),
                Some("missing") => systems.missing = self.key(value, "missing"),
                Some(_) => systems.ignore = self.keys(value, "ignore"),
                None => {}
            }
        }
        Some(systems)
    }

    fn rule(&mut self, node: &Node) -> Option<SystemsRule> {
        let known = names(RULE);
        let (mut namespace, mut oid, mut universal, mut types, mut system) = (None, None, None, Vec::new(), None);
        for (key, value) in self.pairs(node, "match") {
            match key.text() {
                "namespace" => namespace = self.key(value, "namespace"),
                "oid" => oid = self.key(value, "oid"),
                "universal" => universal = self.key(value, "universal"),
                "types" => types = self.keys(value, "types"),
                "system" => system = self.key(value, "system"),
                word => self.no_such_word(&Self::word(key), &format!("`{word}` is no key of a row of `match`"), "K113", &known),
            }
        }
        let Content::Mapping(pairs) = &node.content else { return None };
        // A key that nobody knows was probably the one that lacks.
        let strange = pairs.iter().any(|(k, _)| !known.contains(&k.text()));
        let Some(system) = system else {
            if strange {
                return None;
            }
            self.lacks(node.span, "this row has no `system`", "`system: \"http://...\"` is the URI that the authority becomes");
            return None;
        };
        if namespace.is_none() && oid.is_none() && universal.is_none() && types.is_empty() && !strange {
            self.lacks(node.span, "this row matches every authority", "say which by `namespace`, `oid`, `universal` or `types`");
        }
        Some(SystemsRule { namespace, oid, universal, types, system, span: node.span })
    }

    pub(super) fn segment(&mut self, head: &Node, pairs: &[(Node, Node)], document: &mut Document) -> Option<SegmentDoc> {
        let name = self.key(head, "segment")?;
        let mut segment = SegmentDoc { name, after: None, group: None, fields: Vec::new() };
        for (key, value) in pairs.iter().skip(1) {
            match self.plain_key(key, "a segment", SEGMENT, document) {
                Some("after") => segment.after = self.key(value, "after"),
                Some("in") => segment.group = self.key(value, "in"),
                Some(_) => segment.fields = self.fields(value, "fields"),
                None => {}
            }
        }
        if !document.extends && segment.fields.is_empty() && !pairs.iter().any(|(k, _)| k.text() == "fields") {
            self.lacks(segment.name.span, &format!("segment `{}` has no `fields`", segment.name.text), "`fields: { 3: { name: Employee number, type: CX } }`");
        }
        Some(segment)
    }

    pub(super) fn datatype(&mut self, head: &Node, pairs: &[(Node, Node)], document: &mut Document) -> Option<DatatypeDoc> {
        let mut datatype = DatatypeDoc { name: self.key(head, "datatype")?, components: Vec::new() };
        for (key, value) in pairs.iter().skip(1) {
            if self.plain_key(key, "a data type", DATATYPE, document).is_some() {
                datatype.components = self.fields(value, "components");
            }
        }
        if !document.extends && datatype.components.is_empty() && !pairs.iter().any(|(k, _)| k.text() == "components") {
            let name = &datatype.name;
            self.lacks(name.span, &format!("data type `{}` has no `components`", name.text), "`components: { 1: { name: Number, type: ST } }`");
        }
        Some(datatype)
    }

    fn fields(&mut self, node: &Node, owner: &str) -> Vec<(u16, FieldDoc)> {
        let pairs = self.pairs(node, owner);
        let mut fields = Vec::new();
        for (key, value) in pairs {
            let number = key.text().parse::<u16>().ok().filter(|n| *n > 0);
            if number.is_none() {
                let fault = Diagnostic::error("K114", key.span, format!("`{}` is no number of a field", key.text()));
                self.faults.push(fault.help("fields and components are numbered from 1: `3: { name: Employee number, type: CX }`"));
            }
            if let (Some(number), Some(field)) = (number, self.field(key, value)) {
                fields.push((number, field));
            }
        }
        fields
    }

    /// `{ name: ..., type: CX, repeats: true, table: "0001" }`, or the type alone.
    fn field(&mut self, key: &Node, value: &Node) -> Option<FieldDoc> {
        let span = Span { end: value.span.end.max(key.span.end), ..key.span };
        if value.scalar().is_some() {
            return Some(FieldDoc { name: None, datatype: self.key(value, key.text())?, repeats: false, table: None, span });
        }
        let (mut name, mut datatype, mut repeats, mut table) = (None, None, false, None);
        let mut strange = false;
        for (key, value) in self.pairs(value, key.text()) {
            match key.text() {
                "name" => name = self.key(value, "name"),
                "type" => datatype = self.key(value, "type"),
                "repeats" => repeats = self.choice(value, "repeats", &["true", "false"]).is_some_and(|k| k.text == "true"),
                "table" => table = self.key(value, "table"),
                word => {
                    strange = true;
                    self.no_such_word(&Self::word(key), &format!("`{word}` is no key of a field"), "K113", &names(FIELD));
                }
            }
        }
        match datatype {
            Some(datatype) => Some(FieldDoc { name, datatype, repeats, table, span }),
            None if strange => None,
            None => {
                self.lacks(key.span, &format!("field {} has no `type`", key.text()), "`type: CX` is a v2 data type or one of a `datatype:` document");
                None
            }
        }
    }

    fn lacks(&mut self, span: Span, message: &str, help: &str) {
        self.faults.push(Diagnostic::error("K115", span, message).help(help));
    }

    /// Stands in a document until its head is read.
    pub(super) fn nameless(span: Span) -> DatatypeDoc {
        DatatypeDoc { name: Key { text: String::new(), span }, components: Vec::new() }
    }
}
