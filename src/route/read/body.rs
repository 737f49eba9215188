//! Bodies: the lines of a map, a resource or an element, and Kiln's own `$` keys in them.

use crate::diagnostic::{Diagnostic, suggest};
use crate::route::keys::{Declared, OWN, Place, find, first_keys, names};
use crate::route::read::Reader;
use crate::route::yaml::{Content, Node, Quoting};
use crate::route::{Body, Item, Key, Line};

/// How to say where a `$` key belongs.
fn whose(key: &Declared) -> &'static str {
    match key.only {
        [Place::Map] => "the top of a map",
        [Place::Message] => "the top of a route's `message`",
        [Place::Question] => "a question of a route's `ask`",
        [Place::Resource] => "a resource of a route",
        _ => "a resource of a route or the top of a map that makes one",
    }
}

impl Reader<'_> {
    /// A body in braces or indented lines.
    pub(super) fn body(&mut self, node: &Node, owner: &str, place: Place) -> Option<Body> {
        match node.content {
            Content::Mapping(_) => Some(self.body_of(node, 0, place)),
            _ => {
                let nothing = self.wrong(node, owner, "a body of `key: value` lines");
                if let (Place::Resource, Content::Scalar(_), Some(fault)) = (place, &node.content, self.faults.last_mut())
                    && node.text().contains("->")
                {
                    fault.help = Some(format!("the map goes into the body: `{owner}: {{ $map: {}, $save: update by PID-3 }}`", node.text()));
                }
                nothing
            }
        }
    }

    /// The body of a mapping without its first `skip` keys.
    pub(super) fn body_of(&mut self, node: &Node, skip: usize, place: Place) -> Body {
        let mut body = Body { span: node.span, ..Body::default() };
        for (key, value) in self.pairs(node, "").into_iter().skip(skip) {
            if key.text().starts_with('$') {
                self.own_key(&mut body, key, value, place);
            } else {
                self.line(&mut body, key, value);
            }
        }
        body
    }

    fn line(&mut self, body: &mut Body, key: &Node, value: &Node) {
        let (text, append) = match key.text().strip_suffix('+') {
            Some(text) => (text, true),
            None => (key.text(), false),
        };
        let mut span = key.span;
        // The place is the name without the plus, also when it is quoted.
        if append && key.scalar().is_some_and(|s| s.quoting == Quoting::Plain) {
            span.end = span.end.saturating_sub(1);
        }
        if text.is_empty() {
            self.faults.push(Diagnostic::error("K112", key.span, "a line needs the name of an element before its colon"));
        } else if let Some(item) = self.item(value, text) {
            body.lines.push(Line { element: Key { text: text.to_owned(), span }, append, item });
        }
    }

    /// The right side of a line.
    pub(super) fn item(&mut self, node: &Node, owner: &str) -> Option<Item> {
        match &node.content {
            Content::Scalar(s) if s.quoting == Quoting::Quoted => Some(Item::Constant(Self::word(node))),
            Content::Scalar(_) => self.expr(node, owner).map(Item::Expr),
            Content::Mapping(_) => Some(Item::Body(self.body_of(node, 0, Place::Inside))),
            Content::Sequence(_) => Some(Item::List(self.items(node, owner), node.span)),
        }
    }

    fn items(&mut self, node: &Node, owner: &str) -> Vec<Item> {
        self.entries(node).into_iter().filter_map(|n| self.item(n, owner)).collect()
    }

    fn named_items(&mut self, node: &Node, owner: &str) -> Vec<(Key, Item)> {
        let pairs = self.pairs(node, owner);
        pairs.into_iter().filter_map(|(k, v)| Some((Self::word(k), self.item(v, k.text())?))).collect()
    }

    fn own_key(&mut self, body: &mut Body, key: &Node, value: &Node, place: Place) {
        let owner = key.text();
        let declared = find(OWN, owner);
        if let Some(key_of) = declared.filter(|k| !k.allowed(place)) {
            let fault = Diagnostic::error("K105", key.span, format!("`{owner}` has no meaning in this body"));
            self.faults.push(fault.help(format!("it belongs to {}", whose(key_of))));
            return;
        }
        match owner {
            "$each" => body.each = self.each(value, owner),
            "$from" => body.from = self.each(value, owner),
            "$when" => body.when = self.expr(value, owner),
            "$first" => match value.content {
                Content::Sequence(_) => body.first = Some(self.items(value, owner)),
                _ => drop(self.wrong::<()>(value, owner, "a list of bodies")),
            },
            "$value" => body.value = self.item(value, owner).map(Box::new),
            "$let" => body.lets = self.named_items(value, owner),
            "$takes" => body.takes = self.texts(value, owner),
            "$with" => body.with = self.named_items(value, owner),
            "$map" => {
                body.maps = match value.content {
                    Content::Sequence(_) => self.entries(value).into_iter().filter_map(|n| self.arrow(n)).collect(),
                    _ => self.arrow(value).into_iter().collect(),
                }
            }
            "$save" => {
                body.save = self.save(value, owner);
                body.save_refused = body.save.is_none();
            }
            "$missing" => body.missing = self.declared_choice(value, declared),
            "$merge" => body.merge = self.texts(value, owner),
            "$initial" => body.initial = self.body(value, owner, Place::Inside).map(Box::new),
            "$copy" => body.copy = self.keys(value, owner),
            "$search" => body.search = self.key(value, owner),
            "$at" => body.at = self.key(value, owner),
            "$none" => body.none = self.declared_choice(value, declared),
            "$several" => body.several = self.declared_choice(value, declared),
            "$cache" => body.cache = self.key(value, owner),
            "$timeout" => body.timeout = self.key(value, owner),
            "$continue" => body.continues = self.expr(value, owner),
            "$name" => body.name = self.key(value, owner),
            "$in" if place == Place::Map => {}
            _ => {
                let fault = Diagnostic::error("K105", key.span, format!("`{owner}` is no key of Kiln's"));
                let bare = owner.trim_start_matches('$');
                self.faults.push(if owner == "$in" {
                    Diagnostic::error("K105", key.span, "`$in` belongs to a whole document").help("write it at the top, below the first key")
                } else if let Some(meant) = suggest(owner, names(OWN)) {
                    fault.help(format!("did you mean `{meant}`?")).fix_if(meant.only())
                } else if first_keys().contains(&bare) {
                    fault.help(format!("`{bare}` begins a document and has no `$`"))
                } else {
                    fault.help(format!("elements are written without `$`; Kiln's keys are {}", names(OWN).join(" ")))
                });
            }
        }
    }
}
