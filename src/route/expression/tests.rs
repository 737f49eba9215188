//! Round trips of random trees, and what the usual slips are told.

use crate::diagnostic::{SourceId, Span};
use crate::route::expression::{Places, parse};
use crate::route::{Expr, ExprKind, Index, Key, Literal, Op, PathStep, Target, Test};
use proptest::prelude::*;

fn read(text: &str) -> Result<Expr, Box<crate::diagnostic::Diagnostic>> {
    parse(text, &Places::verbatim(SourceId(0), 0, text.len()))
}

fn expr(kind: ExprKind) -> Expr {
    Expr { kind, span: Span::default() }
}

fn key(text: impl Into<String>) -> Key {
    Key { text: text.into(), span: Span::default() }
}

/// Without places, so that trees from different texts can be compared.
fn bare(e: Expr) -> Expr {
    let one = |e: Box<Expr>| Box::new(bare(*e));
    let name = |k: Key| key(k.text);
    expr(match e.kind {
        ExprKind::If(a, b, c) => ExprKind::If(one(a), one(b), c.map(one)),
        ExprKind::Else(a, b) => ExprKind::Else(one(a), one(b)),
        ExprKind::As(a, t) => ExprKind::As(one(a), Target { span: Span::default(), ..t }),
        ExprKind::Via(a, t, c) => ExprKind::Via(one(a), name(t), c.map(name)),
        ExprKind::Where(a, b) => ExprKind::Where(one(a), one(b)),
        ExprKind::Binary(op, a, b) => ExprKind::Binary(op, one(a), one(b)),
        ExprKind::Not(a) => ExprKind::Not(one(a)),
        ExprKind::Test(t, a) => ExprKind::Test(t, one(a)),
        ExprKind::InList(a, l, n) => ExprKind::InList(one(a), l.into_iter().map(|(l, _)| (l, Span::default())).collect(), n),
        ExprKind::InName(a, k, n) => ExprKind::InName(one(a), name(k), n),
        ExprKind::Call(k, args) => ExprKind::Call(name(k), args.into_iter().map(bare).collect()),
        ExprKind::Segment { all, anchors, segment, index, field, tail } => {
            ExprKind::Segment { all, anchors: anchors.into_iter().map(name).collect(), segment: name(segment), index, field, tail }
        }
        ExprKind::Type { name: n, tail } => ExprKind::Type { name: name(n), tail },
        ExprKind::Tail(a, t) => ExprKind::Tail(one(a), t),
        kind @ (ExprKind::Literal(_) | ExprKind::Variable(_) | ExprKind::Name(..)) => kind,
    })
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        "[ -~äß\n\t\u{7f}\u{1}]{0,6}".prop_map(Literal::Text),
        "(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?".prop_map(Literal::Number),
        any::<bool>().prop_map(Literal::Bool),
        Just(Literal::Nothing),
        Just(Literal::Null),
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,4}(-[a-z0-9]{1,3})?".prop_filter("keyword", |n| {
        !["if", "then", "else", "as", "via", "where", "or", "and", "not", "valued", "deleted", "in", "all", "by", "true", "false", "nothing", "null"]
            .contains(&n.as_str())
    })
}

fn tail(least: usize) -> impl Strategy<Value = Vec<PathStep>> {
    let step = prop_oneof![(1..40_u16).prop_map(PathStep::Component), "[a-z][A-Za-z]{1,6}".prop_map(PathStep::Element), index().prop_map(PathStep::Index)];
    prop::collection::vec(step, least..3)
}

fn index() -> impl Strategy<Value = Index> {
    prop_oneof![(1..9_u32).prop_map(Index::Nth), Just(Index::Last)]
}

fn leaf() -> impl Strategy<Value = Expr> {
    let segment = (any::<bool>(), prop::collection::vec("[A-Z]{3}", 0..3), "[A-Z][A-Z0-9]{2}", prop::option::of(index()), 1..60_u16, tail(0));
    prop_oneof![
        literal().prop_map(ExprKind::Literal),
        name().prop_map(ExprKind::Variable),
        (name(), any::<bool>()).prop_map(|(n, all)| ExprKind::Name(n, all)),
        segment.prop_map(|(all, anchors, segment, index, field, tail)| ExprKind::Segment {
            all,
            anchors: anchors.into_iter().map(key).collect(),
            segment: key(segment),
            index,
            field: Some(field),
            tail
        }),
        "[A-Z]{3}".prop_map(|s| ExprKind::Segment { all: false, anchors: vec![], segment: key(s), index: None, field: None, tail: vec![] }),
        ("[A-Z][a-z]{2,5}|[A-Z]{2}", tail(0)).prop_map(|(n, tail)| ExprKind::Type { name: key(n), tail }),
    ]
    .prop_map(expr)
}

