//! Bytes on the wire: MLLP framing without I/O.
//!
//! Never reads a socket or a clock: partial input is a state, not an error.

mod mllp;

pub use mllp::{FRAME_BYTES_MAX, Frame, FrameTooLarge, Mllp};
