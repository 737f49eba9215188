//! Bodies: lines become the elements of one object, in FHIR's order.

use crate::fhir::{Node, Type};
use crate::route::code::{Body, BodyLine, Item, Join, Needs, X};
use crate::route::lineage::Step;
use crate::route::run::out::Out;
use crate::route::run::trace::{Inner, Put};
use crate::route::run::value::{Value, Values};
use crate::route::run::{Env, Run};
use smallvec::SmallVec;
use std::collections::HashMap;

/// An object under construction.
#[derive(Default)]
pub(crate) struct Building {
    pub(crate) elements: Vec<(&'static str, Node)>,
    pub(crate) alive: bool,
    /// The type whose order counts; known as soon as a body's lines came in.
    ty: Option<Type>,
    /// The position of the last element that was added in order.
    last: u16,
    /// Something came in out of order.
    unsorted: bool,
    /// The positions of the elements, if they are known of all.
    placed: SmallVec<[u16; 16]>,
    /// What was done, line by line, when somebody asks.
    pub(crate) puts: Vec<Put>,
}

impl<'m> Run<'m> {
    /// Makes what the body says, once per value of `$each` and `$from`; true if the message contributed.
    pub(crate) fn body(&mut self, body: &'m Body, env: &Env<'_, 'm>, name: &'static str, out: &mut Out<'_>) -> bool {
        let Some((each, by)) = &body.each else { return self.once(body, env, name, out) };
        let mut alive = false;
        for value in self.each(each, by.as_ref(), body.slot, env) {
            let mark = self.noted(|t| t.mark());
            let before = env.set(body.slot, Some(value));
            alive |= self.once(body, env, name, out);
            env.set(body.slot, before);
            self.note(|t| mark.iter().for_each(|m| t.forget_steps(*m)));
        }
        alive
    }

    /// The values of `$each`, one at a time, or by groups that have an equal key (none is equal to none), in the order in which they begin.
    pub(crate) fn each(&mut self, each: &'m X, by: Option<&'m X>, slot: usize, env: &Env<'_, 'm>) -> Values<'m> {
        let values = self.eval(each, env);
        let Some(by) = by else { return values };
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut groups: Vec<Vec<Value<'m>>> = Vec::new();
        let alive = values.alive;
        for value in values {
            let before = env.set(slot, Some(value.clone()));
            let key = self.eval(by, env);
            let key: Vec<String> = key.as_slice().iter().map(|v| self.text_of(v).trim().to_owned()).collect();
            env.set(slot, before);
            let place = *places.entry(key.join("\u{0}")).or_insert(groups.len());
            match groups.get_mut(place) {
                Some(group) => group.push(value),
                None => groups.push(vec![value]),
            }
        }
        let mut out = Values { alive, ..Values::none() };
        for group in groups {
            out.push(Value::Group(group.into()));
        }
        out
    }

    fn once(&mut self, body: &'m Body, env: &Env<'_, 'm>, name: &'static str, out: &mut Out<'_>) -> bool {
        if let Some(when) = &body.when
            && !self.holds(when, env)
        {
            return false;
        }
        if !body.first.is_empty() {
            for item in &body.first {
                let from = out.len();
                let alive = self.item(item, env, name, out);
                if out.len() > from {
                    return alive;
                }
            }
            return false;
        }
        if let Some(value) = &body.value {
            return self.item(value, env, name, out);
        }
        if let (Some(values), Some(from)) = (&body.from_values, &body.from) {
            let slot = body.slot + usize::from(body.each.is_some());
            let mut alive = false;
            for value in self.eval(values, env) {
                let mark = self.noted(|t| t.mark());
                let before = env.set(slot, Some(value.clone()));
                alive |= self.from(body, value, from, env, name, out);
                env.set(slot, before);
                self.note(|t| mark.iter().for_each(|m| t.forget_steps(*m)));
            }
            return alive;
        }
        let mut building = Building { elements: Vec::with_capacity(body.lines.len().min(4)), ..Building::default() };
        self.lines(body, env, &mut building, false);
        // `$when: true` is how a body of constants and absent values is made all the same.
        let forced = matches!(body.when, Some(X::Bool(true)));
        let made = building.alive || body.constant || forced;
        if building.elements.is_empty() || !made {
            return false;
        }
        self.check_required(body, &building);
        out.push(name, self.finished(&mut building, name));
        building.alive || forced || (body.constant && body.when.is_some())
    }

