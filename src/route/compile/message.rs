//! `message:` of a route and maps to v2: messages, groups and segments against the abstract syntax (section 10 of the language).

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir;
use crate::hl7v2::{self, Level, Structure};
use crate::route::compile::Compiler;
use crate::route::compile::header::header_line;
use crate::route::compile::outgoing::Out;
use crate::route::compile::scope::{Entry, Let, Scope};
use crate::route::keys::AS_RECEIVED;
use crate::route::names::intern;
use crate::route::outgoing::{Copied, GroupBody, MessageX, PartItem, PartLine, SegmentBody, SegmentSource};
use crate::route::scope::Lookup;
use crate::route::tree::{self, Expr, ExprKind, Item, Key, Line, Literal, RouteDoc};
use crate::route::types::Ty;

/// What is known of the message that a body belongs to.
pub(crate) struct Making {
    /// The structures that it may have, over all versions; empty if they are not known.
    structures: Vec<Structure>,
    copy: Copied,
}

impl Making {
    /// The segment that a group is about: the first that it must have, else its first.
    fn main_segment(&self, group: &str) -> Option<&'static str> {
        let found = |s: &Structure| {
            let group = s.nodes().find(|n| s.node(*n).is_group && s.node(*n).name == group)?;
            let segments = || s.children(group).map(|c| s.node(c)).filter(|c| !c.is_group);
            segments().find(|c| c.min > 0).or_else(|| segments().next()).map(|c| c.name)
        };
        self.structures.iter().rev().find_map(found)
    }
}

/// A key of a message's or group's body.
struct PartKey {
    anchors: Vec<String>,
    name: &'static str,
    is_group: bool,
    /// `PID-3.4`: field and components.
    at: Vec<u16>,
}

impl<'a> Compiler<'a> {
    /// `message:` of a route.
    pub(crate) fn message(&mut self, doc: &'a RouteDoc, body: &'a tree::Body, mut scope: Scope<'a>) -> Option<MessageX> {
        let copy = match body.copy.as_slice() {
            [] => Copied::Nothing,
            [all] if all.text == "all" => Copied::All,
            [word] if word.text == AS_RECEIVED => Copied::AsReceived,
            names => {
                for name in names {
                    if !self.v2.is_segment(&name.text) {
                        self.unknown_segment(name);
                    }
                }
                Copied::Segments(names.iter().map(|n| n.text.clone()).collect())
            }
        };
        for (used, what) in
            [(body.from.is_some(), "$from"), (body.first.is_some(), "$first"), (body.value.is_some(), "$value"), (!body.with.is_empty(), "$with")]
        {
            if used {
                self.report(
                    Diagnostic::error("K105", body.span, format!("`{what}` has no meaning at the top of a message"))
                        .help("`$copy` begins with the message as it came"),
                );
            }
        }
        if copy == Copied::AsReceived && !(body.lines.is_empty() && body.each.is_none() && body.when.is_none() && body.lets.is_empty()) {
            self.report(
                Diagnostic::error("K620", body.span, "a message that goes on as received is not changed")
                    .label("these lines would do nothing")
                    .help("write `$copy: all` to begin with the message and change it; a condition for all of it is the route's `when:`"),
            );
        }
        let named = header_line(body, "MSH-9").map(|(_, item)| item);
        let kind = match (named, &doc.reply) {
            (Some(Item::Constant(kind)), _) => Some(kind),
            (None, Some(reply)) => Some(reply),
            _ => None,
        };
        if named.is_none() && kind.is_none() && !copy.covers("MSH") {
            self.report(
                Diagnostic::error("K215", body.span, "nothing says of which type the message is")
                    .label("no MSH-9")
                    .help("add a line such as `MSH-9: \"ADT^A08^ADT_A01\"`, or begin with `$copy: all`"),
            );
        }
        let kinds: Vec<&str> = match kind {
            Some(kind) => {
                self.check_kind(kind);
                vec![kind.text.as_str()]
            }
            None => doc.on.iter().map(|k| k.text.as_str()).collect(),
        };
        let version = header_line(body, "MSH-12").and_then(|(_, item)| if let Item::Constant(key) = item { hl7v2::Version::known(&key.text) } else { None });
        let charset = self.written_charset(body);
        let making = Making { structures: crate::route::compile::routes::structures(&kinds), copy: copy.clone() };
        let from = scope.entries.len();
        let mut each = None;
        if let Some(values) = &body.each {
            each = Some(self.each(&mut scope, values).0);
        }
        let reach = scope.entries.len();
        scope.lets.extend(body.lets.iter().map(|(name, item)| Let { name, item, entries: reach }));
        let when = body.when.as_ref().map(|w| self.condition(&mut scope, w).x);
        let lines = self.part_lines(&mut scope, &making, &body.lines);
        if let (Some(values), true) = (&body.each, copy.covers("MSH")) {
            self.check_control_id(&scope, from, &lines, values.values.span);
        }
        let line = self.line(body.span);
        let copy_at = body.copy.first().map(|key| self.spot(key.span));
        Some(MessageX { version, charset, each, when, copy, copy_at, kind: kind.map(|k| k.text.clone()), reply: doc.reply.is_some(), lines, line })
    }

