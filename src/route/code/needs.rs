//! What lines hang on, so that those about what was not sent need not be looked at.

/// What a line hangs on, of the value in slot 0: if none of it was sent, the line yields nothing and need not be looked at. Most lines of most
/// maps are about what most senders leave out. Bit `n` is field `n` of a segment, or component `n` of a value; bit 0 is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) fields: u64,
    pub(crate) pieces: u64,
}

impl Default for Needs {
    fn default() -> Self {
        Self::ALWAYS
    }
}

impl Needs {
    /// The line is looked at, whatever was sent.
    pub(crate) const ALWAYS: Self = Self { fields: 1, pieces: 1 };
    /// The line never yields anything.
    pub(crate) const NEVER: Self = Self { fields: 0, pieces: 0 };
    /// What is known to be sent where nothing is known.
    pub(crate) const ANYTHING: Self = Self { fields: u64::MAX, pieces: u64::MAX };

    pub(crate) fn field(n: u16) -> Self {
        Self::bit(n).map_or(Self::ALWAYS, |fields| Self { fields, pieces: 0 })
    }

    pub(crate) fn piece(n: u16) -> Self {
        Self::bit(n).map_or(Self::ALWAYS, |pieces| Self { fields: 0, pieces })
    }

    fn bit(n: u16) -> Option<u64> {
        (1..64).contains(&n).then(|| 1 << n)
    }

    /// Either is enough.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { fields: self.fields | other.fields, pieces: self.pieces | other.pieces }
    }

    /// Both are there only if this one is; where it tells nothing, what the other tells.
    pub(crate) fn and(self, other: Self) -> Self {
        if self == Self::ALWAYS { other } else { self }
    }

    pub(crate) fn met_by(self, sent: Self) -> bool {
        self.fields & sent.fields | self.pieces & sent.pieces != 0
    }
}