    /// `$from`: the converted value, then the lines upon it.
    fn from(&mut self, body: &'m Body, value: Value<'m>, from: &'m crate::route::code::X, env: &Env<'_, 'm>, name: &'static str, out: &mut Out<'_>) -> bool {
        if let (Some(map), crate::route::code::X::Convert(_, conversion)) = (body.from_resource, from)
            && let crate::route::code::Join::Reference { arguments, .. } = &conversion.join
        {
            let node = self.make_shared(map, value, arguments, env, Some(body));
            let made = node.is_some();
            if let Some(node) = node {
                self.note(|t| t.refers(name, &node));
                out.push(name, node);
            }
            return made;
        }
        let converted = self.eval(from, env);
        let alive = converted.alive;
        let mut any = false;
        for value in converted {
            let Value::Node(node) = value else { continue };
            let (branch, node) = *node;
            let birth = self.noted(|t| t.take_loose(&node)).flatten();
            let Node::Object(elements) = node else {
                let branch = named(branch, name);
                self.note(|t| t.put_back(branch, birth, &node));
                out.push(branch, node);
                any = true;
                continue;
            };
            let mut building = Building { alive, ..Building::default() };
            building.take(elements, body);
            building.puts.extend(birth.map(|b| Put::Taken(Box::new(b))));
            self.lines(body, env, &mut building, false);
            if building.alive && !building.elements.is_empty() {
                self.check_required(body, &building);
                let name = if body.lines.is_empty() { named(branch, name) } else { name };
                out.push(name, self.finished(&mut building, name));
                any = true;
            }
        }
        any
    }

    /// Adds the lines' elements. `top`: the lines are a resource's own, where `""` deletes.
    pub(crate) fn lines(&mut self, body: &'m Body, env: &Env<'_, 'm>, building: &mut Building, top: bool) {
        building.ty = building.ty.or(body.ty);
        // Whoever asks how it came about wants to hear of each line.
        let sent = if self.trace.is_some() { Needs::ANYTHING } else { self.sent(env) };
        for line in &body.lines {
            if !line.needs.met_by(sent) {
                continue;
            }
            if matches!(line.item, Item::Nothing) {
                building.remove(line);
                self.note(|_| building.puts.push(Put::Remove { name: line.name, branches: line.branches.clone() }));
                continue;
            }
            let made = if self.trace.is_none() && building.comes_next(line) {
                self.line_in_order(line, env, building)
            } else {
                self.line_anywhere(line, env, building)
            };
            if made == 0 {
                if top && self.nulls && self.item_is_deleted(&line.item, env) {
                    self.note(|t| t.delete(line, extension_url(&line.item).map_or(line.name, |_| "extension")));
                    match extension_url(&line.item) {
                        Some(url) => self.deletes.push(vec![line.name, url]),
                        None if line.branches.is_empty() => self.deletes.push(vec![line.name]),
                        None => self.deletes.extend(line.branches.iter().map(|n| vec![*n])),
                    }
                }
                continue;
            }
            if !line.list && made > 1 {
                self.finding("not-carried", format!("{} more than the one value that fits", made - 1), &body.path, &line.line);
            }
        }
    }

    /// The usual case: the line makes the next element in FHIR's order, which nothing has set before. How many values it had.
    fn line_in_order(&mut self, line: &'m BodyLine, env: &Env<'_, 'm>, building: &mut Building) -> usize {
        let made = if line.list {
            let mut entries = Vec::new();
            building.alive |= self.item(&line.item, env, line.name, &mut Out::Entries(&mut entries));
            let made = entries.len();
            if made > 0 {
                Out::Elements(&mut building.elements).push(line.name, Node::List(entries));
                building.placed.push(line.position);
            }
            made
        } else {
            let before = building.elements.len();
            building.alive |= self.item(&line.item, env, line.name, &mut Out::Elements(&mut building.elements));
            let made = building.elements.len() - before;
            building.elements.truncate(before + 1);
            if made > 0 {
                building.placed.push(line.position);
            }
            made
        };
        if made > 0 {
            building.last = line.position;
        }
        made
    }

