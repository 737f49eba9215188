//! Tokens -> tree, by the precedence of section 6: `if`, `??`, `as`/`via`, `where`, `or`, `and`, tests, sums, products, factors.

use crate::route::expression::place::Places;
use crate::route::expression::words::{Fault, Token, Word};
use crate::route::{Expr, ExprKind, Index, Key, Literal, Op, PathStep, Target, Test};
use std::ops::Range;

/// Brackets, `not` and `if` may nest this deep, so that no input can exhaust the stack here or in the checker.
const DEPTH_MAX: usize = 48;
/// Operators in one expression, for the same reason.
const LINKS_MAX: usize = 200;

pub(super) const KEYWORDS: &[&str] = &["if", "then", "else", "as", "via", "where", "or", "and", "not", "valued", "deleted", "in", "all", "by"];

pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) tokens: Vec<Token>,
    pub(super) places: &'a Places,
    pub(super) at: usize,
    pub(super) depth: usize,
    pub(super) links: usize,
}

pub(super) type Parsed = Result<Expr, Fault>;

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Parsed {
        self.deeper(Self::expression_here)
    }

    fn expression_here(&mut self) -> Parsed {
        // A chain of `else if` and `??` is read in a loop and folded from its end, so that it costs no stack.
        enum Link {
            If(Expr, Expr),
            Else(Expr),
        }
        let mut links: Vec<(usize, Link)> = Vec::new();
        let mut last = loop {
            let start = self.start();
            if self.take_word("if") {
                let condition = self.either()?;
                self.keyword("then", "a condition, then `then`")?;
                let value = self.expression()?;
                if !self.take_word("else") {
                    break self.spanned(start, ExprKind::If(Box::new(condition), Box::new(value), None));
                }
                self.link()?;
                links.push((start, Link::If(condition, value)));
            } else {
                let value = self.converted()?;
                if !self.take_sign("??") {
                    break value;
                }
                self.link()?;
                links.push((start, Link::Else(value)));
            }
        };
        while let Some((start, link)) = links.pop() {
            let kind = match link {
                Link::If(condition, value) => ExprKind::If(Box::new(condition), Box::new(value), Some(Box::new(last))),
                Link::Else(value) => ExprKind::Else(Box::new(value), Box::new(last)),
            };
            last = self.spanned(start, kind);
        }
        Ok(last)
    }

    fn converted(&mut self) -> Parsed {
        let start = self.start();
        let mut value = self.selected()?;
        if self.take_word("as") {
            let target = self.target()?;
            value = self.spanned(start, ExprKind::As(Box::new(value), target));
        }
        if self.take_word("via") {
            let table = self.name("a table's name after `via`")?;
            let column = if self.now().glued && self.take_sign(".") { Some(self.name("a column of the table")?) } else { None };
            value = self.spanned(start, ExprKind::Via(Box::new(value), table, column));
        }
        Ok(value)
    }

    fn selected(&mut self) -> Parsed {
        let start = self.start();
        let values = self.either()?;
        if !self.take_word("where") {
            return Ok(values);
        }
        let condition = self.either()?;
        if self.peek_word("where") {
            let range = self.now().range.clone();
            return Err(Fault::new(range, "a second `where`").help("join both conditions with `and`"));
        }
        Ok(self.spanned(start, ExprKind::Where(Box::new(values), Box::new(condition))))
    }

    fn either(&mut self) -> Parsed {
        let start = self.start();
        let mut left = self.both()?;
        while self.take_word("or") {
            self.link()?;
            let right = self.both()?;
            left = self.spanned(start, ExprKind::Binary(Op::Or, Box::new(left), Box::new(right)));
        }
        Ok(left)
    }

    fn both(&mut self) -> Parsed {
        let start = self.start();
        let mut left = self.test()?;
        while self.take_word("and") {
            self.link()?;
            let right = self.test()?;
            left = self.spanned(start, ExprKind::Binary(Op::And, Box::new(left), Box::new(right)));
        }
        Ok(left)
    }

    fn test(&mut self) -> Parsed {
        let start = self.start();
        if self.take_word("not") {
            let inner = self.deeper(Self::test)?;
            return Ok(self.spanned(start, ExprKind::Not(Box::new(inner))));
        }
        let left = self.sum()?;
        let kind = match self.now().word.clone() {
            Word::Sign(sign) if relation(sign).is_some() => {
                self.at += 1;
                let right = self.sum()?;
                match relation(sign) {
                    Some(op) => ExprKind::Binary(op, Box::new(left), Box::new(right)),
                    None => return Ok(left),
                }
            }
            Word::Lower(word) => match word.as_str() {
                "valued" => self.next(ExprKind::Test(Test::Valued, Box::new(left))),
                "deleted" => self.next(ExprKind::Test(Test::Deleted, Box::new(left))),
                "in" => {
                    self.at += 1;
                    self.membership(left, false)?
                }
                "not" => {
                    self.at += 1;
                    if self.take_word("valued") {
                        ExprKind::Test(Test::NotValued, Box::new(left))
                    } else if self.take_word("in") {
                        self.membership(left, true)?
                    } else {
                        return Err(self.unexpected("`valued` or `in` after `not`").help("`not` before a comparison negates all of it: `not PID-5 = \"x\"`"));
                    }
                }
                _ => return Ok(left),
            },
            _ => return Ok(left),
        };
        Ok(self.spanned(start, kind))
    }

    fn membership(&mut self, left: Expr, negated: bool) -> Result<ExprKind, Fault> {
        if !self.take_sign("(") {
            let name = self.name("a list in parentheses or the name of a table, a value set, `ucum` or `systems` after `in`")?;
            return Ok(ExprKind::InName(Box::new(left), name, negated));
        }
        let mut items = Vec::new();
        loop {
            let start = self.start();
            let Some(literal) = self.literal() else {
                return Err(self.unexpected("a constant, such as \"text\" or 5").help("a list after `in` holds constants only; compare with a field by `=`"));
            };
            let range = self.since(start);
            items.push((literal, self.places.span(range)));
            if !self.take_sign(",") {
                self.sign(")", "`,` or `)`")?;
                return Ok(ExprKind::InList(Box::new(left), items, negated));
            }
        }
    }

    fn sum(&mut self) -> Parsed {
        let start = self.start();
        let mut left = self.product()?;
        loop {
            let op = match self.now().word {
                Word::Sign("+") => Op::Add,
                Word::Sign("-") => self.minus(&left)?,
                _ => return Ok(left),
            };
            self.at += 1;
            self.link()?;
            let right = self.product()?;
            left = self.spanned(start, ExprKind::Binary(op, Box::new(left), Box::new(right)));
        }
    }

    /// A minus has spaces around it, since `PID-5` and `omb-race` have none.
    fn minus(&self, left: &Expr) -> Result<Op, Fault> {
        let next = self.tokens.get(self.at + 1);
        if !self.now().glued && next.is_some_and(|t| !t.glued) {
            return Ok(Op::Subtract);
        }
        if matches!(next, Some(Token { word: Word::Sign(">" | ">="), glued: true, .. })) {
            let range = self.now().range.start..next.map_or(0, |t| t.range.end);
            return Err(Fault::new(range, "an arrow is no operator").help("`SOURCE -> TARGET` stands after `map:` and `$map:`; a map is used by `as TARGET`"));
        }
        let fault = Fault::new(self.now().range.clone(), "a minus needs a space on both sides").label("minus or part of a name?");
        Err(match &left.kind {
            ExprKind::Segment { field: Some(_), .. } if self.now().glued => fault.help("components follow a dot: `PID-5.1`; to subtract, write ` - `"),
            _ => {
                let after = if next.is_some_and(|t| t.glued) { " " } else { "" };
                let before = if self.now().glued { " " } else { "" };
                fault.help("write `a - b`; without spaces a hyphen belongs to a name").fix(format!("{before}-{after}"))
            }
        })
    }

    fn product(&mut self) -> Parsed {
        let start = self.start();
        let mut left = self.factor()?;
        loop {
            let op = match self.now().word {
                Word::Sign("*") => Op::Multiply,
                Word::Sign("/") => Op::Divide,
                _ => return Ok(left),
            };
            self.at += 1;
            self.link()?;
            let right = self.factor()?;
            left = self.spanned(start, ExprKind::Binary(op, Box::new(left), Box::new(right)));
        }
    }

    fn factor(&mut self) -> Parsed {
        let start = self.start();
        let all = self.take_word("all");
        let token = self.now().clone();
        let base = match token.word {
            Word::Upper(_) => return self.path(start, all),
            Word::Lower(word) if !KEYWORDS.contains(&word.as_str()) => {
                if let Some(literal) = (!all).then(|| self.literal()).flatten() {
                    ExprKind::Literal(literal)
                } else {
                    self.at += 1;
                    let called = matches!(self.now().word, Word::Sign("(")) && self.now().glued;
                    if called && !all { self.call(Key { text: word, span: self.places.span(token.range) })? } else { ExprKind::Name(word, all) }
                }
            }
            _ if all => return Err(self.unexpected("a path or a resource's name after `all`")),
            Word::Variable(name) => self.next(ExprKind::Variable(name)),
            Word::Sign("(") => {
                self.at += 1;
                let inner = self.expression()?;
                self.sign(")", "`)` or an operator")?;
                // The brackets belong to the node's place, and a tail after them is a tail on the whole.
                Expr { kind: inner.kind, span: self.places.span(self.since(start)) }.kind
            }
            Word::Lower(word) if word == "if" => {
                return Err(self.unexpected("a value").help("an `if` inside another operator stands in parentheses: `(if a then b else c)`"));
            }
            _ => match self.literal() {
                Some(literal) => ExprKind::Literal(literal),
                None => return Err(self.unexpected("a value: a path, a name, a function, a \"text\" or a number")),
            },
        };
        let base = self.spanned(start, base);
        let tail = self.tail()?;
        if tail.is_empty() {
            return Ok(base);
        }
        Ok(self.spanned(start, ExprKind::Tail(Box::new(base), tail)))
    }

    fn call(&mut self, name: Key) -> Result<ExprKind, Fault> {
        self.at += 1;
        let mut arguments = Vec::new();
        if self.take_sign(")") {
            return Ok(ExprKind::Call(name, arguments));
        }
        loop {
            arguments.push(self.expression()?);
            if !self.take_sign(",") {
                self.sign(")", &format!("`,` or `)` in the call of `{}`", name.text))?;
                return Ok(ExprKind::Call(name, arguments));
            }
            self.link()?;
        }
    }

    /// `{ anchor "." } segment [ index ] [ "-" integer ] | type`, with what follows.
    fn path(&mut self, start: usize, all: bool) -> Parsed {
        let mut names = vec![self.upper()?];
        while matches!(self.now().word, Word::Sign("."))
            && self.now().glued
            && self.tokens.get(self.at + 1).is_some_and(|t| matches!(t.word, Word::Upper(_)) && t.glued)
        {
            self.at += 1;
            names.push(self.upper()?);
        }
        let mut index = None;
        let mark = self.at;
        if matches!(self.now().word, Word::Sign("[")) && self.now().glued {
            index = Some(self.index()?);
        }
        let mut field = None;
        if matches!(self.now().word, Word::Sign("-")) && self.now().glued && self.tokens.get(self.at + 1).is_some_and(|t| t.glued) {
            self.at += 1;
            field = Some(self.integer("the number of a field after `-`")?);
        }
        let Some(segment) = names.pop() else { return Err(self.unexpected("a path")) };
        let shaped = |t: &str| t.len() >= 3 && t.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        let dotted = matches!(self.now().word, Word::Sign(".")) && self.now().glued;
        let kind = if field.is_some() || !names.is_empty() || (shaped(&segment.text) && !dotted) {
            let tail = self.tail()?;
            ExprKind::Segment { all, anchors: names, segment, index, field, tail }
        } else {
            self.at = mark;
            let tail = self.tail()?;
            if all {
                return Err(
                    Fault::new(self.since(start), "`all` goes before a segment's path or a resource's name").help("`all OBX-5` means those of every group")
                );
            }
            ExprKind::Type { name: segment, tail }
        };
        Ok(self.spanned(start, kind))
    }

    fn tail(&mut self) -> Result<Vec<PathStep>, Fault> {
        let mut steps = Vec::new();
        loop {
            match self.now().word {
                Word::Sign(".") if self.now().glued => {
                    self.at += 1;
                    let token = self.now().clone();
                    match token.word {
                        Word::Digits(_) if token.glued => steps.push(PathStep::Component(self.integer("the number of a component")?)),
                        Word::Lower(name) if token.glued => {
                            self.at += 1;
                            steps.push(PathStep::Element(name));
                        }
                        _ => return Err(self.unexpected("the number of a component or the name of an element after `.`")),
                    }
                }
                Word::Sign("[") if self.now().glued => steps.push(PathStep::Index(self.index()?)),
                _ => return Ok(steps),
            }
        }
    }

    fn index(&mut self) -> Result<Index, Fault> {
        self.at += 1;
        let token = self.now().clone();
        let index = match token.word {
            Word::Lower(word) if word == "last" => Index::Last,
            Word::Digits(digits) => match digits.parse() {
                Ok(n) if n > 0 => Index::Nth(n),
                _ => return Err(Fault::new(token.range, "repetitions are counted from 1").help("the first is `[1]`, the last `[last]`")),
            },
            _ => return Err(self.unexpected("a number or `last` in the brackets")),
        };
        self.at += 1;
        self.sign("]", "`]`")?;
        Ok(index)
    }

    fn literal(&mut self) -> Option<Literal> {
        let literal = match &self.now().word {
            Word::Text(text) => Literal::Text(text.clone()),
            Word::Digits(digits) => {
                let mut number = digits.clone();
                if let (Some(Token { word: Word::Sign("."), glued: true, .. }), Some(Token { word: Word::Digits(part), glued: true, .. })) =
                    (self.tokens.get(self.at + 1), self.tokens.get(self.at + 2))
                {
                    number = format!("{number}.{part}");
                    self.at += 2;
                }
                Literal::Number(number)
            }
            Word::Lower(word) => match word.as_str() {
                "true" => Literal::Bool(true),
                "false" => Literal::Bool(false),
                "nothing" => Literal::Nothing,
                "null" => Literal::Null,
                _ => return None,
            },
            _ => return None,
        };
        self.at += 1;
        Some(literal)
    }

    /// `Type` or `Type-Variant`.
    fn target(&mut self) -> Result<Target, Fault> {
        let start = self.start();
        if !matches!(self.now().word, Word::Upper(_)) {
            // FHIR's primitives begin with a small letter: `as code`.
            let name = self.name("a type after `as`")?;
            return Ok(Target { name: name.text, element: Vec::new(), variant: None, span: name.span });
        }
        let name = self.upper()?.text;
        let mut variant = None;
        if matches!(self.now().word, Word::Sign("-")) && self.now().glued && self.tokens.get(self.at + 1).is_some_and(|t| t.glued) {
            self.at += 1;
            variant = match &self.now().word {
                Word::Upper(text) | Word::Lower(text) => Some(text.clone()),
                _ => return Err(self.unexpected("the name of a variant after `-`")),
            };
            self.at += 1;
        }
        Ok(Target { name, element: Vec::new(), variant, span: self.places.span(self.since(start)) })
    }

    fn name(&mut self, expected: &str) -> Result<Key, Fault> {
        let token = self.now().clone();
        match token.word {
            Word::Lower(text) if !KEYWORDS.contains(&text.as_str()) => {
                self.at += 1;
                Ok(Key { text, span: self.places.span(token.range) })
            }
            _ => Err(self.unexpected(expected)),
        }
    }

    fn upper(&mut self) -> Result<Key, Fault> {
        let token = self.now().clone();
        match token.word {
            Word::Upper(text) => {
                self.at += 1;
                Ok(Key { text, span: self.places.span(token.range) })
            }
            _ => Err(self.unexpected("the name of a segment or type")),
        }
    }

    fn integer(&mut self, expected: &str) -> Result<u16, Fault> {
        let token = self.now().clone();
        match token.word {
            Word::Digits(digits) => {
                self.at += 1;
                match digits.parse() {
                    Ok(n) if n > 0 => Ok(n),
                    _ => Err(Fault::new(token.range, format!("`{digits}` is no number of a field or component")).help("they are counted from 1")),
                }
            }
            _ => Err(self.unexpected(expected)),
        }
    }

    // Small steps.

    pub(super) fn now(&self) -> &Token {
        const END: &Token = &Token { word: Word::End, range: 0..0, glued: false };
        self.tokens.get(self.at).or(self.tokens.last()).unwrap_or(END)
    }

    fn start(&self) -> usize {
        self.now().range.start
    }

    /// From `start` to the end of the token read last.
    fn since(&self, start: usize) -> Range<usize> {
        let end = self.at.checked_sub(1).and_then(|n| self.tokens.get(n)).map_or(start, |t| t.range.end);
        start..end.max(start)
    }

    fn spanned(&self, start: usize, kind: ExprKind) -> Expr {
        Expr { kind, span: self.places.span(self.since(start)) }
    }

    fn next(&mut self, kind: ExprKind) -> ExprKind {
        self.at += 1;
        kind
    }

    pub(super) fn peek_word(&self, keyword: &str) -> bool {
        matches!(&self.now().word, Word::Lower(w) if w == keyword)
    }

    pub(super) fn take_word(&mut self, keyword: &str) -> bool {
        let found = self.peek_word(keyword);
        self.at += usize::from(found);
        found
    }

    pub(super) fn take_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.now().word, Word::Sign(s) if s == sign);
        self.at += usize::from(found);
        found
    }

    pub(super) fn sign(&mut self, sign: &str, expected: &str) -> Result<(), Fault> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn keyword(&mut self, keyword: &str, expected: &str) -> Result<(), Fault> {
        if self.take_word(keyword) {
            return Ok(());
        }
        let fault = self.unexpected(&format!("`{keyword}`"));
        Err(if fault.help.is_some() { fault } else { fault.help(format!("after `if` comes {expected}: `if PID-30 = \"Y\" then PID-29`")) })
    }

    pub(super) fn at_comma(&self) -> bool {
        matches!(self.now().word, Word::Sign(s) if s == ",")
    }

    pub(super) fn end(&self, expected: &str) -> Result<(), Fault> {
        if self.now().word == Word::End { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn link(&mut self) -> Result<(), Fault> {
        self.links += 1;
        if self.links > LINKS_MAX { Err(self.too_long()) } else { Ok(()) }
    }

    fn deeper(&mut self, rule: fn(&mut Self) -> Parsed) -> Parsed {
        self.depth += 1;
        let result = if self.depth > DEPTH_MAX { Err(self.too_long()) } else { rule(self) };
        self.depth -= 1;
        result
    }

    fn too_long(&self) -> Fault {
        Fault::new(self.now().range.clone(), "this expression is too long or nested too deeply").help("give its parts names with `$let`, or use a table")
    }
}

pub(super) fn relation(sign: &str) -> Option<Op> {
    Some(match sign {
        "=" => Op::Equal,
        "!=" => Op::NotEqual,
        "<" => Op::Less,
        "<=" => Op::LessEqual,
        ">" => Op::Greater,
        ">=" => Op::GreaterEqual,
        _ => return None,
    })
}
