//! Route documents.

use crate::diagnostic::Diagnostic;
use crate::route::keys::{Declared, Place, ROUTE, Takes, find, names};
use crate::route::read::Reader;
use crate::route::yaml::{Content, Node};
use crate::route::{Body, Document, Item, Key, RouteDoc};

impl Reader<'_> {
    pub(super) fn route(&mut self, head: &Node, pairs: &[(Node, Node)], document: &mut Document) -> Option<RouteDoc> {
        let name = self.key(head, "route")?;
        let mut route = RouteDoc {
            name,
            on: Vec::new(),
            from: Vec::new(),
            to: Vec::new(),
            when: None,
            order_by: Vec::new(),
            overlays: Vec::new(),
            like: None,
            resources: Vec::new(),
            message: None,
            reply: None,
            ask: Vec::new(),
            shared: Vec::new(),
            types: Vec::new(),
            invalid: None,
            send: None,
            retry: Vec::new(),
            after_dead_letter: None,
        };
        // What a route is like, it may take away from, as `extend:` does.
        let changes = document.extends || pairs.iter().any(|(key, _)| key.text() == "like");
        for (key, value) in pairs.iter().skip(1) {
            let Some(word) = self.plain_key(key, "a route", ROUTE, document) else { continue };
            let declared = find(ROUTE, word);
            match word {
                "on" => route.on = self.keys(value, word),
                "from" => route.from = self.keys(value, word),
                "to" => route.to = self.keys(value, word),
                "when" => route.when = self.expr(value, word),
                "order-by" => route.order_by = self.exprs(value, word),
                "use" => route.overlays = self.keys(value, word),
                "like" => route.like = self.key(value, word),
                "resources" => route.resources = self.bodies(value, word, changes, Place::Resource),
                "message" => route.message = self.message(value, word),
                "reply" => route.reply = self.key(value, word),
                "ask" => route.ask = self.bodies(value, word, changes, Place::Question),
                "shared" => {
                    let pairs = self.pairs(value, word);
                    route.shared = pairs.into_iter().filter_map(|(k, v)| Some((Self::word(k), self.save(v, k.text())?))).collect();
                }
                "types" => route.types = self.texts(value, word),
                "invalid" => route.invalid = self.declared_choice(value, declared),
                "send" => route.send = self.declared_choice(value, declared),
                "retry" => route.retry = self.texts(value, word),
                _ => route.after_dead_letter = self.declared_choice(value, declared),
            }
        }
        Some(route)
    }

    /// `message:`, a body or the word `as-received`.
    fn message(&mut self, node: &Node, owner: &str) -> Option<Body> {
        match &node.content {
            Content::Scalar(_) if !node.is_empty() => {
                let Some(Declared { takes: Takes::Message(words), .. }) = find(ROUTE, owner) else { return None };
                let word = self.choice(node, owner, words)?;
                Some(Body { span: node.span, copy: vec![word], ..Body::default() })
            }
            _ => self.body(node, owner, Place::Message),
        }
    }

    fn bodies(&mut self, node: &Node, owner: &str, changes: bool, place: Place) -> Vec<(Key, Body)> {
        let pairs = self.pairs(node, owner);
        let mut bodies = Vec::new();
        for (key, value) in pairs {
            let body = match value.content {
                // In a document that changes another, a resource that is taken away.
                Content::Scalar(_) if changes && value.text() == "nothing" => {
                    self.expr(value, key.text()).map(|e| Body { span: value.span, value: Some(Box::new(Item::Expr(e))), ..Body::default() })
                }
                _ => self.body(value, key.text(), place),
            };
            if let Some(body) = body {
                bodies.push((Self::word(key), body));
            }
        }
        bodies
    }

    /// A key of a document whose keys are plain words; `None` and K113 if there is no such key, `None` for `$in`. A `+` is noted in `document`.
    pub(super) fn plain_key(&mut self, key: &Node, owner: &str, keys: &'static [Declared], document: &mut Document) -> Option<&'static str> {
        let written = key.text();
        if written == "$in" {
            return None;
        }
        let text = written.strip_suffix('+').unwrap_or(written);
        let Some(known) = find(keys, text) else {
            self.no_such_word(&Self::word(key), &format!("`{written}` is no key of {owner}"), "K113", &names(keys));
            return None;
        };
        if text != written {
            if !document.extends || !known.appends {
                let fault = Diagnostic::error("K113", key.span, format!("`{written}` can't append here"));
                self.faults.push(fault.help("a `+` appends to a list of the document that `extend:` changes").fix(text));
                return None;
            }
            document.appends.push(text.to_owned());
        }
        Some(known.name)
    }
}
