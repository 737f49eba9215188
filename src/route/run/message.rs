//! Messages out: a copy that its lines change, or a new one; split into several, each with its own control ID.

use crate::hl7v2::{Breach, Charset, Coding, Conformance, Draft, DraftSegment, Message, ParseOptions, Part, Piece, Structure};
use crate::route::lineage::Spot;
use crate::route::outgoing::{Copied, GroupBody, MessageX, PartItem, PartLine, SegmentBody, ValueItem};
use crate::route::program::{Output, Stop};
use crate::route::run::outgoing::place;
use crate::route::run::sheet::{Found, Sheet};
use crate::route::run::trace::Source;
use crate::route::run::value::Value;
use crate::route::run::{Env, Run, moment};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Breaches that a stop says in words; it lists the places of all.
const NAMED: usize = 5;

/// The most messages that one may become.
const DRAFTS_MAX: usize = 10_000;

impl<'m> Run<'m> {
    /// Runs `message:`.
    pub(crate) fn messages(mut self, x: &'m MessageX) -> Result<Output, Stop> {
        let copies_header = x.copy.covers("MSH");
        self.coding = if copies_header { self.message.coding() } else { Coding::OWN };
        self.coding.charset = x.charset.unwrap_or(self.coding.charset);
        let values: Vec<Option<Value<'m>>> = match &x.each {
            Some(each) => self.eval(each, &Env::root()).into_iter().map(Some).collect(),
            None => vec![None],
        };
        if values.len() > DRAFTS_MAX {
            self.halt("too-large", format!("the message becomes more than {DRAFTS_MAX}"), Vec::new(), &x.line);
        }
        let split: Vec<u32> = values.iter().flatten().filter_map(|v| self.segment_of(Some(v.clone()))).collect();
        let mut drafts = Vec::new();
        let mut control_ids: HashSet<Vec<u8>> = HashSet::new();
        for (n, value) in values.into_iter().enumerate().take(DRAFTS_MAX) {
            if !self.spend(self.message.segment_count() as u64) {
                break;
            }
            let env = Env::root();
            if x.each.is_some() {
                env.set(0, value.clone());
            }
            if let Some(when) = &x.when
                && !self.holds(when, &env)
            {
                continue;
            }
            let place = format!("{}/{}", self.route_name, place(self.message, value.as_ref(), n));
            self.lossy = false;
            let current = if let Some(Value::Segment(segment)) = value { Some(segment) } else { None };
            self.note(|t| t.begin_message());
            let mut sheet = self.sheet(x, current, &split);
            self.part_lines(&x.lines, &env, &mut sheet, 0);
            if x.copy == Copied::Nothing && !sheet.segments().any(|s| s.name() != "MSH") {
                continue;
            }
            self.header(x, &mut sheet, &place);
            if let Some(header) = sheet.header() {
                let control_id = header.written(10, &self.coding);
                if !control_ids.insert(control_id) {
                    let text = "two messages of this split have one control ID (MSH-10): the fields that are to tell them apart are equal or empty";
                    self.halt("control-id-repeats", text, vec!["MSH-10".to_owned()], &x.line);
                }
            }
            let (charset, (bytes, well)) = match x.copy {
                Copied::AsReceived => (self.message.charset(), (self.message.write().to_vec(), true)),
                _ => (self.coding.charset, sheet.write(&self.coding)),
            };
            let well = well && !self.lossy;
            self.note(|t| t.draft(bytes.clone(), charset, sheet.segments().map(DraftSegment::tag).collect()));
            if !well {
                self.finding("conversion", "a letter that the message's character set lacks, or a component that had no place", "", &x.line);
            }
            self.judge(x, &bytes, charset, well);
            drafts.push(Draft { place, bytes, charset });
        }
        let unknown = self.unknown.take();
        if let Some(stop) = self.stop {
            return Err(Stop { unknown, ..stop });
        }
        if drafts.is_empty() {
            let text = format!("the message has nothing that route {} makes a message from", self.route_name);
            self.finding("nothing-made", text, "", &x.line);
        }
        Ok(Output { findings: self.findings, drafts, unknown, ..Output::default() })
    }

    /// A message that breaks the rules of its release: a finding where the route made it whole, a reason to stop with `invalid: refuse`.
    fn judge(&mut self, x: &'m MessageX, bytes: &[u8], charset: Charset, well: bool) {
        let refuse = self.route.refuse_invalid;
        // What somebody else sent and Kiln passes on is judged only if the route asks for it.
        if !refuse && x.copy != Copied::Nothing {
            return;
        }
        let extra: Vec<(&str, &str)> = self.code.segment_places.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let options = ParseOptions { charset: Some(charset), ..ParseOptions::default() };
        let mut breaches = match Message::parse(bytes.to_vec().into(), &options) {
            Ok(message) => message.breaches(Conformance::Everything, &extra),
            Err(fault) => vec![Breach { place: fault.location.path(), text: fault.text.to_string(), code: fault.code }],
        };
        if !refuse {
            breaches.into_iter().for_each(|b| self.finding("invalid", b.text, &b.place, &x.line));
            return;
        }
        if !well {
            let text = "a letter has no place in the character set of the message, or a component none in its field".to_owned();
            breaches.push(Breach { place: "MSH-18".to_owned(), text, code: crate::hl7v2::Fault::DATA_TYPE });
        }
        if breaches.is_empty() {
            return;
        }
        let mut text = breaches.iter().take(NAMED).map(|b| b.text.as_str()).collect::<Vec<_>>().join("; ");
        if breaches.len() > NAMED {
            text.push_str(&format!("; and {} more", breaches.len() - NAMED));
        }
        let mut places: Vec<String> = Vec::new();
        breaches.into_iter().for_each(|b| {
            if !places.contains(&b.place) {
                places.push(b.place)
            }
        });
        self.halt("invalid", format!("the message that is made is not valid: {text}"), places, &x.line);
    }

    /// What the message begins with: what `$copy` takes, without the groups of the other values of a split.
    fn sheet(&mut self, x: &'m MessageX, current: Option<u32>, split: &[u32]) -> Sheet {
        if x.copy == Copied::Nothing {
            let version = x.version.unwrap_or(self.message.version());
            let structure = x.kind.as_deref().and_then(|kind| target_structure(kind, version));
            return Sheet::empty(structure.or(self.structure), &self.code.segment_places);
        }
        let dropped = current.map(|c| self.others(c, split)).unwrap_or_default();
        let structure = self.copied_structure(x);
        let placement = match structure.filter(|s| Some(*s) != self.structure) {
            Some(structure) => {
                let extra: Vec<(&str, &str)> = self.code.segment_places.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
                self.message.place(structure, &extra)
            }
            None => self.placement.clone(),
        };
        let mut sheet = Sheet::empty(structure, &self.code.segment_places);
        let by = self.noted(|_| {
            let spot = x.copy_at.as_ref().map(|(line, column)| Spot { line: Arc::clone(line), column: *column });
            Source::at(spot, &self.route_head())
        });
        for n in 0..self.message.segment_count() {
            let number = u32::try_from(n).unwrap_or(u32::MAX);
            let name = self.message.segment_name(n);
            if x.copy.covers(&name.to_ascii_uppercase()) && !dropped.contains(&number) {
                let segment = self.copied(number, by.as_ref());
                sheet.copy(&placement, number, segment);
            }
        }
        sheet
    }

    /// The structure of a copy: the message's own, unless lines make it another type or release.
    fn copied_structure(&self, x: &MessageX) -> Option<Structure> {
        let version = x.version.unwrap_or(self.message.version());
        let found = match (&x.kind, x.version) {
            (None, None) => None,
            (Some(kind), _) => target_structure(kind, version),
            (None, Some(_)) => target_structure(&format!("^^{}", self.message.structure_id()?), version),
        };
        found.or(self.structure)
    }

    /// The segments that belong to other values of the split: of each repeating group around the current one, only the instance that it
    /// stands in goes on. A segment that shares its group with others of its kind goes alone.
    fn others(&self, current: u32, split: &[u32]) -> HashSet<u32> {
        let placed = |segment: u32| self.placement.segments.get(segment as usize).map(|p| p.group);
        let group = placed(current).unwrap_or(0);
        let shared = group == 0 || split.iter().any(|s| *s != current && placed(*s) == Some(group));
        let mut chain = vec![group];
        while let Some(parent) = chain.last().and_then(|g| self.placement.groups.get(*g as usize)).and_then(|g| g.parent) {
            chain.push(parent);
        }
        let is_other = |n: usize| {
            let Some(instance) = self.placement.groups.get(n) else { return false };
            chain.iter().any(|c| {
                self.placement.groups.get(*c as usize).is_some_and(|own| *c as usize != n && own.node == instance.node && own.parent == instance.parent)
            })
        };
        let mut dropped_groups = vec![false; self.placement.groups.len()];
        for (n, instance) in self.placement.groups.iter().enumerate() {
            let around = instance.parent.and_then(|p| dropped_groups.get(p as usize)).copied().unwrap_or(false);
            if let Some(dropped) = dropped_groups.get_mut(n) {
                *dropped = around || is_other(n);
            }
        }
        let in_dropped = |n: u32| placed(n).and_then(|g| dropped_groups.get(g as usize)).copied().unwrap_or(false);
        let count = u32::try_from(self.message.segment_count()).unwrap_or(u32::MAX);
        (0..count)
            .filter(|n| {
                in_dropped(*n)
                    || (shared
                        && *n != current
                        && self.message.is_segment(*n as usize, self.message.segment_name(current as usize))
                        && placed(*n) == Some(group))
            })
            .collect()
    }

    fn part_lines(&mut self, lines: &'m [PartLine], env: &Env<'_, 'm>, sheet: &mut Sheet, group: usize) {
        for line in lines {
            if !self.spend(sheet.len() as u64 + 1) {
                return;
            }
            self.part_line(line, env, sheet, group);
        }
    }

    fn part_line(&mut self, line: &'m PartLine, env: &Env<'_, 'm>, sheet: &mut Sheet, group: usize) {
        if line.is_field() {
            self.part_item(line, env, sheet, group);
            return;
        }
        self.note(|t| t.open_at(Spot { line: Arc::clone(&line.line), column: line.column }, line.name));
        let made = self.part_item(line, env, sheet, group);
        self.note(|t| t.close_at(made));
    }

    /// How many segments or groups the line made or changed.
    fn part_item(&mut self, line: &'m PartLine, env: &Env<'_, 'm>, sheet: &mut Sheet, group: usize) -> usize {
        if line.is_group {
            return self.group_line(line, env, sheet, group);
        }
        let only: Option<HashSet<u32>> = line.lookup.map(|lookup| self.segments(lookup, None).iter().copied().collect());
        let found = sheet.find(group, line.name, only.as_ref());
        match &line.item {
            PartItem::Nothing => {
                self.take_away(sheet, &found);
                found.len()
            }
            PartItem::Fields(body) if body.each.is_none() && body.from.is_none() && body.value.is_none() && !line.append => {
                if !found.is_empty() {
                    self.change(body, env, sheet, &found);
                    return found.len();
                }
                if only.is_some() || (body.current && !sheet.may_add(line.name)) {
                    return 0;
                }
                let made = self.new_segments(body, env);
                let count = made.len();
                made.into_iter().for_each(|(_, segment)| sheet.insert(group, None, segment));
                count
            }
            item => {
                let mut made = Vec::new();
                self.whole_segments(item, line.name, env, &mut made);
                let count = made.len();
                let replaces = count > 0 && !line.append;
                // What stands for a segment of the copy takes its place, the rest goes where the structure has it.
                let mut last: HashMap<u32, Found> = HashMap::new();
                let mut kept = Vec::new();
                for (origin, segment) in made {
                    let own = origin.filter(|_| replaces).and_then(|o| Some((o, *found.iter().find(|at| sheet.origin(**at) == Some(o))?)));
                    match own {
                        Some((o, _)) if last.contains_key(&o) => {
                            if let Some(before) = last.get(&o).copied() {
                                last.insert(o, sheet.insert_behind(before, origin, segment));
                            }
                        }
                        Some((o, at)) => {
                            sheet.put(at, segment);
                            kept.push(at);
                            last.insert(o, at);
                        }
                        None => sheet.insert(group, origin, segment),
                    }
                }
                if replaces {
                    let gone: Vec<Found> = found.into_iter().filter(|at| !kept.contains(at)).collect();
                    self.take_away(sheet, &gone);
                }
                count
            }
        }
    }

    /// Removes segments by the line under way.
    fn take_away(&self, sheet: &mut Sheet, found: &[Found]) {
        self.note(|t| t.drop_segments(found.iter().filter_map(|at| sheet.origin(*at)).map(|n| self.whole(n as usize))));
        sheet.remove(found);
    }

    fn take_groups_away(&self, sheet: &mut Sheet, group: usize, name: &str) {
        self.note(|t| t.drop_segments(sheet.in_groups(group, name).into_iter().map(|n| self.whole(n as usize))));
        sheet.remove_groups(group, name);
    }

    /// The lines change each segment that is there.
    fn change(&mut self, body: &'m SegmentBody, env: &Env<'_, 'm>, sheet: &mut Sheet, found: &[Found]) {
        for at in found {
            let mark = self.noted(|t| t.mark());
            let before = body.current.then(|| env.set(body.slot, sheet.origin(*at).map(Value::Segment)));
            if body.when.as_ref().is_none_or(|when| self.holds(when, env)) {
                self.change_one(body, env, sheet, *at);
            }
            if let Some(before) = before {
                env.set(body.slot, before);
            }
            self.note(|t| mark.iter().for_each(|m| t.forget_steps(*m)));
        }
    }

    /// One segment by the lines, or by the first alternative that holds and does something.
    fn change_one(&mut self, body: &'m SegmentBody, env: &Env<'_, 'm>, sheet: &mut Sheet, at: Found) -> bool {
        for item in &body.first {
            match item {
                PartItem::Nothing => {
                    self.take_away(sheet, &[at]);
                    return true;
                }
                PartItem::Fields(inner) => {
                    let before = inner.current.then(|| env.set(inner.slot, sheet.origin(at).map(Value::Segment)));
                    let does = inner.when.as_ref().is_none_or(|when| self.holds(when, env)) && self.change_one(inner, env, sheet, at);
                    if let Some(before) = before {
                        env.set(inner.slot, before);
                    }
                    if does {
                        return true;
                    }
                }
                PartItem::Segments(_) | PartItem::List(_) | PartItem::Group(_) => {}
            }
        }
        if !body.first.is_empty() {
            return false;
        }
        let Some(mut segment) = sheet.take(at) else { return false };
        self.note(|t| {
            let frame = t.frame();
            t.around(Some(frame));
        });
        let alive = self.field_lines(&body.lines, env, &mut segment);
        self.note(|t| t.around(None));
        sheet.put(at, segment);
        alive || body.constant || body.lines.iter().any(|l| matches!(l.item, ValueItem::Nothing))
    }

    pub(crate) fn whole_segments(&mut self, item: &'m PartItem, name: &'static str, env: &Env<'_, 'm>, out: &mut Vec<(Option<u32>, DraftSegment)>) {
        match item {
            PartItem::Fields(body) => out.extend(self.new_segments(body, env)),
            PartItem::Segments(source) => out.extend(self.segments_from(source, name, env)),
            PartItem::List(items) => items.iter().for_each(|i| self.whole_segments(i, name, env, out)),
            PartItem::Nothing | PartItem::Group(_) => {}
        }
    }

    fn group_line(&mut self, line: &'m PartLine, env: &Env<'_, 'm>, sheet: &mut Sheet, group: usize) -> usize {
        let bodies: Vec<&'m GroupBody> = match &line.item {
            PartItem::Nothing => Vec::new(),
            PartItem::Group(body) => {
                let there = sheet.groups(group, line.name);
                if body.each.is_none() && !line.append && !there.is_empty() {
                    for inner in &there {
                        let before = body.current.map(|main| env.set(body.slot, sheet.main_of(*inner, main).map(Value::Segment)));
                        if body.when.as_ref().is_none_or(|when| self.holds(when, env)) {
                            self.part_lines(&body.lines, env, sheet, *inner);
                        }
                        if let Some(before) = before {
                            env.set(body.slot, before);
                        }
                    }
                    return there.len();
                }
                vec![body]
            }
            PartItem::List(items) => items.iter().filter_map(|i| if let PartItem::Group(body) = i { Some(&**body) } else { None }).collect(),
            PartItem::Fields(_) | PartItem::Segments(_) => return 0,
        };
        if !line.append {
            self.take_groups_away(sheet, group, line.name);
        }
        bodies.into_iter().map(|body| self.new_groups(line, body, env, sheet, group)).sum()
    }

    fn new_groups(&mut self, line: &'m PartLine, body: &'m GroupBody, env: &Env<'_, 'm>, sheet: &mut Sheet, group: usize) -> usize {
        let values: Vec<Option<Value<'m>>> = match &body.each {
            Some(each) => self.eval(each, env).into_iter().map(Some).collect(),
            None => vec![None],
        };
        let mut made = 0;
        for value in values {
            let mark = self.noted(|t| t.mark());
            let before = body.each.is_some().then(|| env.set(body.slot, value));
            if body.when.as_ref().is_none_or(|when| self.holds(when, env)) {
                let inner = sheet.begin_group(group, line.name);
                self.part_lines(&body.lines, env, sheet, inner);
                made += 1;
            }
            if let Some(before) = before {
                env.set(body.slot, before);
            }
            self.note(|t| mark.iter().for_each(|m| t.forget_steps(*m)));
        }
        made
    }

    /// What a header must have: a new one gets its time, type, control ID, processing ID and version; a copied one keeps what it has.
    fn header(&mut self, x: &'m MessageX, sheet: &mut Sheet, place: &str) {
        let mut header = sheet.take_header();
        let text = |text: &str| vec![Piece::Text(text.to_owned())];
        if x.copy.covers("MSH") {
            // Text that had to be decoded before it could be read goes on as UTF-8, and says so (table 0211).
            if self.message.bytes() != self.message.write() {
                header.set(18, text(Charset::UTF_8.name()));
                self.filled(&header, 18, "the text goes on in UTF-8", None);
            }
            sheet.put_header(header);
            return;
        }
        if header.tag() == 0 {
            self.note(|t| header.set_tag(t.segment(None, Source::own(&self.route_head(), "Kiln makes the header", Vec::new()))));
        }
        if x.reply {
            for (field, from) in [(3, 5), (4, 6), (5, 3), (6, 4)] {
                self.fill_sent(&mut header, field, from, "an answer goes to where the question came from");
            }
        }
        self.fill(&mut header, 7, text(&moment::from_timestamp(self.context.received)), "when the message was received");
        if let Some(kind) = &x.kind {
            let spot = "the type that the route names";
            self.fill(&mut header, 9, vec![Piece::standard(kind, crate::hl7v2::Level::Repetition)], spot);
        }
        self.fill(&mut header, 10, text(&self.control_id(place)), "made from the message, the route and the place that it was split by");
        self.fill_sent(&mut header, 11, 11, "as the message has it");
        self.fill(&mut header, 11, text("P"), "P where the message says nothing");
        self.fill_sent(&mut header, 12, 12, "as the message has it");
        self.fill(&mut header, 12, text("2.5"), "2.5 where the message says nothing");
        let mut rest = Vec::new();
        for segment in sheet.segments() {
            segment.write(&self.coding, &mut rest);
        }
        if !rest.is_ascii() {
            self.fill(&mut header, 18, text(Charset::UTF_8.name()), "Kiln writes UTF-8");
        }
        sheet.put_header(header);
    }

    /// Gives a field of the header a value if it has none.
    fn fill(&self, header: &mut DraftSegment, field: u16, pieces: Vec<Piece>, why: &str) -> bool {
        let empty = header.repetitions(field, &self.coding.delimiters).iter().all(Piece::is_empty);
        let fills = empty && !pieces.iter().all(Piece::is_empty);
        if fills {
            header.set(field, pieces);
            self.filled(header, field, why, None);
        }
        fills
    }

    /// The same from a field of the header that came in.
    fn fill_sent(&self, header: &mut DraftSegment, field: u16, from: usize, why: &str) {
        let part = self.message.repetition(self.message.field(0, from), 1);
        if self.fill(header, field, vec![self.message.draft_piece(part, &self.coding)], why) {
            self.filled(header, field, why, Some(part));
        }
    }

    fn filled(&self, header: &DraftSegment, field: u16, why: &str, of: Option<Part>) {
        self.note(|t| {
            let source = Source::own(&self.route_head(), &format!("Kiln fills it in: {why}"), of.into_iter().collect());
            t.put_field(header.tag(), &[field], false, vec![source], self.message);
        });
    }

    fn route_head(&self) -> Arc<str> {
        Arc::from(format!("route {}", self.route_name))
    }

    /// A control ID of Kiln's own: the same whenever this message is mapped again, and at most 20 characters, which all versions allow.
    fn control_id(&self, place: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in [&self.context.message.0.to_le_bytes()[..], self.message.control_id().0.as_bytes(), place.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let hex = hasher.finalize().to_hex();
        format!("K{}", hex.get(..19).unwrap_or_default().to_ascii_uppercase())
    }
}

/// The structure of a message type as the version has it, else the nearest.
fn target_structure(kind: &str, version: crate::hl7v2::Version) -> Option<Structure> {
    let mut parts = kind.split('^');
    let event = format!("{}^{}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let named = parts.next().map(str::to_owned);
    let id = named.or_else(|| crate::hl7v2::event_structure(version, &event).map(str::to_owned))?;
    let (older, newer) = crate::hl7v2::Version::ALL.split_at(version as usize + 1);
    older.iter().rev().chain(newer).find_map(|v| crate::hl7v2::structure(*v, &id))
}
