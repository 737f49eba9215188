//! Codes to FHIR: by tables, by the maps of coded types, and with the systems of HL7's own tables.

use crate::fhir::Node;
use crate::route::code::{CodeTable, Coded, Conversion, Row, UnmappedX};
use crate::route::lineage::Step;
use crate::route::run::convert::Names;
use crate::route::run::out::Out;
use crate::route::run::text::trimmed;
use crate::route::run::value::Value;
use crate::route::run::{Env, Run};

impl<'m> Run<'m> {
    pub(crate) fn looked_up(&self, table: usize, code: &str, row: Option<&Row>) {
        self.note(|t| {
            let Some(table) = self.code.tables.get(table) else { return };
            let unmapped = match &table.unmapped {
                UnmappedX::Keep => "keep",
                UnmappedX::Text => "text",
                UnmappedX::Drop => "drop",
                UnmappedX::Absent => "absent",
                UnmappedX::Refuse => "refuse",
                UnmappedX::Code(_) => "a code for all others",
            };
            let found = row.map(|r| r.code.clone());
            t.step(
                Step::Table { table: std::sync::Arc::clone(&table.name), code: code.to_owned(), unmapped: found.is_none().then_some(unmapped), found },
                None,
            );
        });
    }

    /// The row for a code: the sender's own rows first.
    pub(crate) fn row(&mut self, table: usize, code: &str, env: &Env<'_, 'm>) -> Option<&'m Row> {
        let table = self.code.tables.get(table)?;
        for (when, rows) in &table.senders {
            if rows.contains_key(code) && self.holds(when, env) {
                return rows.get(code);
            }
        }
        table.rows.get(code)
    }

    /// A code by a table, for an element of type code.
    pub(crate) fn by_table(&mut self, value: &Value<'m>, table: usize, conversion: &'m Conversion, env: &Env<'_, 'm>, names: Names, out: &mut Out<'_>) {
        let text = trimmed(self.text_of(value));
        if text.is_empty() {
            return;
        }
        let row = self.row(table, &text, env);
        self.looked_up(table, &text, row);
        if let Some(row) = row {
            return out.push(names.name(), Node::Text(row.code.clone()));
        }
        let Some(table) = self.code.tables.get(table) else { return };
        // Not for what the engine gives: a table of events names those that mean something, and the others mean nothing.
        if !conversion.place.is_empty() {
            self.not_known(Some(&table.name), &text, &conversion.place);
            self.finding("unmapped-code", format!("a code that table {} does not have", table.name), &conversion.place, &conversion.line);
        }
        match &table.unmapped {
            UnmappedX::Code(row) => out.push(names.name(), Node::Text(row.code.clone())),
            UnmappedX::Absent => {
                let extension = Node::Object(vec![
                    ("url", Node::Text("http://hl7.org/fhir/StructureDefinition/data-absent-reason".to_owned())),
                    ("valueCode", Node::Text("unknown".to_owned())),
                ]);
                out.push(names.branch(conversion.companion), Node::Object(vec![("extension", Node::List(vec![extension]))]));
            }
            UnmappedX::Refuse => self.refuse_code(&table.name, conversion),
            UnmappedX::Keep | UnmappedX::Text | UnmappedX::Drop => {}
        }
    }

    /// By a map: of what it makes, the first counts.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn by_map(
        &mut self,
        value: &Value<'m>,
        map: usize,
        arguments: &'m [crate::route::code::X],
        coded: Option<&'m Coded>,
        conversion: &'m Conversion,
        env: &Env<'_, 'm>,
        names: Names,
        out: &mut Out<'_>,
    ) {
        let Some(code) = self.code.maps.get(map) else { return };
        let inner = Env::map(Some(value.clone()), arguments, Some(env));
        let from = out.len();
        self.note(|t| t.call(&code.head));
        let alive = self.body(&code.body, &inner, conversion.name, out);
        self.note(|t| t.returned(code.choice));
        if !alive {
            return out.truncate(from);
        }
        out.truncate(from + 1);
        let Some((name, node)) = out.get_mut(from) else { return };
        let mut own = names.own;
        if code.choice {
            let Node::Object(elements) = std::mem::replace(node, Node::Bool(false)) else { return out.truncate(from) };
            let Some((branch, only)) = elements.into_iter().next() else { return out.truncate(from) };
            *node = only;
            own = branch;
        } else if let Some(name) = &name
            && **name != conversion.name
            && name.starts_with('_')
        {
            own = name;
        }
        if let Some(name) = name {
            *name = names.branch(own);
        }
        if let (Some(coded), false) = (coded, code.choice)
            && !self.complete(node, coded, value, conversion, env)
        {
            out.truncate(from);
        }
    }

    /// A coded value's first coding: translated where a table joins the two code systems, else with the v2 table as its system. False if nothing
    /// is left of it.
    fn complete(&mut self, node: &mut Node, coded: &Coded, value: &Value<'m>, conversion: &'m Conversion, env: &Env<'_, 'm>) -> bool {
        let code = trimmed(self.text_of(value));
        let translated = match coded.translate {
            Some(table) if !code.is_empty() => self.translate(table, &code, conversion, env),
            _ => Translated::Keep,
        };
        self.note(|t| {
            if matches!(translated, Translated::To(_)) {
                t.translated()
            }
        });
        if coded.coding {
            match translated {
                Translated::To(coding) => *node = coding,
                Translated::Keep => self.with_table(node, coded.table.as_ref()),
                Translated::Text | Translated::Nothing => return false,
            }
            return true;
        }
        if matches!(translated, Translated::Nothing) && matches!(node, Node::Object(_)) {
            return false;
        }
        let Node::Object(elements) = node else { return true };
        let mut lost = matches!(translated, Translated::Text).then(|| code.to_string());
        match elements.iter().position(|(n, _)| *n == "coding") {
            Some(at) => {
                if let Some((_, Node::List(codings))) = elements.get_mut(at) {
                    let first_is_it = codings.first().and_then(coding_code).is_some_and(|c| c == code);
                    match (translated, codings.first_mut().filter(|_| first_is_it)) {
                        (_, None) => {}
                        (Translated::Keep, Some(first)) => self.with_table(first, coded.table.as_ref()),
                        (Translated::To(coding), Some(first)) => {
                            // What the sender called it is not lost when the code is translated.
                            lost = coding_display(first);
                            *first = coding;
                        }
                        (Translated::Text | Translated::Nothing, Some(first)) => {
                            lost = coding_display(first).filter(|d| !d.is_empty()).or(lost);
                            codings.remove(0);
                        }
                    }
                    if codings.is_empty() {
                        elements.remove(at);
                    }
                }
            }
            None => {
                if let Translated::To(coding) = translated {
                    elements.insert(0, ("coding", Node::List(vec![coding])));
                }
            }
        }
        if let Some(lost) = lost.filter(|t| !t.is_empty())
            && !elements.iter().any(|(n, _)| *n == "text")
        {
            elements.push(("text", Node::Text(lost)));
        }
        !elements.is_empty()
    }

    /// A coding without a system gets that of the field's v2 table, if the table has the code; an HL7 table's code gets its display.
    fn with_table(&self, coding: &mut Node, table: Option<&CodeTable>) {
        let (Node::Object(elements), Some(table)) = (coding, table) else { return };
        let text = |name: &str| elements.iter().find(|(n, _)| *n == name).map(|(_, node)| node);
        let (None, Some(Node::Text(code))) = (text("system"), text("code")) else { return };
        let found =
            (table.newest.and_then(|t| t.display(code))).or_else(|| crate::hl7v2::table(self.message.version(), table.id).and_then(|t| t.display(code)));
        let Some(display) = found else { return };
        self.note(|t| t.step(Step::Converted(format!("v2 table {} has the code: its system and display are HL7's", table.id)), None));
        let show = text("display").is_none() && !display.is_empty();
        elements.insert(0, ("system", Node::Text(table.system.to_string())));
        if show {
            elements.push(("display", Node::Text(display.to_owned())));
        }
    }

    fn translate(&mut self, table: usize, code: &str, conversion: &'m Conversion, env: &Env<'_, 'm>) -> Translated {
        let row = self.row(table, code, env);
        self.looked_up(table, code, row);
        if let Some(row) = row {
            return Translated::To(row_coding(row));
        }
        let Some(table) = self.code.tables.get(table) else { return Translated::Keep };
        // What is kept as the sender wrote it is not lost.
        if !matches!(table.unmapped, UnmappedX::Keep) {
            self.not_known(Some(&table.name), code, &conversion.place);
            self.finding("unmapped-code", format!("a code that table {} does not have", table.name), &conversion.place, &conversion.line);
        }
        match &table.unmapped {
            UnmappedX::Keep => Translated::Keep,
            UnmappedX::Text => Translated::Text,
            UnmappedX::Drop => Translated::Nothing,
            UnmappedX::Code(row) => Translated::To(row_coding(row)),
            UnmappedX::Absent => Translated::To(absent()),
            UnmappedX::Refuse => {
                self.refuse_code(&table.name, conversion);
                Translated::Nothing
            }
        }
    }

    /// A primitive code or text as CodeableConcept or Coding.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn concept(
        &mut self,
        value: &Value<'m>,
        coding: bool,
        table: Option<&'m CodeTable>,
        translate: Option<usize>,
        text: bool,
        conversion: &'m Conversion,
        env: &Env<'_, 'm>,
    ) -> Option<Node> {
        let made = match value {
            Value::Row(row) => row_coding(row),
            other => {
                let code = trimmed(self.text_of(other));
                if code.is_empty() {
                    return None;
                }
                let translated = match translate {
                    Some(table) => self.translate(table, &code, conversion, env),
                    None => Translated::Keep,
                };
                match translated {
                    Translated::To(coding) => coding,
                    Translated::Nothing => return None,
                    Translated::Text => return Some(Node::Object(vec![("text", Node::Text(code.into_owned()))])),
                    Translated::Keep if text => return Some(Node::Object(vec![("text", Node::Text(code.into_owned()))])),
                    Translated::Keep => {
                        let mut elements = Vec::with_capacity(3);
                        elements.push(("code", Node::Text(code.into_owned())));
                        let mut made = Node::Object(elements);
                        self.with_table(&mut made, table);
                        // A code outside its table is the sender's own: as text, since nobody could look it up.
                        if let (false, Node::Object(elements)) = (coding, &mut made)
                            && let [(name, _)] = elements.as_mut_slice()
                        {
                            *name = "text";
                            return Some(made);
                        }
                        made
                    }
                }
            }
        };
        Some(if coding { made } else { Node::Object(vec![("coding", Node::List(vec![made]))]) })
    }
}

