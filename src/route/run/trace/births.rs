//! What came of each value: the elements that were born of it, gathered into resources.

use crate::fhir::Node;
use crate::hl7v2::Part;
use crate::route::lineage::Step;
use crate::route::run::trace::{Account, Birth, Fate, How, Inner, Mark, Put, Record, Trace};
use std::sync::Arc;

impl Trace {
    pub(crate) fn converted(&mut self) {
        self.evaluated.pop();
    }

    /// A value became a node. `loose`: it is not yet known where it goes.
    pub(crate) fn born(&mut self, since: Mark, part: Option<Part>, name: &'static str, node: &Node, loose: bool) {
        let Account { part, reads, steps } = self.account(since, part);
        let inner = self.child.take().unwrap_or(Inner::Leaf);
        let translated = std::mem::take(&mut self.translated);
        let birth = Birth { node: node.clone(), name, part, reads, steps, spot: self.spot(), head: self.head(), inner, translated };
        self.add(birth, loose);
    }

    /// What was read for the value at hand since, and what happened on the way.
    pub(crate) fn account(&mut self, since: Mark, part: Option<Part>) -> Account {
        let deep = self.lines.len();
        let before = self.steps_from();
        let mut part = part;
        let mut steps: Vec<Step> = Vec::new();
        let mut reads: Vec<Part> = Vec::new();
        let mut end = since.steps;
        if let Some(e) = self.evaluated.last() {
            end = e.to.steps;
            let own = (e.lookups.len() == e.values).then(|| e.lookups.get(e.next.saturating_sub(1))).flatten();
            part = part.or(own.and_then(|(_, p)| *p));
            if part.is_none() {
                reads.extend(self.values_read(e.from.reads, e.to.reads, deep));
            }
            for (n, (step, about)) in self.steps.iter().enumerate().take(end).skip(before) {
                let other_lookup = own.is_some_and(|(own, _)| *own != n) && e.lookups.iter().any(|(l, _)| *l == n);
                if !other_lookup && concerns(step, *about, part) {
                    steps.push(step.clone());
                }
            }
        } else {
            steps.extend(self.steps.iter().take(end).skip(before).map(|(s, _)| s.clone()));
        }
        let since_steps = since.steps.max(end);
        steps.extend(self.steps.iter().skip(since_steps).map(|(s, _)| s.clone()));
        self.steps.truncate(since_steps);
        for read in self.values_read(since.reads, self.reads.len(), deep) {
            if !reads.contains(&read) {
                reads.push(read);
            }
        }
        Account { part, reads, steps }
    }

    fn values_read(&self, from: usize, to: usize, deep: usize) -> Vec<Part> {
        let reads = self.reads.get(from..to).unwrap_or_default();
        reads.iter().filter(|r| r.how == How::Value && r.deep == deep).map(|r| r.part).collect()
    }

    fn add(&mut self, birth: Birth, loose: bool) {
        match self.births.last_mut() {
            Some(births) if !loose => births.push(birth),
            _ => self.loose.push(birth),
        }
    }

    /// A node that has no value of its own: a constant, a reference, an object of lines.
    pub(crate) fn node(&mut self, name: &'static str, node: &Node, inner: Inner) {
        let before = self.steps_from();
        let steps = self.steps.iter().skip(before).map(|(s, _)| s.clone()).collect();
        let birth = Birth { node: node.clone(), name, part: None, reads: Vec::new(), steps, spot: self.spot(), head: self.head(), inner, translated: false };
        self.add(birth, false);
    }

    /// A node that an expression yielded is put into place: it keeps how it came about.
    pub(crate) fn placed(&mut self, name: &'static str, node: &Node) {
        match self.loose.iter().rposition(|b| b.node == *node) {
            Some(at) => {
                let birth = Birth { name, ..self.loose.remove(at) };
                self.add(birth, false);
            }
            None => self.node(name, node, Inner::Leaf),
        }
    }

    /// How an expression's node came about.
    pub(crate) fn take_loose(&mut self, node: &Node) -> Option<Birth> {
        self.loose.iter().rposition(|b| b.node == *node).map(|at| self.loose.remove(at))
    }

    /// The nodes of a body that an expression reads.
    pub(crate) fn loosen(&mut self) {
        let births = self.collected();
        self.loose.extend(births);
    }

    /// A value is put into place as it came.
    pub(crate) fn put_back(&mut self, name: &'static str, birth: Option<Birth>, node: &Node) {
        match birth {
            Some(birth) => self.add(Birth { name, ..birth }, false),
            None => self.node(name, node, Inner::Leaf),
        }
    }

    /// A reference that `$from` makes.
    pub(crate) fn refers(&mut self, name: &'static str, node: &Node) {
        let inner = self.child.take().unwrap_or(Inner::Leaf);
        self.node(name, node, inner);
    }

    /// A value inside an extension.
    pub(crate) fn wrapped(&mut self, name: &'static str, node: &Node, birth: Option<Birth>) {
        let single = |name, birth| Put::Line { name, list: false, append: false, branches: Vec::new(), births: vec![birth] };
        let inner = birth.map_or(Inner::Leaf, |b| {
            let url = node.get("url").cloned().unwrap_or(Node::Bool(false));
            let url = Birth {
                node: url,
                name: "url",
                part: None,
                reads: Vec::new(),
                steps: Vec::new(),
                spot: b.spot.clone(),
                head: b.head.clone(),
                inner: Inner::Leaf,
                translated: false,
            };
            Inner::Lines(vec![single("url", url), single(b.name, b)])
        });
        self.node(name, node, inner);
    }