    /// The line's values, put among what is already there. How many they were.
    fn line_anywhere(&mut self, line: &'m BodyLine, env: &Env<'_, 'm>, building: &mut Building) -> usize {
        let mut values = self.spare.pop().unwrap_or_default();
        self.note(|t| t.open(line));
        building.alive |= self.item(&line.item, env, line.name, &mut Out::Elements(&mut values));
        self.note(|t| building.puts.extend(t.close(line, &values)));
        let made = values.len();
        if made > 0 {
            building.put(line, &mut values);
        }
        values.clear();
        self.spare.push(values);
        made
    }

    /// The object that was built; the notes keep which line made what of it.
    #[inline(always)]
    fn finished(&self, building: &mut Building, name: &'static str) -> Node {
        let puts = std::mem::take(&mut building.puts);
        let node = building.finish();
        self.note(|t| t.node(name, &node, Inner::Lines(puts)));
        node
    }

    /// A right side; true if the message contributed.
    pub(crate) fn item(&mut self, item: &'m Item, env: &Env<'_, 'm>, name: &'static str, out: &mut Out<'_>) -> bool {
        match item {
            Item::Nothing => false,
            Item::Constant(own, node) => {
                self.note(|t| t.node(named(own, name), node, Inner::Leaf));
                out.push(named(own, name), node.clone());
                false
            }
            Item::X(x) => self.emit(x, env, name, out),
            // Most entries of most lists are about what most senders leave out.
            Item::Body(_, body) if self.trace.is_none() && !body.needs.met_by(self.sent(env)) => false,
            Item::Body(own, body) => self.body(body, env, named(own, name), out),
            Item::List(items) => {
                let mut alive = false;
                for item in items {
                    let mark = self.noted(|t| t.mark());
                    alive |= self.item(item, env, name, out);
                    self.note(|t| mark.iter().for_each(|m| t.forget_steps(*m)));
                }
                alive
            }
            Item::Extension(_, inner) if self.is_silent(inner, env) => false,
            Item::Extension(url, inner) => {
                let mut values = self.spare.pop().unwrap_or_default();
                self.note(|t| t.collect());
                let alive = self.item(inner, env, "value", &mut Out::Elements(&mut values));
                let mut births = self.noted(|t| t.collected()).unwrap_or_default().into_iter();
                for (branch, node) in values.drain(..) {
                    let node = Node::Object(vec![("url", Node::Text((*url).to_owned())), (branch, node)]);
                    self.note(|t| t.wrapped("extension", &node, births.next()));
                    out.push("extension", node);
                }
                self.spare.push(values);
                alive
            }
        }
    }

    /// Is it certain that nothing was sent which the item could be made of?
    fn is_silent(&self, item: &'m Item, env: &Env<'_, 'm>) -> bool {
        match item {
            Item::X(X::Convert(inner, conversion)) if !matches!(conversion.join, Join::System { .. }) => matches!(self.one_part(inner, env), Some(None)),
            _ => false,
        }
    }

    /// An expression straight into an element.
    fn emit(&mut self, x: &'m X, env: &Env<'_, 'm>, name: &'static str, out: &mut Out<'_>) -> bool {
        match x {
            X::Nothing => false,
            X::Convert(inner, conversion) => {
                match self.one_part(inner, env) {
                    Some(Some(part)) => return self.convert_part(part, conversion, env, name, out),
                    Some(None) => {
                        self.convert_nothing(conversion, env, name, out);
                        return false;
                    }
                    None => {}
                }
                let mark = self.noted(|t| t.mark());
                let values = self.eval(inner, env);
                self.note(|t| mark.iter().for_each(|m| t.evaluated(*m, values.len())));
                let alive = self.convert_into(values, conversion, env, name, out);
                self.note(|t| t.converted());
                alive
            }
            X::Node(branch, node) => {
                self.note(|t| t.node(named(branch, name), node, Inner::Leaf));
                out.push(named(branch, name), node.clone());
                false
            }
            X::If(condition, then, otherwise) => {
                let branch = if self.holds(condition, env) { then } else { otherwise };
                self.emit(branch, env, name, out)
            }
            X::Else(a, b) => {
                let from = out.len();
                let alive = self.emit(a, env, name, out);
                if out.len() > from {
                    return alive;
                }
                self.note(|t| t.step(Step::Otherwise, None));
                self.emit(b, env, name, out)
            }
            other => {
                let values = self.eval(other, env);
                let contributes = values.alive;
                let from = out.len();
                for value in values {
                    match value {
                        Value::Node(node) => {
                            let (branch, node) = *node;
                            self.note(|t| t.placed(named(branch, name), &node));
                            out.push(named(branch, name), node);
                        }
                        Value::Made(entry) => {
                            if let Some(node) = self.reference_node(entry) {
                                self.note(|t| t.node(name, &node, Inner::Leaf));
                                out.push(name, node);
                            }
                        }
                        _ => {}
                    }
                }
                contributes && out.len() > from
            }
        }
    }

