//! Cuts an expression into tokens. What a token means is the grammar's affair.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while_m_n, take_while1};
use nom::character::complete::{char, multispace0, none_of};
use nom::combinator::{map, map_opt, recognize, value};
use nom::multi::fold_many0;
use nom::sequence::{delimited, pair, preceded};
use nom::{IResult, Parser};
use std::ops::Range;

/// What went wrong in a text, in its own offsets.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) range: Range<usize>,
    pub(super) message: String,
    pub(super) label: String,
    pub(super) help: Option<String>,
    pub(super) fix: Option<String>,
}

impl Fault {
    pub(super) fn new(range: Range<usize>, message: impl Into<String>) -> Self {
        Self { range, message: message.into(), label: String::new(), help: None, fix: None }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The same, if there is just one cure.
    pub(super) fn fix_if(self, fix: Option<&str>) -> Self {
        match fix {
            Some(text) => self.fix(text),
            None => self,
        }
    }
}

/// The kinds of token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    /// Begins with a capital: segment, group or type.
    Upper(String),
    /// Begins with a small letter: keyword, function, name, element.
    Lower(String),
    /// `$name`.
    Variable(String),
    /// Digits only; `1.50` is three tokens, since `PID-5.1.2` is a path.
    Digits(String),
    /// A string, escapes resolved.
    Text(String),
    /// An operator or bracket.
    Sign(&'static str),
    /// After the last one.
    End,
}

/// A word and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) word: Word,
    pub(super) range: Range<usize>,
    /// No white space before it.
    pub(super) glued: bool,
}

/// The longest come first. Those that no grammar rule takes are there so that their cure can be told.
const SIGNS: &[&str] = &["??", "!=", "<=", ">=", "==", "&&", "||", "<>", "=", "<", ">", "+", "-", "*", "/", "(", ")", ",", ".", "[", "]", "!"];

/// All tokens, the last one `End`.
pub(super) fn words(text: &str) -> Result<Vec<Token>, Fault> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        let (after, blank) = multispace0::<_, nom::error::Error<&str>>(rest).unwrap_or((rest, ""));
        let start = text.len() - after.len();
        if after.is_empty() {
            let start = text.trim_end().len();
            tokens.push(Token { word: Word::End, range: start..start, glued: false });
            return Ok(tokens);
        }
        match word(after) {
            Ok((next, word)) => {
                tokens.push(Token { word, range: start..text.len() - next.len(), glued: blank.is_empty() });
                rest = next;
            }
            Err(_) => return Err(stranger(text, start)),
        }
    }
}

fn word(input: &str) -> IResult<&str, Word> {
    alt((
        map(recognize(pair(take_while_m_n(1, 1, |c: char| c.is_ascii_uppercase()), take_while(|c: char| c.is_ascii_alphanumeric() || c == '_'))), |s: &str| {
            Word::Upper(s.to_owned())
        }),
        map(name, |s: &str| Word::Lower(s.to_owned())),
        map(preceded(char('$'), name), |s: &str| Word::Variable(s.to_owned())),
        map(take_while1(|c: char| c.is_ascii_digit()), |s: &str| Word::Digits(s.to_owned())),
        map(string, Word::Text),
        sign,
    ))
    .parse(input)
}

/// A small letter, then letters, digits and inner hyphens.
fn name(input: &str) -> IResult<&str, &str> {
    let (_, whole) =
        recognize(pair(take_while_m_n(1, 1, |c: char| c.is_ascii_lowercase()), take_while(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_')))
            .parse(input)?;
    let name = whole.trim_end_matches('-');
    Ok((input.get(name.len()..).unwrap_or(""), name))
}

fn string(input: &str) -> IResult<&str, String> {
    let escape = preceded(
        char('\\'),
        alt((
            value('"', char('"')),
            value('\\', char('\\')),
            value('\n', char('n')),
            value('\t', char('t')),
            map_opt(delimited(tag("u{"), take_while_m_n(1, 6, |c: char| c.is_ascii_hexdigit()), char('}')), |hex: &str| {
                u32::from_str_radix(hex, 16).ok().and_then(char::from_u32)
            }),
        )),
    );
    let character = alt((escape, none_of("\"\\")));
    delimited(
        char('"'),
        fold_many0(character, String::new, |mut text, c| {
            text.push(c);
            text
        }),
        char('"'),
    )
    .parse(input)
}

fn sign(input: &str) -> IResult<&str, Word> {
    match SIGNS.iter().find(|s| input.starts_with(**s)) {
        Some(s) => Ok((input.get(s.len()..).unwrap_or(""), Word::Sign(s))),
        None => Err(nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::Tag))),
    }
}

/// Why no token begins here.
fn stranger(text: &str, start: usize) -> Fault {
    let rest = text.get(start..).unwrap_or("");
    let first = rest.chars().next().unwrap_or(' ');
    let range = start..start + first.len_utf8();
    match first {
        '"' => broken_string(text, start),
        '\'' => {
            let end = rest.get(1..).and_then(|r| r.find('\''));
            let inner = end.and_then(|e| rest.get(1..=e));
            let fault = Fault::new(start..end.map_or(range.end, |e| start + e + 2), "a string is written with double quotes")
                .label("single quotes")
                .help("inside an expression only double quotes make a string");
            match inner {
                Some(s) if !s.contains('"') && !s.contains('\\') => fault.fix(format!("\"{s}\"")),
                _ => fault,
            }
        }
        '$' => Fault::new(range, "a name must follow `$`").help("named values are written `$name`; names begin with a small letter"),
        '&' => Fault::new(range, "`&` is no operator").help("both conditions: `and`; joining texts: `join(\"\", a, b)`"),
        '|' => Fault::new(range, "`|` is no operator").help("either condition: `or`; joining texts: `join(\"|\", a, b)`"),
        '?' => Fault::new(range, "`?` is no operator").help("a fallback is `a ?? b`, a choice is `if a then b else c`"),
        ':' => Fault::new(range, "`:` is no operator").help("a choice is `if a then b else c`"),
        ';' => Fault::new(range, "an expression is one value and has no `;`"),
        '{' | '}' => Fault::new(range, format!("`{first}` has no meaning in an expression")).help("texts are put together with `join(\"\", a, b)`"),
        '_' => Fault::new(range, "a name can't begin with `_`"),
        _ => Fault::new(range, format!("`{}` has no meaning in an expression", first.escape_debug())).help("text stands in double quotes"),
    }
}

fn broken_string(text: &str, start: usize) -> Fault {
    let mut escaped = false;
    for (n, c) in text.get(start + 1..).unwrap_or("").char_indices() {
        let at = start + 1 + n;
        if escaped {
            escaped = false;
            let known = matches!(c, '"' | '\\' | 'n' | 't') || (c == 'u' && string(&format!("\"{}\"", escape_at(text, at - 1))).is_ok());
            if !known {
                return Fault::new(at - 1..at + c.len_utf8(), format!("`\\{}` is no escape", c.escape_debug()))
                    .help("a string knows \\\" \\\\ \\n \\t and \\u{hex}; a backslash itself is \\\\");
            }
        } else if c == '\\' {
            escaped = true;
        } else if c == '"' {
            break;
        }
    }
    Fault::new(start..text.len(), "this string is not closed").label("begins here").help("add the closing `\"`; a `\"` inside a string is written `\\\"`")
}

/// The text of a `\u{...}` that begins at `at`, as far as it goes.
fn escape_at(text: &str, at: usize) -> &str {
    let rest = text.get(at..).unwrap_or("");
    rest.find('}').and_then(|end| rest.get(..=end)).unwrap_or(rest)
}
