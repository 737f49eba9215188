//! Writes an expression as the analyst would: no more parentheses than the grammar needs.

use crate::route::{Expr, ExprKind, Index, Literal, Op, PathStep, Target, Test};
use std::fmt::{Display, Formatter, Result, Write};

/// The levels of the grammar, loosest first: a child that is looser than its place gets parentheses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Expression,
    Converted,
    Selected,
    Either,
    Both,
    Test,
    Sum,
    Product,
    Factor,
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.kind {
            ExprKind::If(condition, value, otherwise) => {
                write!(f, "if {} then ", At(condition, Level::Either))?;
                match otherwise {
                    // An `else` belongs to the nearest `if`.
                    Some(_) if open(value) => write!(f, "({value})")?,
                    _ => write!(f, "{value}")?,
                }
                otherwise.as_ref().map_or(Ok(()), |o| write!(f, " else {o}"))
            }
            ExprKind::Else(value, otherwise) => write!(f, "{} ?? {otherwise}", At(value, Level::Converted)),
            ExprKind::As(value, target) => write!(f, "{} as {target}", At(value, Level::Selected)),
            ExprKind::Via(value, table, column) => {
                if matches!(value.kind, ExprKind::As(..)) {
                    write!(f, "{value} via {}", table.text)?;
                } else {
                    write!(f, "{} via {}", At(value, Level::Selected), table.text)?;
                }
                column.as_ref().map_or(Ok(()), |c| write!(f, ".{}", c.text))
            }
            ExprKind::Where(values, condition) => write!(f, "{} where {}", At(values, Level::Either), At(condition, Level::Either)),
            ExprKind::Binary(op, left, right) => {
                let (level, right_level) = match op {
                    Op::Or => (Level::Either, Level::Both),
                    Op::And => (Level::Both, Level::Test),
                    Op::Add | Op::Subtract => (Level::Sum, Level::Product),
                    Op::Multiply | Op::Divide => (Level::Product, Level::Factor),
                    _ => (Level::Sum, Level::Sum),
                };
                write!(f, "{} {op} {}", At(left, level), At(right, right_level))
            }
            ExprKind::Not(inner) => write!(f, "not {}", At(inner, Level::Test)),
            ExprKind::Test(test, inner) => {
                let word = match test {
                    Test::Valued => "valued",
                    Test::NotValued => "not valued",
                    Test::Deleted => "deleted",
                };
                write!(f, "{} {word}", At(inner, Level::Sum))
            }
            ExprKind::InList(left, items, negated) => {
                write!(f, "{}{} in (", At(left, Level::Sum), if *negated { " not" } else { "" })?;
                for (n, (literal, _)) in items.iter().enumerate() {
                    write!(f, "{}{literal}", if n == 0 { "" } else { ", " })?;
                }
                f.write_char(')')
            }
            ExprKind::InName(left, name, negated) => write!(f, "{}{} in {}", At(left, Level::Sum), if *negated { " not" } else { "" }, name.text),
            ExprKind::Literal(literal) => write!(f, "{literal}"),
            ExprKind::Call(name, arguments) => {
                write!(f, "{}(", name.text)?;
                for (n, argument) in arguments.iter().enumerate() {
                    write!(f, "{}{argument}", if n == 0 { "" } else { ", " })?;
                }
                f.write_char(')')
            }
            ExprKind::Variable(name) => write!(f, "${name}"),
            ExprKind::Name(name, all) => write!(f, "{}{name}", if *all { "all " } else { "" }),
            ExprKind::Segment { all, anchors, segment, index, field, tail } => {
                f.write_str(if *all { "all " } else { "" })?;
                anchors.iter().try_for_each(|a| write!(f, "{}.", a.text))?;
                f.write_str(&segment.text)?;
                index.map_or(Ok(()), |i| write!(f, "{i}"))?;
                field.map_or(Ok(()), |n| write!(f, "-{n}"))?;
                tail.iter().try_for_each(|s| write!(f, "{s}"))
            }
            ExprKind::Type { name, tail } => {
                f.write_str(&name.text)?;
                tail.iter().try_for_each(|s| write!(f, "{s}"))
            }
            ExprKind::Tail(base, tail) => {
                // A path or a number would swallow the tail.
                let bare = matches!(base.kind, ExprKind::Call(..) | ExprKind::Variable(_) | ExprKind::Name(..) | ExprKind::Literal(Literal::Text(_)));
                if bare {
                    write!(f, "{base}")?
                } else {
                    write!(f, "({base})")?
                }
                tail.iter().try_for_each(|s| write!(f, "{s}"))
            }
        }
    }
}

/// An expression in a place that wants at least this level.
struct At<'a>(&'a Expr, Level);

impl Display for At<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if level(self.0) < self.1 { write!(f, "({})", self.0) } else { write!(f, "{}", self.0) }
    }
}

fn level(expr: &Expr) -> Level {
    match &expr.kind {
        ExprKind::If(..) | ExprKind::Else(..) => Level::Expression,
        ExprKind::As(..) | ExprKind::Via(..) => Level::Converted,
        ExprKind::Where(..) => Level::Selected,
        ExprKind::Binary(op, ..) => match op {
            Op::Or => Level::Either,
            Op::And => Level::Both,
            Op::Add | Op::Subtract => Level::Sum,
            Op::Multiply | Op::Divide => Level::Product,
            _ => Level::Test,
        },
        ExprKind::Not(_) | ExprKind::Test(..) | ExprKind::InList(..) | ExprKind::InName(..) => Level::Test,
        _ => Level::Factor,
    }
}

/// True if an `else` written after it would become part of it.
fn open(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::If(_, _, None) => true,
        ExprKind::If(_, _, Some(last)) | ExprKind::Else(_, last) => open(last),
        _ => false,
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Op::Or => "or",
            Op::And => "and",
            Op::Equal => "=",
            Op::NotEqual => "!=",
            Op::Less => "<",
            Op::LessEqual => "<=",
            Op::Greater => ">",
            Op::GreaterEqual => ">=",
            Op::Add => "+",
            Op::Subtract => "-",
            Op::Multiply => "*",
            Op::Divide => "/",
        })
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Literal::Text(text) => {
                f.write_char('"')?;
                for c in text.chars() {
                    match c {
                        '"' => f.write_str("\\\"")?,
                        '\\' => f.write_str("\\\\")?,
                        '\n' => f.write_str("\\n")?,
                        '\t' => f.write_str("\\t")?,
                        c if c.is_control() => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                        c => f.write_char(c)?,
                    }
                }
                f.write_char('"')
            }
            Literal::Number(number) => f.write_str(number),
            Literal::Bool(value) => write!(f, "{value}"),
            Literal::Nothing => f.write_str("nothing"),
            Literal::Null => f.write_str("null"),
        }
    }
}

impl Display for Index {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Index::Nth(n) => write!(f, "[{n}]"),
            Index::Last => f.write_str("[last]"),
        }
    }
}

impl Display for PathStep {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            PathStep::Component(n) => write!(f, ".{n}"),
            PathStep::Element(name) => write!(f, ".{name}"),
            PathStep::Index(index) => write!(f, "{index}"),
        }
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(&self.name)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "-{v}"))?;
        self.element.iter().try_for_each(|e| write!(f, ".{e}"))
    }
}