fn tree() -> impl Strategy<Value = Expr> {
    leaf().prop_recursive(5, 40, 4, |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        let op = prop::sample::select(vec![
            Op::Or,
            Op::And,
            Op::Equal,
            Op::NotEqual,
            Op::Less,
            Op::LessEqual,
            Op::Greater,
            Op::GreaterEqual,
            Op::Add,
            Op::Subtract,
            Op::Multiply,
            Op::Divide,
        ]);
        let target = ("[A-Z][A-Za-z]{1,6}", prop::option::of("[A-Z][a-z]{1,6}"));
        let test = prop::sample::select(vec![Test::Valued, Test::NotValued, Test::Deleted]);
        prop_oneof![
            (boxed.clone(), boxed.clone(), prop::option::of(boxed.clone())).prop_map(|(a, b, c)| ExprKind::If(a, b, c)),
            (boxed.clone(), boxed.clone()).prop_map(|(a, b)| ExprKind::Else(a, b)),
            (boxed.clone(), target).prop_map(|(a, (name, variant))| ExprKind::As(a, Target { name, element: vec![], variant, span: Span::default() })),
            (boxed.clone(), name(), prop::option::of(name())).prop_map(|(a, t, c)| ExprKind::Via(a, key(t), c.map(key))),
            (boxed.clone(), boxed.clone()).prop_map(|(a, b)| ExprKind::Where(a, b)),
            (op, boxed.clone(), boxed.clone()).prop_map(|(op, a, b)| ExprKind::Binary(op, a, b)),
            boxed.clone().prop_map(ExprKind::Not),
            (test, boxed.clone()).prop_map(|(t, a)| ExprKind::Test(t, a)),
            (boxed.clone(), prop::collection::vec(literal().prop_map(|l| (l, Span::default())), 1..3), any::<bool>())
                .prop_map(|(a, l, n)| ExprKind::InList(a, l, n)),
            (boxed.clone(), name(), any::<bool>()).prop_map(|(a, k, n)| ExprKind::InName(a, key(k), n)),
            (name(), prop::collection::vec(inner, 0..3)).prop_map(|(n, args)| ExprKind::Call(key(n), args)),
            (boxed, tail(1)).prop_map(|(a, t)| ExprKind::Tail(a, t)),
        ]
        .prop_map(expr)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_reads_as_the_same_tree(tree in tree()) {
        let text = tree.to_string();
        let again = read(&text).map_err(|d| TestCaseError::fail(format!("{text}: {} at {:?}", d.message, d.span)))?;
        prop_assert_eq!(bare(again), tree, "{}", text);
    }

    #[test]
    fn no_text_panics_and_each_fault_lies_inside(text in "[-a-zA-Z0-9 \"'.,()\\[\\]$=!<>&|?+*/\\\\{}ä\n]{0,40}") {
        if let Err(fault) = read(&text) {
            prop_assert!(fault.span.start <= fault.span.end && fault.span.end as usize <= text.len());
            prop_assert!(text.is_char_boundary(fault.span.start as usize) && text.is_char_boundary(fault.span.end as usize), "{:?} {:?}", text, fault.span);
        }
    }
}

/// Each operator with the given operands, the first of them in its first place, and again in its second and third.
fn around(inner: &Expr) -> Vec<Expr> {
    let leaf = || Box::new(expr(ExprKind::Variable("x".to_owned())));
    let inner = || Box::new(inner.clone());
    let target = Target { name: "Code".to_owned(), element: vec![], variant: None, span: Span::default() };
    let mut made = Vec::new();
    for op in
        [Op::Or, Op::And, Op::Equal, Op::NotEqual, Op::Less, Op::LessEqual, Op::Greater, Op::GreaterEqual, Op::Add, Op::Subtract, Op::Multiply, Op::Divide]
    {
        made.extend([ExprKind::Binary(op, inner(), leaf()), ExprKind::Binary(op, leaf(), inner())]);
    }
    made.extend([
        ExprKind::If(inner(), leaf(), None),
        ExprKind::If(leaf(), inner(), None),
        ExprKind::If(inner(), leaf(), Some(leaf())),
        ExprKind::If(leaf(), inner(), Some(leaf())),
        ExprKind::If(leaf(), leaf(), Some(inner())),
        ExprKind::Else(inner(), leaf()),
        ExprKind::Else(leaf(), inner()),
        ExprKind::As(inner(), target),
        ExprKind::Via(inner(), key("t"), None),
        ExprKind::Via(inner(), key("t"), Some(key("c"))),
        ExprKind::Where(inner(), leaf()),
        ExprKind::Where(leaf(), inner()),
        ExprKind::Not(inner()),
        ExprKind::Test(Test::Valued, inner()),
        ExprKind::Test(Test::NotValued, inner()),
        ExprKind::InList(inner(), vec![(Literal::Number("1.50".to_owned()), Span::default())], true),
        ExprKind::InName(inner(), key("systems"), false),
        ExprKind::Call(key("f"), vec![*inner(), *leaf()]),
        ExprKind::Tail(inner(), vec![PathStep::Component(1)]),
    ]);
    made.into_iter().map(expr).collect()
}

#[test]
fn every_operator_inside_every_other_inside_every_third_reads_back() {
    let leaf = expr(ExprKind::Type { name: key("CX"), tail: vec![PathStep::Component(4)] });
    let mut count = 0;
    for tree in around(&leaf).iter().flat_map(around).flat_map(|two| around(&two)) {
        let text = tree.to_string();
        assert_eq!(read(&text).map(bare), Ok(tree), "{text}");
        count += 1;
    }
    assert_eq!(count, 43 * 43 * 43);
}

#[test]
fn precedence_is_that_of_the_specification() {
    for (text, full) in [
        ("PID-3 where CX.5 = \"MR\" ?? PID-3", "(PID-3 where (CX.5 = \"MR\")) ?? PID-3"),
        ("a = 1 or b = 2 and not c valued", "((a = 1) or ((b = 2) and (not (c valued))))"),
        ("1 + 2 * 3 - 4", "((1 + (2 * 3)) - 4)"),
        ("if A then B ?? C else D", "if A then (B ?? C) else D"),
        ("OBX-6.1 via g.f ?? x", "(OBX-6.1 via g.f) ?? x"),
    ] {
        assert_eq!(bare(read(text).expect("reads")), bare(read(full).expect("reads")), "{text}");
    }
}

#[test]
fn slips_are_told_with_their_cure() {
    for (text, blamed, fix) in [
        ("PID-8 == \"F\"", "==", Some("=")),
        ("a valued && b valued", "&&", Some("and")),
        ("a valued || b valued", "||", Some("or")),
        ("PID-8 = 'F'", "'F'", Some("\"F\"")),
        ("!PID-8 valued", "!", Some("not ")),
        ("$a -1", "-", Some("- ")),
        ("PID -> Patient", "->", None),
        ("if PID-8 valued PID-9", "PID-9", None),
        ("PID-8 AND PID-9", "AND", Some("and")),
        ("PID-8 exists", "exists", Some("valued")),
        ("PID-8 wher CX.1", "wher", Some("where")),
        ("\"abc", "\"abc", None),
        ("\"a\\qb\"", "\\q", None),
        ("PID-0", "0", None),
        ("PID-5.", "", None),
        ("a = b = c", "=", None),
        ("", "", None),
    ] {
        let fault = read(text).expect_err(text);
        assert_eq!(fault.code, "K110");
        assert_eq!(&text[fault.span.start as usize..fault.span.end as usize], blamed, "{text}: {}", fault.message);
        assert_eq!(fault.fix.as_deref(), fix, "{text}: {}", fault.message);
    }
}

#[test]
fn depth_and_length_have_a_limit() {
    for text in [
        "(".repeat(5000),
        "not ".repeat(5000),
        "a ?? ".repeat(5000) + "a",
        "if a then ".repeat(5000),
        "1 + ".repeat(5000) + "1",
        "if a then b else ".repeat(5000) + "c",
    ] {
        assert!(read(&text).is_err());
    }
    let table = format!("{}\"z\"", (0..150).map(|n| format!("if a = \"{n}\" then \"x\" else ")).collect::<String>());
    assert!(read(&table).is_ok());
}