    fn item_is_deleted(&mut self, item: &'m Item, env: &Env<'_, 'm>) -> bool {
        match item {
            Item::X(x) => self.is_deleted(x, env),
            Item::List(items) => items.iter().any(|i| self.item_is_deleted(i, env)),
            Item::Body(_, body) => match (&body.each, &body.from_values) {
                (Some((x, _)), _) | (None, Some(x)) => self.is_deleted(x, env),
                (None, None) => body.lines.iter().any(|l| !matches!(l.item, Item::Constant(..)) && self.item_is_deleted(&l.item, env)),
            },
            Item::Extension(_, inner) => self.item_is_deleted(inner, env),
            Item::Constant(..) | Item::Nothing => false,
        }
    }

    /// What FHIR requires of a body that is made: its absence stops the delivery and names the v2 fields.
    pub(crate) fn check_required(&mut self, body: &'m Body, building: &Building) {
        for required in &body.required {
            if !required.met_by(&building.elements) {
                let (text, places) = missing_text(&body.path, required.element, &required.places);
                self.halt("required-empty", text, places, &required.line);
            }
        }
    }
}

/// `value` is the name of what has none of its own yet: a `$first`'s alternative, a parameter.
pub(crate) fn named(own: &'static str, outer: &'static str) -> &'static str {
    if own == "value" { outer } else { own }
}

/// `""` in a field of an extension deletes that extension, not all of them: its entry is named by its URL.
fn extension_url(item: &Item) -> Option<&'static str> {
    match item {
        Item::Extension(url, _) => Some(url),
        Item::List(items) => items.first().and_then(extension_url),
        Item::Body("extension", body) => body.url,
        _ => None,
    }
}

/// The sentence for a required element that stayed empty.
pub(crate) fn missing_text(path: &str, element: &str, places: &[String]) -> (String, Vec<String>) {
    let text = if places.is_empty() {
        format!("{path}.{element} is required by FHIR and stayed empty")
    } else {
        format!("{path}.{element} is required by FHIR; it comes from {}, which had no usable value", places.join(", "))
    };
    (text, places.to_vec())
}

impl Building {
    /// For a resource. Most have fewer elements than their maps have lines; one more comes in front.
    pub(crate) fn with_room(lines: usize) -> Self {
        Self { elements: Vec::with_capacity(lines.min(11) + 1), ..Self::default() }
    }