    fn part_lines(&mut self, scope: &mut Scope<'a>, making: &Making, lines: &'a [Line]) -> Vec<PartLine> {
        lines.iter().filter_map(|line| self.part_line(scope, making, line)).collect()
    }

    fn part_line(&mut self, scope: &mut Scope<'a>, making: &Making, line: &'a Line) -> Option<PartLine> {
        let key = self.part_key(making, &line.element, line.append)?;
        let lookup = (!key.anchors.is_empty()).then(|| self.lookup(Lookup { all: false, anchors: key.anchors.clone(), segment: key.name.to_owned() }));
        let current = making.copy.covers(key.name);
        let item = if key.is_group {
            self.group_item(scope, making, &line.item, key.name, !line.append)?
        } else if key.at.is_empty() {
            self.segment_item(scope, key.name, &line.item, current && !line.append)?
        } else {
            let mut body = SegmentBody { name: key.name, slot: scope.entries.len(), current, ..SegmentBody::default() };
            if current {
                scope.push(Entry::one(Ty::Segment(key.name), None, Some(key.name)));
            }
            let made = self.field_line(scope, key.name, key.at, line);
            scope.entries.truncate(body.slot);
            let (made, constant) = made?;
            body.constant = constant;
            body.lines.push(made);
            let (line, column) = self.spot(line.element.span);
            return Some(PartLine {
                name: key.name,
                is_group: false,
                lookup,
                append: false,
                item: PartItem::Fields(Box::new(body)),
                line,
                column,
                places: Vec::new(),
            });
        };
        let places = match &item {
            PartItem::Segments(source) => source.places.clone(),
            _ => Vec::new(),
        };
        let (spot, column) = self.spot(line.element.span);
        Some(PartLine { name: key.name, is_group: key.is_group, lookup, append: line.append, item, line: spot, column, places })
    }

    /// What a key of a message means; `None` after a diagnostic.
    fn part_key(&mut self, making: &Making, key: &Key, append: bool) -> Option<PartKey> {
        let (left, right) = key.text.split_once('-').map_or((key.text.as_str(), None), |(l, r)| (l, Some(r)));
        let mut anchors: Vec<String> = left.split('.').map(str::to_owned).collect();
        let name = anchors.pop().unwrap_or_default();
        let at: Option<Vec<u16>> = match right {
            None => Some(Vec::new()),
            Some(right) => right.split('.').map(|n| n.parse::<u16>().ok().filter(|n| *n > 0)).collect(),
        };
        let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        let Some(at) = at.filter(|at| at.len() <= 3 && word(&name) && anchors.iter().all(|a| word(a))) else {
            self.report(
                Diagnostic::error("K213", key.span, format!("{} is no segment, group or field", key.text))
                    .label("a line of a message")
                    .help("write a segment (PID), a field (PID-3), a component (PID-3.4) or a group (PATIENT)"),
            );
            return None;
        };
        let nodes = || making.structures.iter().flat_map(|s| s.nodes().map(|n| s.node(n)));
        if self.v2.is_segment(&name) {
            let foreseen = making.structures.is_empty() || nodes().any(|n| !n.is_group && n.name == name) || hl7v2::newest_segment(&name).is_none();
            // What senders add to a structure may be changed and taken away, and is never made anew.
            let only_changes = making.copy.covers(&name) && !append;
            if !foreseen && !only_changes {
                let id = making.structures.last().map_or("", |s| s.id());
                self.report(
                    Diagnostic::error("K216", key.span, format!("{id} has no place for {name}"))
                        .label("not in the structure of this message")
                        .help("a segment of a site's own begins with Z and is declared with `segment:`"),
                );
                return None;
            }
            return Some(PartKey { anchors, name: intern(&name), is_group: false, at });
        }
        if at.is_empty() && nodes().any(|n| n.is_group && n.name == name) {
            return Some(PartKey { anchors, name: intern(&name), is_group: true, at });
        }
        if name.len() == 3 || right.is_some() || making.structures.is_empty() {
            self.unknown_segment(&Key { text: name, span: key.span });
            return None;
        }
        let groups: Vec<&'static str> = nodes().filter(|n| n.is_group && n.parent.is_some()).map(|n| n.name).collect();
        let help = crate::diagnostic::suggest(&name, groups.iter().copied()).map_or_else(
            || if groups.is_empty() { "this message has no groups".to_owned() } else { format!("its groups are: {}", unique(&groups).join(", ")) },
            |n| format!("did you mean {n}?"),
        );
        let id = making.structures.last().map_or("", |s| s.id());
        self.report(Diagnostic::error("K216", key.span, format!("{id} has no group {name}")).label("unknown group").help(help));
        None
    }

