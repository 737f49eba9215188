//! Values to FHIR. What does not convert yields nothing, and a finding that says where.

use crate::fhir::{Node, is_plain};
use crate::hl7v2::{Moment, Part, Precision};
use crate::route::code::{CodeTable, Coded, Conversion, Join, Row, UnmappedX, decimal};
use crate::route::lineage::Step;
use crate::route::run::trace::Inner;
use crate::route::run::value::{Value, Values};
use crate::route::run::{Env, Run};

/// What a join gives: a node, perhaps under a branch's name of its own, and whether the message contributed.
type Converted = Option<(Option<&'static str>, Node)>;

impl<'m> Run<'m> {
    pub(crate) fn convert(&mut self, values: Values<'m>, conversion: &'m Conversion, env: &Env<'_, 'm>) -> Values<'m> {
        if values.is_empty() {
            // An identifier without an authority takes the listener's; that alone makes no identifier.
            if let Join::System { identifier: true, .. } = conversion.join {
                let uri = self.missing_system(&self.identifier_kind(env));
                return Values::option(uri.map(|u| Value::Node(Box::new((conversion.name, Node::Text(u))))), false);
            }
            return Values::none();
        }
        let alive = values.alive;
        let mut out = Values { alive, ..Values::none() };
        let mut rest = 0;
        for value in values {
            if conversion.single && !out.is_empty() {
                rest += 1;
                continue;
            }
            let (mark, part) = (self.noted(|t| t.next_value()), part_of(&value));
            if let Some((name, node)) = self.convert_one(value, &conversion.join, conversion, env) {
                self.note(|t| mark.iter().for_each(|m| t.born(*m, part, name.unwrap_or(conversion.name), &node, true)));
                out.push(Value::Node(Box::new((name.unwrap_or(conversion.name), node))));
            }
        }
        if rest > 0 {
            self.finding("not-carried", format!("{rest} more than the one value that fits"), &conversion.place, &conversion.line);
        }
        out
    }

    /// The same, straight into an element: what nearly every line does.
    pub(crate) fn convert_into(
        &mut self,
        values: Values<'m>,
        conversion: &'m Conversion,
        env: &Env<'_, 'm>,
        name: &'static str,
        out: &mut Vec<(&'static str, Node)>,
    ) -> bool {
        if values.is_empty() {
            if let Join::System { identifier: true, .. } = conversion.join
                && let Some(uri) = self.missing_system(&self.identifier_kind(env))
            {
                let node = Node::Text(uri);
                self.note(|t| t.node(name, &node, Inner::Leaf));
                out.push((name, node));
            }
            return false;
        }
        let alive = values.alive;
        let from = out.len();
        let mut rest = 0;
        for value in values {
            if conversion.single && out.len() > from {
                rest += 1;
                continue;
            }
            let (mark, part) = (self.noted(|t| t.next_value()), part_of(&value));
            if let Some((branch, node)) = self.convert_one(value, &conversion.join, conversion, env) {
                let branch = branch.unwrap_or(conversion.name);
                let name = if branch == "value" { name } else { branch };
                self.note(|t| mark.iter().for_each(|m| t.born(*m, part, name, &node, false)));
                out.push((name, node));
            } else {
                self.note(|t| t.forget_child());
            }
        }
        if rest > 0 {
            self.finding("not-carried", format!("{rest} more than the one value that fits"), &conversion.place, &conversion.line);
        }
        alive && out.len() > from
    }

    fn convert_one(&mut self, value: Value<'m>, join: &'m Join, conversion: &'m Conversion, env: &Env<'_, 'm>) -> Converted {
        let value = match value {
            Value::Node(node) => return Some((None, node.1)),
            other => other,
        };
        if let Value::Part(_, at) = &value {
            self.at = Some(*at);
        }
        let node = match join {
            Join::Same => match value {
                Value::Made(entry) => self.reference_node(entry),
                _ => None,
            },
            Join::Text => self.string(&value, conversion),
            Join::Code => {
                let text = self.text_of(&value);
                let code: Vec<&str> = text.split_whitespace().collect();
                self.note(|t| {
                    if code.join(" ") != text {
                        t.step(Step::Converted("blanks were taken out of the code".to_owned()), None)
                    }
                });
                (!code.is_empty()).then(|| Node::Text(code.join(" ")))
            }
            Join::SameCodes(set) => {
                let text = self.text_of(&value);
                let code = text.trim();
                if set.find(code).is_some() {
                    self.note(|t| t.step(Step::Converted(format!("the same code in {}", set.name())), None));
                    Some(Node::Text(code.to_owned()))
                } else {
                    if !code.is_empty() {
                        self.note(|t| t.step(Step::Failed(format!("the code is not in {}", set.name())), None));
                        self.finding("unmapped-code", format!("a code that is not in {}", set.name()), &conversion.place, &conversion.line);
                    }
                    None
                }
            }
            Join::Table(table) => return self.by_table(&value, *table, conversion, env),
            Join::Boolean => self.boolean(&value, conversion),
            Join::BooleanTable(table) => {
                let text = self.text_of(&value).into_owned();
                let row = self.row(*table, text.trim(), env);
                self.looked_up(*table, text.trim(), row);
                match row.map(|r| r.code.clone()).as_deref() {
                    Some("true") => Some(Node::Bool(true)),
                    Some("false") => Some(Node::Bool(false)),
                    _ => self.failed("no true or false for this code", conversion),
                }
            }
            Join::Decimal => {
                let text = self.text_of(&value);
                match number(&text) {
                    Some(n) => {
                        self.note(|t| {
                            if n != text {
                                t.step(Step::Converted("written as JSON writes numbers".to_owned()), None)
                            }
                        });
                        Some(Node::Number(n))
                    }
                    None if text.trim().is_empty() => None,
                    None => self.failed("not a number", conversion),
                }
            }
            Join::Integer(least) => {
                let text = self.text_of(&value);
                let whole = decimal(&text).filter(|d| d.is_integer()).and_then(|d| bigdecimal::ToPrimitive::to_i64(&d));
                match whole.filter(|n| n >= least && i32::try_from(*n).is_ok()) {
                    Some(n) => Some(Node::Number(n.to_string())),
                    None if text.trim().is_empty() => None,
                    None => self.failed("not a whole number in range", conversion),
                }
            }
            Join::NumberText => Some(Node::Text(self.text_of(&value).into_owned())),
            Join::Date | Join::DateTime | Join::Instant | Join::Time => self.time(&value, join, conversion),
            Join::System { identifier, entity } => {
                let kind = if *identifier { self.identifier_kind(env) } else { String::new() };
                let uri = self.system_uri(&value, &kind, *entity);
                self.note(|t| {
                    let sent = part_of(&value).map_or_else(|| self.text_of(&value), |p| self.message.raw_text(p)).into_owned();
                    t.step(Step::System { sent, uri: uri.clone() }, None);
                });
                match uri {
                    Some(uri) => Some(Node::Text(uri)),
                    None if *entity => None,
                    None => {
                        self.finding("missing-authority", "no system URI for this authority or coding system", &conversion.place, &conversion.line);
                        None
                    }
                }
            }
            Join::Uri => self.uri(&value, conversion),
            Join::Concept { coding, table, translate, text } => self.concept(&value, *coding, table.as_ref(), *translate, *text, conversion, env),
            Join::Map { map, arguments, coded } => return self.by_map(value, *map, arguments, coded.as_ref(), conversion, env),
            Join::Reference { map, arguments, .. } => self.make_shared(*map, value, arguments, env, None),
            Join::Varies(joins) => {
                let Value::Part(_, at) = &value else { return None };
                let kind = self.message.component(self.message.field(at.segment as usize, 2), 1);
                self.note(|t| t.touch(kind));
                let kind = self.text_at(kind);
                self.note(|t| t.step(Step::Converted(format!("OBX-2 says that it is {}", kind.trim())), None));
                // A value whose type nobody named is text: nothing else can be said of it, and it must not be lost.
                let kind = if kind.trim().is_empty() { "ST" } else { kind.trim() };
                match joins.get(kind) {
                    Some((join, name)) => return self.convert_one(value, join, conversion, env).map(|(n, node)| (n.or(Some(name)), node)),
                    None => self.failed("the type that OBX-2 names has no way here", conversion),
                }
            }
            Join::Duration => match value {
                Value::Duration(span) => Some(Node::Object(vec![
                    ("value", Node::Number(span.count.to_string())),
                    ("unit", Node::Text(span.unit.to_owned())),
                    ("system", Node::Text("http://unitsofmeasure.org".to_owned())),
                    ("code", Node::Text(span.unit.to_owned())),
                ])),
                _ => None,
            },
        };
        node.map(|n| (None, n))
    }

    /// `unmapped: refuse`: the delivery waits until somebody adds the row.
    fn refuse_code(&mut self, table: &str, conversion: &Conversion) {
        self.note(|t| t.step(Step::Failed(format!("table {table} refuses codes that it does not have")), None));
        let text = format!("{} has a code that table {table} does not have, and the table refuses unknown codes; add a row", conversion.place);
        self.halt("unmapped-code", text, vec![conversion.place.to_string()], &conversion.line);
    }

    fn failed(&mut self, what: &str, conversion: &Conversion) -> Option<Node> {
        if self.route.refuse_invalid {
            self.halt("invalid", format!("{}: {what}", conversion.place), vec![conversion.place.to_string()], &conversion.line);
        }
        self.note(|t| t.step(Step::Failed(what.to_owned()), None));
        self.finding("conversion", what.to_owned(), &conversion.place, &conversion.line);
        None
    }

    /// Text as FHIR allows it: no control characters but tab and line ends, and never empty.
    fn string(&mut self, value: &Value<'m>, conversion: &'m Conversion) -> Option<Node> {
        let text = self.text_of(value);
        if text.trim().is_empty() {
            return None;
        }
        if is_plain(&text) && self.trace.is_none() {
            return Some(Node::Text(text.into_owned()));
        }
        let forbidden = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
        if text.contains(forbidden) {
            self.note(|t| t.step(Step::Converted("control characters were left out".to_owned()), None));
            self.finding("conversion", "control characters that FHIR does not allow were left out", &conversion.place, &conversion.line);
            return Some(Node::Text(text.chars().filter(|c| !forbidden(*c)).collect()));
        }
        self.note(|t| {
            let escaped = part_of(value).is_some_and(|p| self.message.raw(self.leaf(p)).contains(&self.message.delimiters().escape.unwrap_or(b'\\')));
            if escaped {
                t.step(Step::Converted("escape sequences were resolved".to_owned()), None);
            }
        });
        Some(Node::Text(text.into_owned()))
    }

    fn boolean(&mut self, value: &Value<'m>, conversion: &'m Conversion) -> Option<Node> {
        if let Value::Bool(b) = value {
            return Some(Node::Bool(*b));
        }
        match self.text_of(value).trim() {
            "" => None,
            yes @ ("Y" | "y" | "N" | "n") => {
                let yes = yes.eq_ignore_ascii_case("Y");
                self.note(|t| t.step(Step::Converted(format!("table 0136: {yes}")), None));
                Some(Node::Bool(yes))
            }
            _ => self.failed("neither Y nor N (table 0136)", conversion),
        }
    }

    fn time(&mut self, value: &Value<'m>, join: &Join, conversion: &'m Conversion) -> Option<Node> {
        let text = self.text_of(value);
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        if let Join::Time = join {
            let clock =
                crate::hl7v2::ClockTime::read(text).map(|c| c.fhir_time()).or_else(|| Moment::read(text).filter(Moment::has_time).map(|m| m.clock.fhir_time()));
            return match clock {
                Some(time) => Some(Node::Text(time)),
                None => self.failed("not a time", conversion),
            };
        }
        let Some(moment) = Moment::read(text).filter(|m| m.year > 0) else { return self.failed("not a date or time", conversion) };
        match join {
            Join::Date => {
                self.note(|t| {
                    if moment.has_time() {
                        t.step(Step::Converted("to a date: the time of day is left out".to_owned()), None)
                    }
                });
                Some(Node::Text(moment.fhir_date()))
            }
            Join::DateTime => {
                let offset = if moment.has_time() { Some(self.offset_for(&moment)) } else { None };
                Some(Node::Text(moment.fhir_datetime(offset)))
            }
            _ => {
                let offset = self.offset_for(&moment);
                // Senders write SCH-11.4 to the minute, and an Appointment without a start is invalid (app-3): zero seconds, as in a dateTime.
                if moment.precision >= Precision::Minute {
                    Some(Node::Text(moment.fhir_datetime(Some(offset))))
                } else {
                    self.failed("an instant needs at least minutes", conversion)
                }
            }
        }
    }

    fn uri(&mut self, value: &Value<'m>, conversion: &'m Conversion) -> Option<Node> {
        let text = self.text_of(value);
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        if text.contains(char::is_whitespace) {
            return self.failed("not a URI", conversion);
        }
        Some(Node::Text(text.to_owned()))
    }

    fn looked_up(&self, table: usize, code: &str, row: Option<&Row>) {
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
    fn by_table(&mut self, value: &Value<'m>, table: usize, conversion: &'m Conversion, env: &Env<'_, 'm>) -> Converted {
        let text = self.text_of(value).trim().to_owned();
        if text.is_empty() {
            return None;
        }
        let row = self.row(table, &text, env);
        self.looked_up(table, &text, row);
        if let Some(row) = row {
            return Some((None, Node::Text(row.code.clone())));
        }
        let table = self.code.tables.get(table)?;
        // Not for what the engine gives: a table of events names those that mean something, and the others mean nothing.
        if !conversion.place.is_empty() {
            self.finding("unmapped-code", format!("a code that table {} does not have", table.name), &conversion.place, &conversion.line);
        }
        match &table.unmapped {
            UnmappedX::Code(row) => Some((None, Node::Text(row.code.clone()))),
            UnmappedX::Absent => {
                let extension = Node::Object(vec![
                    ("url", Node::Text("http://hl7.org/fhir/StructureDefinition/data-absent-reason".to_owned())),
                    ("valueCode", Node::Text("unknown".to_owned())),
                ]);
                Some((Some(conversion.companion), Node::Object(vec![("extension", Node::List(vec![extension]))])))
            }
            UnmappedX::Refuse => {
                self.refuse_code(&table.name, conversion);
                None
            }
            UnmappedX::Keep | UnmappedX::Text | UnmappedX::Drop => None,
        }
    }

    fn by_map(
        &mut self,
        value: Value<'m>,
        map: usize,
        arguments: &'m [crate::route::code::X],
        coded: Option<&'m Coded>,
        conversion: &'m Conversion,
        env: &Env<'_, 'm>,
    ) -> Converted {
        let code = self.code.maps.get(map)?;
        let inner = Env::map(Some(value.clone()), arguments, Some(env));
        let mut out = self.spare.pop().unwrap_or_default();
        self.note(|t| t.call(&code.head));
        let alive = self.body(&code.body, &inner, conversion.name, &mut out);
        self.note(|t| t.returned(code.choice));
        let first = out.drain(..).next();
        self.spare.push(out);
        let (name, node) = first.filter(|_| alive)?;
        if code.choice {
            let Node::Object(elements) = node else { return None };
            let (branch, node) = elements.into_iter().next()?;
            return Some((Some(branch), node));
        }
        let node = match coded {
            Some(coded) => self.complete(node, coded, &value, conversion, env)?,
            None => node,
        };
        let name = (name != conversion.name && name.starts_with('_')).then_some(name);
        Some((name, node))
    }

    /// A coded value's first coding: translated where a table joins the two code systems, else with the v2 table as its system.
    fn complete(&mut self, node: Node, coded: &Coded, value: &Value<'m>, conversion: &'m Conversion, env: &Env<'_, 'm>) -> Option<Node> {
        let code = self.text_of(value).trim().to_owned();
        let translated = match coded.translate {
            Some(table) if !code.is_empty() => self.translate(table, &code, conversion, env),
            _ => Translated::Keep,
        };
        self.note(|t| {
            if matches!(translated, Translated::To(_)) {
                t.translated()
            }
        });
        let first = |node: Node, run: &Self| match translated {
            Translated::To(ref coding) => Some(coding.clone()),
            Translated::Keep => Some(run.with_table(node, coded.table.as_ref())),
            Translated::Text | Translated::Nothing => None,
        };
        if coded.coding {
            return first(node, self);
        }
        let Node::Object(mut elements) = node else { return Some(node) };
        let text = matches!(translated, Translated::Text);
        if matches!(translated, Translated::Nothing) {
            return None;
        }
        if let Some(at) = elements.iter().position(|(n, _)| *n == "coding") {
            let (_, codings) = elements.remove(at);
            let Node::List(codings) = codings else { return Some(Node::Object(elements)) };
            let mut kept = Vec::with_capacity(codings.len());
            let mut left = None;
            for (n, coding) in codings.into_iter().enumerate() {
                let is_first = n == 0 && coding_code(&coding).is_some_and(|c| c == code);
                if is_first {
                    let display = coding_display(&coding);
                    match first(coding, self) {
                        Some(coding) => {
                            if matches!(translated, Translated::To(_)) {
                                left = display;
                            }
                            kept.push(coding);
                        }
                        None => left = display.or_else(|| Some(code.clone())),
                    }
                } else {
                    kept.push(self.with_table(coding, None));
                }
            }
            if !kept.is_empty() {
                elements.insert(at, ("coding", Node::List(kept)));
            }
            // What the sender called it is not lost when the code is translated.
            if let Some(left) = left
                && !elements.iter().any(|(n, _)| *n == "text")
                && !left.is_empty()
            {
                elements.push(("text", Node::Text(left)));
            }
        } else if let Translated::To(coding) = &translated {
            elements.insert(0, ("coding", Node::List(vec![coding.clone()])));
        }
        if text && !elements.iter().any(|(n, _)| *n == "text") && !code.is_empty() {
            elements.push(("text", Node::Text(code)));
        }
        (!elements.is_empty()).then_some(Node::Object(elements))
    }

    /// A coding without a system gets that of the field's v2 table, if the table has the code; an HL7 table's code gets its display.
    fn with_table(&self, coding: Node, table: Option<&CodeTable>) -> Node {
        let Node::Object(mut elements) = coding else { return coding };
        if elements.iter().any(|(n, _)| *n == "system") {
            return Node::Object(elements);
        }
        let code = elements.iter().find_map(|(n, v)| if let (&"code", Node::Text(t)) = (n, v) { Some(t.as_str()) } else { None });
        if let (Some(table), Some(code)) = (table, code)
            && let Some(display) =
                (table.newest.and_then(|t| t.display(code))).or_else(|| crate::hl7v2::table(self.message.version(), table.id).and_then(|t| t.display(code)))
        {
            self.note(|t| t.step(Step::Converted(format!("v2 table {} has the code: its system and display are HL7's", table.id)), None));
            elements.insert(0, ("system", Node::Text(table.system.to_string())));
            if !elements.iter().any(|(n, _)| *n == "display") && !display.is_empty() {
                elements.push(("display", Node::Text(display.to_owned())));
            }
        }
        Node::Object(elements)
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
    fn concept(
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
                let code = self.text_of(other).trim().to_owned();
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
                    Translated::Text => return Some(Node::Object(vec![("text", Node::Text(code))])),
                    Translated::Keep if text => return Some(Node::Object(vec![("text", Node::Text(code))])),
                    Translated::Keep => {
                        let made = self.with_table(Node::Object(vec![("code", Node::Text(code.clone()))]), table);
                        // A code outside its table is the sender's own: as text, since nobody could look it up.
                        if !coding && !matches!(&made, Node::Object(e) if e.iter().any(|(n, _)| *n == "system")) {
                            return Some(Node::Object(vec![("text", Node::Text(code))]));
                        }
                        made
                    }
                }
            }
        };
        Some(if coding { made } else { Node::Object(vec![("coding", Node::List(vec![made]))]) })
    }

    /// CX.5 of the identifier whose map is running.
    fn identifier_kind(&self, env: &Env<'_, 'm>) -> String {
        match env.slot(0) {
            Some(Value::Part(part, _)) => {
                let kind = self.down(part, 5);
                self.note(|t| t.touch(kind));
                if self.message.is_valued(kind) { self.text_at(self.leaf(kind)).trim().to_owned() } else { String::new() }
            }
            _ => String::new(),
        }
    }
}

fn part_of(value: &Value<'_>) -> Option<Part> {
    if let Value::Part(part, _) = value { Some(*part) } else { None }
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

/// NM as a JSON number: as written, where JSON allows it (`1.50` stays), else with the zeros that it asks for.
fn number(text: &str) -> Option<String> {
    decimal(text)?;
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}