    /// A map is called for the value at hand.
    pub(crate) fn call(&mut self, head: &Arc<str>) {
        self.enter(head);
        self.collect();
    }

    /// What the map made: the value that is converted now consists of it.
    pub(crate) fn returned(&mut self, choice: bool) {
        let births = self.collected();
        let map = self.heads.pop();
        let Some(birth) = births.into_iter().next() else { return };
        self.steps.truncate(map.map_or(usize::MAX, |m| m.steps));
        self.child = Some(match (choice, birth.inner) {
            (true, Inner::Lines(puts)) => match puts.into_iter().next_back() {
                Some(Put::Line { births, .. }) => births.into_iter().next().map_or(Inner::Leaf, |b| Inner::Child(Box::new(b))),
                other => Inner::Lines(other.into_iter().collect()),
            },
            (_, inner) => Inner::Child(Box::new(Birth { inner, ..birth })),
        });
    }

    /// Without a value, nothing that a map made is used.
    pub(crate) fn forget_child(&mut self) {
        self.child = None;
    }

    /// A table replaces the first coding of what the map made.
    pub(crate) fn translated(&mut self) {
        self.translated = true;
    }

    /// The resource at hand has an identity that was derived.
    pub(crate) fn derived(&mut self) {
        self.derived = true;
    }

    /// A resource that a reference wanted, and that is saved for itself.
    pub(crate) fn shared(&mut self, entry: usize, head: &Arc<str>, node: &Node, puts: Vec<Put>) {
        self.enter(head);
        self.resource(entry, node, puts);
        self.leave();
    }

    /// It had been made before; what was read for it anew is carried as well.
    pub(crate) fn again(&mut self, entry: usize, node: &Node, puts: Vec<Put>) {
        self.derived = false;
        if let Some(record) = self.resources.get(&entry)
            && record.root.node == *node
        {
            let root = Birth { node: node.clone(), inner: Inner::Lines(puts), ..record.root.clone() };
            self.again.push((entry, root));
        }
    }

    /// The value that is converted now consists of these lines.
    pub(crate) fn child_lines(&mut self, puts: Vec<Put>) {
        self.child = Some(Inner::Lines(puts));
    }

    pub(crate) fn contain(&mut self, node: &Node, puts: Vec<Put>) {
        let birth = Birth {
            node: node.clone(),
            name: "contained",
            part: None,
            reads: Vec::new(),
            steps: Vec::new(),
            spot: None,
            head: self.head(),
            inner: Inner::Lines(puts),
            translated: false,
        };
        self.contained.push(birth);
    }

    /// A resource of its own begins: what it contains is not the outer one's.
    pub(crate) fn set_contained_aside(&mut self) -> Vec<Birth> {
        std::mem::take(&mut self.contained)
    }

    pub(crate) fn take_contained_back(&mut self, births: Option<Vec<Birth>>) {
        self.contained = births.unwrap_or_default();
    }

    /// Those that nobody refers to were left out.
    pub(crate) fn keep_contained(&mut self, kept: &[bool]) {
        let mut kept = kept.iter().copied();
        self.contained.retain(|_| kept.next().unwrap_or(true));
    }

    pub(crate) fn attach_contained(&mut self) -> Put {
        Put::Line { name: "contained", list: true, append: true, branches: Vec::new(), births: std::mem::take(&mut self.contained) }
    }

    /// A resource is complete.
    pub(crate) fn resource(&mut self, entry: usize, node: &Node, puts: Vec<Put>) {
        let steps = if std::mem::take(&mut self.derived) { vec![Step::Derived] } else { Vec::new() };
        let root = Birth {
            node: node.clone(),
            name: "",
            part: None,
            reads: Vec::new(),
            steps,
            spot: None,
            head: self.head(),
            inner: Inner::Lines(puts),
            translated: false,
        };
        self.resources.insert(entry, Record { root, why_gone: "" });
    }

    /// A resource is not made after all.
    pub(crate) fn gone(&mut self, entry: usize, why: &'static str) {
        let root = Birth {
            node: Node::Object(Vec::new()),
            name: "",
            part: None,
            reads: Vec::new(),
            steps: Vec::new(),
            spot: None,
            head: self.head(),
            inner: Inner::Leaf,
            translated: false,
        };
        self.resources.insert(entry, Record { root, why_gone: why });
    }

    /// What becomes of the entries: the entry that each is one with, and its place in what is saved.
    pub(crate) fn finish(&mut self, to: &[Option<usize>], index: &[Option<usize>]) {
        let fate = |n: usize| match to.get(n).copied().flatten() {
            Some(own) if own == n => index.get(n).copied().flatten().map_or(Fate::Gone, Fate::Saved),
            Some(other) => Fate::Joined(other),
            None => Fate::Gone,
        };
        self.fates = (0..to.len()).map(fate).collect();
    }
}

/// Does a step say something about this value? A `where` is asked of each candidate, a table of each code.
fn concerns(step: &Step, about: Option<Part>, part: Option<Part>) -> bool {
    match (about, part) {
        (None, _) => true,
        (Some(about), Some(part)) => about.start <= part.start && part.end <= about.end,
        (Some(_), None) => !matches!(step, Step::Condition { holds: false, .. }),
    }
}