    /// `changes`: those that are there are changed, not made anew.
    fn group_item(&mut self, scope: &mut Scope<'a>, making: &Making, item: &'a Item, name: &str, changes: bool) -> Option<PartItem> {
        let body = match item {
            Item::Expr(Expr { kind: ExprKind::Literal(Literal::Nothing), .. }) => return Some(PartItem::Nothing),
            Item::List(items, _) => {
                return Some(PartItem::List(items.iter().filter_map(|i| self.group_item(scope, making, i, name, false)).collect()));
            }
            Item::Body(body) => {
                for (used, what) in [(body.from.is_some(), "$from"), (body.first.is_some(), "$first"), (body.value.is_some(), "$value")] {
                    if used {
                        self.report(
                            Diagnostic::error("K105", body.span, format!("`{what}` has no meaning in a group"))
                                .label(format!("{name} is a group"))
                                .help(format!("write a list of bodies, each with its `$when`: `{name}: [{{ $when: ..., ... }}]`; segments begin with `$from`")),
                        );
                    }
                }
                body
            }
            other => {
                self.report(
                    Diagnostic::error("K213", other.span(), format!("{name} is a group"))
                        .label("a group has segments")
                        .help("write a body with its segments below, or `nothing`"),
                );
                return None;
            }
        };
        let slot = scope.entries.len();
        let lets = scope.lets.len();
        let each = body.each.as_ref().map(|each| self.each(scope, each).0);
        // In a group that is copied, paths mean what stands in it.
        let current = making.main_segment(name).filter(|main| changes && each.is_none() && making.copy.covers(main));
        if let Some(main) = current {
            scope.push(Entry::one(Ty::Segment(main), None, Some(main)));
        }
        let reach = scope.entries.len();
        scope.lets.extend(body.lets.iter().map(|(name, item)| Let { name, item, entries: reach }));
        let with = self.push_with(scope, body);
        let when = body.when.as_ref().map(|w| self.condition(scope, w).x);
        // A group that is made anew has nothing copied in it.
        let anew = Making { structures: making.structures.clone(), copy: Copied::Nothing };
        let lines = self.part_lines(scope, if changes && each.is_none() { making } else { &anew }, &body.lines);
        if with {
            self.pop_with();
        }
        scope.entries.truncate(slot);
        scope.lets.truncate(lets);
        Some(PartItem::Group(Box::new(GroupBody { slot, current, each, when, lines })))
    }

    fn segment_item(&mut self, scope: &mut Scope<'a>, name: &'static str, item: &'a Item, current: bool) -> Option<PartItem> {
        match item {
            Item::Expr(Expr { kind: ExprKind::Literal(Literal::Nothing), .. }) => Some(PartItem::Nothing),
            Item::Expr(expr) => {
                // `PV1: $visit`, where `visit` is a body: a segment as it says.
                if let ExprKind::Variable(variable) = &expr.kind
                    && matches!(scope.find_let(variable), Some((Item::Body(_), _)))
                {
                    let (item, mut inner) = self.expand(scope, variable, expr.span)?;
                    return self.segment_item(&mut inner, name, item, current);
                }
                self.segment_source(scope, expr, name).map(PartItem::Segments)
            }
            Item::Body(body) => Some(PartItem::Fields(Box::new(self.segment_body(scope, name, body, current)))),
            Item::List(items, _) => Some(PartItem::List(items.iter().filter_map(|i| self.segment_item(scope, name, i, false)).collect())),
            Item::Constant(key) => {
                self.report(
                    Diagnostic::error("K213", key.span, format!("{name} is a segment"))
                        .label("a segment has fields")
                        .help(format!("write a body: {{ {name}-1: \"{}\" }}", key.text)),
                );
                None
            }
        }
    }

