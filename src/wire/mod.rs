//! Bytes on the wire: MLLP framing without I/O, and other framings where a listener takes them.
//!
//! Never reads a socket or a clock: partial input is a state, not an error.

mod framing;
mod mllp;
mod sample;

pub use framing::{Framing, Style, Tolerance};
pub use mllp::{FRAME_BYTES_MAX, Frame, FrameTooLarge, Mllp};
pub use sample::{Looks, Sample};
