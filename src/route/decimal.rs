//! Exact decimals, and how HL7 writes them.

use bigdecimal::ToPrimitive;

/// An exact decimal.
pub(crate) type Decimal = bigdecimal::BigDecimal;

/// Reads a number as HL7's NM allows it (chapter 2A, section 2.A.45): digits, one sign, one point; no exponent, and no more
/// than 100 characters, so that no message can ask for a number that fills the memory.
pub(crate) fn decimal(text: &str) -> Option<Decimal> {
    if is_decimal(text) { text.trim().parse().ok() } else { None }
}

/// Would [`decimal`] read it?
pub(crate) fn is_decimal(text: &str) -> bool {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text).as_bytes();
    let points = digits.iter().filter(|b| **b == b'.').count();
    digits.len() <= 100 && points <= 1 && digits.len() > points && digits.iter().all(|b| b.is_ascii_digit() || *b == b'.')
}

/// A whole number that counts something: `2`, `+2`, `2.0`; `None` for what is less than nothing, has a fraction or is no number.
pub(crate) fn whole(text: &str) -> Option<usize> {
    let number = decimal(text)?;
    if number.is_integer() { number.to_usize() } else { None }
}