    /// `QPD: QPD`, `PID: Patient`: whole segments.
    fn segment_source(&mut self, scope: &mut Scope<'a>, expr: &'a Expr, name: &'static str) -> Option<SegmentSource> {
        let (inner, target) = match &expr.kind {
            ExprKind::As(inner, target) if fhir::type_named(&target.name).is_none() => (&**inner, Some(target)),
            _ => (expr, None),
        };
        let raw = self.raw(scope, inner);
        let variant = target.and_then(|t| t.variant.as_ref());
        let map = (0..self.v2_maps.len()).find(|n| {
            let map = &self.v2_maps[*n];
            map.into == name
                && map.target.variant.as_ref() == variant
                && crate::route::compile::join::fits(&raw.typed.ty, &map.from)
                && self.current_v2_map != Some(*n)
        });
        if let Some(map) = map {
            let arguments = self.v2_arguments(map);
            return Some(SegmentSource { values: raw.x, places: raw.places, map: Some((map, arguments)) });
        }
        match &raw.typed.ty {
            Ty::Segment(from) if *from == name && variant.is_none() => Some(SegmentSource { values: raw.x, places: raw.places, map: None }),
            Ty::Nothing => None,
            other => {
                let from = crate::route::compile::join::bare(other);
                self.report(
                    Diagnostic::error("K401", expr.span, format!("no way leads from {} to the segment {name}", other.name()))
                        .label(format!("makes no {name}"))
                        .help(format!("add `map: {from} -> {name}`, or write its fields in a body")),
                );
                None
            }
        }
    }

    /// `{ MSH-5: "WARD" }`. `current`: the lines change the copied segment.
    pub(crate) fn segment_body(&mut self, scope: &mut Scope<'a>, name: &'static str, body: &'a tree::Body, current: bool) -> SegmentBody {
        let depth = scope.entries.len();
        let lets = scope.lets.len();
        scope.lets.extend(body.lets.iter().map(|(name, item)| Let { name, item, entries: depth }));
        let mut made = SegmentBody { name, slot: depth, from_slot: depth, ..SegmentBody::default() };
        if let Some(each) = &body.each {
            made.each = Some(self.each(scope, each).0);
            made.from_slot += 1;
        } else if current && body.from.is_none() && body.value.is_none() {
            made.current = true;
            scope.push(Entry::one(Ty::Segment(name), None, Some(name)));
        }
        let reach = scope.entries.len();
        scope.lets.iter_mut().skip(lets).for_each(|l| l.entries = reach);
        let with = self.push_with(scope, body);
        if let Some(when) = &body.when {
            made.when = Some(self.condition(scope, when).x);
        }
        if let Some(from) = &body.from {
            made.from = self.segment_source(scope, &from.values, name);
            scope.push(Entry::one(Ty::Segment(name), None, Some(name)));
        }
        made.constant = made.from.is_none();
        if let Some(value) = &body.value {
            made.value = match &**value {
                Item::Expr(expr) => self.segment_source(scope, expr, name),
                other => {
                    let fault = Diagnostic::error("K213", other.span(), format!("`$value` of {name} is no segment"));
                    self.report(fault.label("a segment is wanted").help(format!("write `$value: {name}`, or the fields as lines of the body")));
                    None
                }
            };
        }
        self.check_alternatives(body);
        for item in body.first.iter().flatten() {
            let whole = matches!(item, Item::Body(b) if b.each.is_some() || b.from.is_some() || b.value.is_some()) || matches!(item, Item::List(..));
            let nothing = matches!(item, Item::Expr(Expr { kind: ExprKind::Literal(Literal::Nothing), .. }));
            if made.current && (whole || matches!(item, Item::Expr(_)) && !nothing) {
                let fault = Diagnostic::error("K213", item.span(), format!("an alternative for a copied {name} says how to change it"));
                self.report(fault.label("makes new segments").help(format!(
                    "write a body with fields, or `nothing` to take it away; `{name}+: ...` adds segments, and `{name}: {{ $each: {name}, $first: [...] }}` makes all anew"
                )));
                continue;
            }
            made.first.extend(self.segment_item(scope, name, item, made.current));
        }
        if let (Some(line), true) = (body.lines.first(), body.first.is_some() || body.value.is_some()) {
            let what = if body.first.is_some() { "$first" } else { "$value" };
            let fault = Diagnostic::error("K105", line.element.span, format!("`{what}` says what the whole {name} is"));
            self.report(fault.label("never counts").help("put the line into the alternatives, or use `$from`, whose lines change what it begins with"));
        }
        let mut set = Vec::new();
        for line in &body.lines {
            let Some(at) = self.field_key(name, &line.element) else { continue };
            set.extend(at.first().copied());
            if let Some((line, constant)) = self.field_line(scope, name, at, line) {
                made.constant &= constant;
                made.lines.push(line);
            }
        }
        if !current && made.from.is_none() && made.value.is_none() && made.first.is_empty() {
            self.check_fields(name, &set, body.span);
        }
        if with {
            self.pop_with();
        }
        scope.entries.truncate(depth);
        scope.lets.truncate(lets);
        made
    }