enum Translated {
    To(Node),
    Keep,
    Text,
    Nothing,
}

fn row_coding(row: &Row) -> Node {
    let mut elements = Vec::with_capacity(3);
    if let Some(system) = row.system.as_deref().filter(|s| !s.is_empty()) {
        elements.push(("system", Node::Text(system.to_owned())));
    }
    elements.push(("code", Node::Text(row.code.clone())));
    if let Some(display) = row.display.as_deref().filter(|d| !d.is_empty()) {
        elements.push(("display", Node::Text(display.to_owned())));
    }
    Node::Object(elements)
}

fn absent() -> Node {
    Node::Object(vec![
        ("system", Node::Text("http://terminology.hl7.org/CodeSystem/data-absent-reason".to_owned())),
        ("code", Node::Text("unknown".to_owned())),
        ("display", Node::Text("Unknown".to_owned())),
    ])
}

fn coding_code(node: &Node) -> Option<&str> {
    let Node::Object(elements) = node else { return None };
    elements.iter().find_map(|(n, v)| if let (&"code", Node::Text(t)) = (n, v) { Some(t.as_str()) } else { None })
}

fn coding_display(node: &Node) -> Option<String> {
    let Node::Object(elements) = node else { return None };
    elements.iter().find_map(|(n, v)| if let (&"display", Node::Text(t)) = (n, v) { Some(t.clone()) } else { None })
}
