//! What proves who somebody is, and is kept elsewhere: secrets and certificates, read again when they change.
//!
//! Never shows a secret, and never lets go of the last good one because the next cannot be read.

mod pem;
mod secret;

pub(crate) use pem::{certificates, private_key, revocations};
pub use secret::SecretSource;
pub(crate) use secret::{FileMark, HeldSecret, Looked, read_file};

/// A version of TLS; older ones are never spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    V12,
    /// TLS 1.3 (RFC 8446).
    V13,
}