    /// Takes over an object that a map made.
    pub(crate) fn take(&mut self, elements: Vec<(&'static str, Node)>, body: &Body) {
        self.ty = self.ty.or(body.ty);
        // Their positions are not known, so whatever follows asks for sorting.
        self.last = u16::MAX;
        if self.elements.is_empty() {
            self.elements = elements;
        } else {
            self.elements.extend(elements);
        }
    }

    /// An element from elsewhere, wherever it belongs.
    pub(crate) fn add(&mut self, name: &'static str, node: Node) {
        self.unsorted = true;
        let position = self.ty.and_then(|ty| ty.element(name)).map(|element| element.position());
        if let Some(position) = position.filter(|_| self.placed.len() == self.elements.len()) {
            self.placed.push(position);
        }
        self.elements.push((name, node));
    }

    fn remove(&mut self, line: &BodyLine) {
        self.forget_places();
        self.elements.retain(|(name, _)| *name != line.name && !line.branches.contains(name));
    }

    /// Is the line's element behind all that are there?
    fn comes_next(&self, line: &BodyLine) -> bool {
        self.last < line.position && !self.unsorted
    }

    fn put(&mut self, line: &BodyLine, made: &mut Vec<(&'static str, Node)>) {
        if self.comes_next(line) {
            if line.list {
                let nodes = made.drain(..).map(|(_, node)| node).collect();
                self.push(line, line.name, Node::List(nodes));
            } else if let Some((name, node)) = made.drain(..).next() {
                self.push(line, name, node);
            }
            return;
        }
        if line.list {
            match self.elements.iter_mut().find(|(name, _)| *name == line.name) {
                Some((_, Node::List(list))) if line.append => list.extend(made.drain(..).map(|(_, node)| node)),
                Some((_, old)) => *old = Node::List(made.drain(..).map(|(_, node)| node).collect()),
                None => {
                    let nodes = made.drain(..).map(|(_, node)| node).collect();
                    self.push(line, line.name, Node::List(nodes));
                }
            }
            return;
        }
        let Some((name, node)) = made.drain(..).next() else { return };
        if line.branches.iter().any(|branch| *branch != name && self.elements.iter().any(|(n, _)| n == branch)) {
            self.forget_places();
            self.elements.retain(|(n, _)| *n == name || !line.branches.contains(n));
        }
        match self.elements.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = node,
            None => self.push(line, name, node),
        }
    }

    fn push(&mut self, line: &BodyLine, name: &'static str, node: Node) {
        self.unsorted |= line.position < self.last;
        self.last = self.last.max(line.position);
        self.placed.push(line.position);
        self.elements.push((name, node));
    }

    /// From now on it is not known where the elements belong: they are looked up if they must be sorted.
    fn forget_places(&mut self) {
        self.placed.clear();
    }

    /// Another map's elements: lists append what they don't have yet (ORC-2 is OBR-2), what is set stays.
    pub(crate) fn merge(&mut self, mut other: Building) {
        self.alive |= other.alive;
        self.ty = self.ty.or(other.ty);
        if !other.puts.is_empty() {
            self.puts.push(Put::Merged(std::mem::take(&mut other.puts)));
        }
        if self.elements.is_empty() {
            other.puts = std::mem::take(&mut self.puts);
            let alive = self.alive;
            *self = Building { alive, ..other };
            return;
        }
        for (name, node) in other.elements {
            match (self.elements.iter_mut().find(|(n, _)| *n == name), node) {
                (Some((_, Node::List(list))), Node::List(more)) => {
                    let own = list.len();
                    for node in more {
                        if !list.iter().take(own).any(|known| *known == node) {
                            list.push(node);
                        }
                    }
                }
                (Some(_), _) => {}
                (None, node) => self.add(name, node),
            }
        }
    }

    #[inline(always)]
    pub(crate) fn finish(&mut self) -> Node {
        if self.unsorted {
            self.sort();
        }
        Node::Object(std::mem::take(&mut self.elements))
    }

    fn sort(&mut self) {
        if self.ty.is_some() && self.placed.len() == self.elements.len() {
            // Nearly in order: what came late goes to its place.
            for n in 1..self.placed.len() {
                let place = self.placed.get(n).copied().unwrap_or(u16::MAX);
                let to = self.placed.iter().take(n).position(|before| *before > place).unwrap_or(n);
                if let (Some(places), Some(elements)) = (self.placed.get_mut(to..=n), self.elements.get_mut(to..=n)) {
                    places.rotate_right(1);
                    elements.rotate_right(1);
                }
            }
            return;
        }
        if let Some(ty) = self.ty {
            let names: smallvec::SmallVec<[&str; 48]> = ty.elements().map(|e| e.name()).collect();
            let position = |name: &str| {
                let name = name.strip_prefix('_').unwrap_or(name);
                let plain = names.iter().position(|n| *n == name).and_then(|n| u16::try_from(n).ok());
                plain.or_else(|| ty.property(name).map(|(e, _)| e.position())).unwrap_or(u16::MAX)
            };
            self.elements.sort_by_cached_key(|(name, _)| position(name));
        }
    }
}
