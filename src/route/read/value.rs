//! The values that all documents share: texts, lists, expressions, arrows.

use crate::diagnostic::{Diagnostic, Span, suggest};
use crate::route::expression::{Places, parse, parse_each, parse_save};
use crate::route::keys::{Declared, Takes};
use crate::route::read::{Reader, start_of};
use crate::route::yaml::{Content, Node, Quoting, unbalanced};
use crate::route::{Each, Expr, Key, Save, Target};

impl Reader<'_> {
    /// A key or a text as it stands.
    pub(super) fn word(node: &Node) -> Key {
        Key { text: node.text().to_owned(), span: node.span }
    }

    /// The text of `owner`, quoted or not.
    pub(super) fn key(&mut self, node: &Node, owner: &str) -> Option<Key> {
        match &node.content {
            Content::Scalar(_) if !node.is_empty() => Some(Key { text: node.text().trim().to_owned(), span: node.span }),
            _ => self.wrong(node, owner, "a word"),
        }
    }

    /// One of the words, or K114.
    pub(super) fn choice(&mut self, node: &Node, owner: &str, words: &[&str]) -> Option<Key> {
        let key = self.key(node, owner)?;
        if words.contains(&key.text.as_str()) {
            return Some(key);
        }
        self.no_such_word(&key, &format!("`{}` is no value of `{owner}`", key.text), "K114", words);
        None
    }

    /// One of the words that the key's declaration lists, or K114.
    pub(super) fn declared_choice(&mut self, node: &Node, declared: Option<&'static Declared>) -> Option<Key> {
        match declared {
            Some(Declared { name, takes: Takes::Choice(words), .. }) => self.choice(node, name, words),
            _ => None,
        }
    }

    /// A text, or a list of texts.
    pub(super) fn keys(&mut self, node: &Node, owner: &str) -> Vec<Key> {
        match &node.content {
            Content::Sequence(_) => self.entries(node).into_iter().filter_map(|n| self.key(n, owner)).collect(),
            Content::Scalar(_) if !node.is_empty() => self.key(node, owner).into_iter().collect(),
            _ => self.wrong(node, owner, "a word or a list of words").unwrap_or_default(),
        }
    }

    /// `{key: text}`.
    pub(super) fn texts(&mut self, node: &Node, owner: &str) -> Vec<(Key, Key)> {
        let pairs = self.pairs(node, owner);
        pairs.into_iter().filter_map(|(k, v)| Some((Self::word(k), self.key(v, k.text())?))).collect()
    }

    /// The entries of a list; those that a comma tore out of an expression are reported (K102) and left out.
    pub(super) fn entries<'n>(&mut self, node: &'n Node) -> Vec<&'n Node> {
        let Content::Sequence(items) = &node.content else { return Vec::new() };
        let mut good = Vec::with_capacity(items.len());
        let mut rest = items.iter();
        while let Some(item) = rest.next() {
            if !open(item) {
                good.push(item);
                continue;
            }
            let (mut text, mut end) = (item.text().to_owned(), item.span.end);
            while unbalanced(&text) {
                let Some(next) = rest.next() else { break };
                text.push_str(next.text());
                end = next.span.end;
            }
            self.torn(Span { end, ..item.span });
        }
        good
    }

    /// The pairs of a mapping, or K112; those that a comma tore out of an expression are reported (K102) and left out.
    pub(super) fn pairs<'n>(&mut self, node: &'n Node, owner: &str) -> Vec<(&'n Node, &'n Node)> {
        let Content::Mapping(items) = &node.content else {
            return self.wrong(node, owner, "a body of `key: value` lines").unwrap_or_default();
        };
        let mut good = Vec::with_capacity(items.len());
        let mut rest = items.iter();
        while let Some((key, value)) = rest.next() {
            if !open(value) {
                good.push((key, value));
                continue;
            }
            let (mut text, mut end) = (value.text().to_owned(), value.span.end);
            while unbalanced(&text) {
                let Some((key, value)) = rest.next() else { break };
                text.push_str(key.text());
                text.push_str(value.text());
                end = value.span.end.max(key.span.end);
            }
            self.torn(Span { end, ..value.span });
        }
        good
    }

    fn torn(&mut self, span: Span) {
        self.faults.push(
            Diagnostic::error("K102", span, "an expression with a comma or a bracket can't stand inside `[...]` or `{...}`")
                .label("YAML cuts this at the comma")
                .help("write the body or list in block form, one line for each entry"),
        );
    }

    /// A plain scalar or block as an expression.
    pub(super) fn expr(&mut self, node: &Node, owner: &str) -> Option<Expr> {
        self.read_text(node, owner, parse)
    }

    /// `PATH` or `PATH by KEY`.
    pub(super) fn each(&mut self, node: &Node, owner: &str) -> Option<Each> {
        self.read_text(node, owner, parse_each)
    }

    /// The value of `$save`.
    pub(super) fn save(&mut self, node: &Node, owner: &str) -> Option<Save> {
        self.read_text(node, owner, parse_save)
    }

    fn read_text<T>(&mut self, node: &Node, owner: &str, rule: fn(&str, &Places) -> Result<T, Box<Diagnostic>>) -> Option<T> {
        let Some(scalar) = node.scalar().filter(|s| s.quoting != Quoting::Quoted && !node.is_empty()) else {
            return self.wrong(node, owner, "an expression");
        };
        match rule(&scalar.text, &node.places(self.sources)) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.faults.push(self.commented(node).unwrap_or(*fault));
                None
            }
        }
    }

    /// ` #` inside a string of a plain scalar: YAML took the rest for a comment.
    fn commented(&self, node: &Node) -> Option<Diagnostic> {
        let rest = self.sources.text(node.span.source).get(node.span.end as usize..)?;
        let line = rest.lines().next()?;
        let cut = line.trim_start().starts_with('#') && node.text().matches('"').count() % 2 == 1;
        let end = node.span.end + u32::try_from(line.trim_end().len()).ok()?;
        cut.then(|| {
            let hash = node.span.end + u32::try_from(line.find('#').unwrap_or(0)).unwrap_or(0);
            Diagnostic::error("K106", Span { start: hash, end, ..node.span }, "` #` begins a comment in YAML")
                .label("the expression ends before this")
                .help("write the expression in a block: `key: >`, then the expression on the next line, indented")
        })
    }

    /// An expression, or a list of them.
    pub(super) fn exprs(&mut self, node: &Node, owner: &str) -> Vec<Expr> {
        match &node.content {
            Content::Sequence(_) => self.entries(node).into_iter().filter_map(|n| self.expr(n, owner)).collect(),
            _ => self.expr(node, owner).into_iter().collect(),
        }
    }

    /// `A -> B`.
    pub(super) fn arrow(&mut self, node: &Node) -> Option<(Key, Target)> {
        let Some(text) = node.scalar().map(|s| s.text.as_str()).filter(|t| !t.is_empty()) else {
            return self.wrong(node, "map", "`SOURCE -> TARGET`");
        };
        let places = node.places(self.sources);
        if let Some((left, right)) = text.split_once("->") {
            let source = left.trim_end();
            let begin = text.len() - right.trim_start().len();
            if named(source)
                && let Some(target) = target(right.trim(), places.span(begin..begin + right.trim().len()))
            {
                return Some((Key { text: source.to_owned(), span: places.span(0..source.len()) }, target));
            }
        }
        let fault = Diagnostic::error("K117", node.span, "expected `SOURCE -> TARGET`")
            .help("such as `PID -> Patient`, `NK1 -> Patient.contact`, `EI -> Identifier-DefaultAssigner`");
        let words: Vec<&str> = text
            .split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_' | '[' | ']'))
            .filter(|w| !w.is_empty() && *w != "-" && *w != "to")
            .collect();
        self.faults.push(match words.as_slice() {
            [source, into] if named(source) && target(into, node.span).is_some() => fault.fix(format!("{source} -> {into}")),
            _ => fault,
        });
        None
    }

    /// Reports K112: `owner` takes something else than this node.
    pub(super) fn wrong<T>(&mut self, node: &Node, owner: &str, wanted: &str) -> Option<T> {
        let found = match &node.content {
            Content::Mapping(_) => "a body",
            Content::Sequence(_) => "a list",
            Content::Scalar(_) if node.is_empty() => {
                self.faults.push(
                    Diagnostic::error("K112", node.span, format!("`{owner}` has no value"))
                        .help(format!("it takes {wanted}; a line that should make nothing is left out")),
                );
                return None;
            }
            Content::Scalar(s) if s.quoting == Quoting::Quoted => "a quoted constant",
            Content::Scalar(_) => "a single value",
        };
        let span = if node.scalar().is_some() { node.span } else { start_of(node) };
        let fault = Diagnostic::error("K112", span, format!("`{owner}` wants {wanted}, not {found}"));
        self.faults.push(if found == "a quoted constant" { fault.help("without quotes it is an expression") } else { fault });
        None
    }

    pub(super) fn no_such_word(&mut self, key: &Key, message: &str, code: &'static str, words: &[&str]) {
        let list = words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ");
        let fault = Diagnostic::error(code, key.span, message);
        self.faults.push(match suggest(&key.text, words.iter().copied()) {
            Some(meant) => fault.help(format!("did you mean `{meant}`?")).fix_if(meant.only()),
            None => fault.help(format!("known are {list}")),
        });
    }
}

/// An expression that goes on behind the comma or bracket at which YAML ended it.
fn open(node: &Node) -> bool {
    node.scalar().is_some_and(|s| s.in_flow && s.quoting == Quoting::Plain && unbalanced(&s.text))
}

fn named(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `Type`, `Type-Variant`, `Type.element.path`.
fn target(text: &str, span: Span) -> Option<Target> {
    let mut parts = text.split('.');
    let head = parts.next()?;
    let (name, variant) = match head.split_once('-') {
        Some((name, variant)) => (name, Some(variant)),
        None => (head, None),
    };
    let element: Vec<String> = parts.map(str::to_owned).collect();
    let good = named(name) && variant.is_none_or(named) && element.iter().all(|e| named(e.strip_suffix("[x]").unwrap_or(e)));
    good.then(|| Target { name: name.to_owned(), element, variant: variant.map(str::to_owned), span })
}