    /// `PID-3.4` in the body of a PID.
    fn field_key(&mut self, segment: &str, key: &Key) -> Option<Vec<u16>> {
        let numbers = key.text.strip_prefix(segment).and_then(|rest| rest.strip_prefix('-'));
        let numbers: Option<Vec<u16>> = numbers.and_then(|n| n.split('.').map(|n| n.parse::<u16>().ok().filter(|n| *n > 0)).collect());
        if let Some(numbers) = numbers.filter(|n| n.len() <= 3) {
            return Some(numbers);
        }
        let fault = Diagnostic::error("K213", key.span, format!("{} is no field of {segment}", key.text)).label("which field?");
        self.report(fault.help(format!("fields are written {segment}-1, components {segment}-1.2")));
        None
    }

    fn field_line(&mut self, scope: &mut Scope<'a>, segment: &'static str, at: Vec<u16>, line: &'a Line) -> Option<(crate::route::outgoing::ValueLine, bool)> {
        let (field, rest) = at.split_first()?;
        if segment == "MSH" && *field <= 2 {
            self.report(
                Diagnostic::error("K213", line.element.span, format!("MSH-{field} is not for a route to set"))
                    .label("delimiters")
                    .help("a copy keeps those of the message, a new message has |^~\\&"),
            );
            return None;
        }
        let Some(start) = self.v2.field(segment, *field) else {
            self.unknown_field(segment, *field, line.element.span);
            return None;
        };
        let facts = self.walk(start, rest, line.element.span)?;
        let level = rest.iter().fold(Level::Repetition, |level, _| crate::route::compile::outgoing::below(level));
        let mut out = Out::of(facts, level, line.element.text.clone());
        out.repeats = start.repeats && rest.is_empty();
        out.length = rest.is_empty().then(|| longest(segment, *field)).flatten();
        Some(self.value_line(scope, line, at, &out))
    }

    /// K305 as a warning: what the newest version requires and no line makes.
    fn check_fields(&mut self, segment: &str, set: &[u16], span: Span) {
        let Some(def) = hl7v2::newest_segment(segment) else { return };
        // Kiln fills what it knows of a header.
        let known: &[u16] = if segment == "MSH" { &[1, 2, 7, 9, 10, 11, 12] } else { &[] };
        let missing = (1..=def.field_count()).filter_map(|n| {
            let number = u16::try_from(n).ok()?;
            let field = def.field(n).filter(|f| f.usage() == hl7v2::Usage::Required)?;
            (!set.contains(&number) && !known.contains(&number)).then(|| format!("{segment}-{n} ({})", field.name()))
        });
        let missing: Vec<String> = missing.collect();
        if !missing.is_empty() {
            let verb = if missing.len() == 1 { "is" } else { "are" };
            self.report(
                Diagnostic::warning("K305", span, format!("{} {verb} required by HL7, and no line makes it", missing.join(", ")))
                    .label(format!("this {segment} may be refused"))
                    .help("add a line, or begin with a segment of the message: `$from`"),
            );
        }
    }

    pub(crate) fn pop_with(&mut self) {
        let Some(level) = self.with.pop() else { return };
        for ((key, _), used) in level.items.iter().zip(level.used) {
            if !used {
                self.report(
                    Diagnostic::error("K411", key.span, format!("no map that is called here takes {}", key.text))
                        .label("parameter that nobody takes")
                        .help(format!("add `$takes: {{ {}: TYPE }}` to the map, or remove it here", key.text)),
                );
            }
        }
    }
}

/// The longest that any version allows of those that set a limit.
fn longest(segment: &str, field: u16) -> Option<u32> {
    hl7v2::Version::ALL.iter().filter_map(|v| hl7v2::segment(*v, segment)?.field(usize::from(field))?.length()).max()
}

fn unique(names: &[&'static str]) -> Vec<&'static str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(name) {
            seen.push(name);
        }
    }
    seen
}
