//! `Phi` and `Secret`: values that cannot be printed by accident.

/// A value that may contain patient data. It has no `Display`, and its `Debug` prints a placeholder, so that
/// neither a log line nor a panic message can carry it. Reading it takes the word `expose`, which a reviewer can grep.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Phi<T>(T);

impl<T> Phi<T> {
    /// Wraps a value that came from a message, a server's answer or a database.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself: for mapping, storing, sending and for a screen that somebody asked for by name. Never for logs.
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// Unwraps, under the same rule as [`Phi::expose`].
    pub fn into_exposed(self) -> T {
        self.0
    }
}

impl<T> std::fmt::Debug for Phi<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<patient data>")
    }
}

/// A password, token or key. Like [`Phi`], it cannot be printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a credential.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The credential itself, for the one call that needs it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
}
