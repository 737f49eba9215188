//! Expected this, found that: with the cure of the usual slips.

use crate::diagnostic::suggest;
use crate::route::expression::grammar::{KEYWORDS, Parser, relation};
use crate::route::expression::words::{Fault, Token, Word};

impl Parser<'_> {
    pub(super) fn written(&self, token: &Token) -> String {
        match (&token.word, self.text.get(token.range.clone())) {
            (Word::End, _) | (_, None) => "the end".to_owned(),
            (Word::Text(_), Some(_)) => "a string".to_owned(),
            (_, Some(text)) => format!("`{text}`"),
        }
    }

    /// The next token; of a path, such as `PID-5`, all of it.
    pub(super) fn whole(&self) -> Token {
        let mut token = self.now().clone();
        if matches!(token.word, Word::Upper(_)) {
            let path = self.tokens.get(self.at + 1..).unwrap_or_default().iter();
            let path = path.take_while(|t| t.glued && matches!(t.word, Word::Sign("-" | ".") | Word::Digits(_) | Word::Upper(_) | Word::Lower(_)));
            token.range.end = path.last().map_or(token.range.end, |t| t.range.end);
        }
        token
    }

    /// Expected this, found that, with the cure of the usual slips.
    pub(super) fn unexpected(&self, expected: &str) -> Fault {
        let token = &self.whole();
        let fault = Fault::new(token.range.clone(), format!("expected {expected}, found {}", self.written(token))).label("here");
        let cure = |meant: &str, help: &str| Fault::new(token.range.clone(), format!("{} is no operator here", self.written(token))).help(help).fix(meant);
        match &token.word {
            Word::Sign("==") => cure("=", "equality is a single `=`"),
            Word::Sign("&&") => cure("and", "both conditions: `and`"),
            Word::Sign("||") => cure("or", "either condition: `or`"),
            Word::Sign("<>") => cure("!=", "unequal is `!=`"),
            Word::Sign("!") => cure("not ", "negation is `not`"),
            Word::Sign(s) if relation(s).is_some() => fault.help("comparisons don't chain: join them with `and`"),
            Word::Sign("-") => fault.help("a minus needs a space on both sides, and a value before it"),
            Word::Sign(".") if !token.glued => fault.help("no space before a dot: `PID-5.1`"),
            Word::Sign("[") if !token.glued => fault.help("no space before a bracket: `PID-3[1]`"),
            Word::Sign("(") if !token.glued => fault.help("no space before the parenthesis of a call: `count(PID-3)`"),
            Word::Upper(word) if KEYWORDS.contains(&word.to_lowercase().as_str()) => {
                let lower = word.to_lowercase();
                fault.help(format!("the language's words are in small letters: `{lower}`")).fix(lower)
            }
            Word::Lower(word) => match word.as_str() {
                "is" => fault.help("equality is `=`; whether a field has content is `PID-29 valued` or `PID-29 not valued`"),
                "exists" | "present" | "filled" => fault.help("whether a field has content is `PID-29 valued`").fix("valued"),
                "empty" | "missing" => fault.help("whether a field has no content is `PID-29 not valued`").fix("not valued"),
                "equals" | "eq" => fault.help("equality is `=`").fix("="),
                "contains" | "starts" | "matches" => fault.help(format!("`{word}` is a function: `{word}(PID-5.1, \"text\")`")),
                "then" => fault.help("`then` follows `if` and a condition"),
                _ => match suggest(word, KEYWORDS.iter().copied()) {
                    Some(meant) if expected.contains("operator") || expected.contains("then") => {
                        fault.help(format!("did you mean `{meant}`?")).fix_if(meant.only())
                    }
                    _ => fault,
                },
            },
            Word::Text(_) if expected.contains("operator") => fault.help("texts are put together with `join(\"\", a, b)`"),
            _ => fault,
        }
    }
}
