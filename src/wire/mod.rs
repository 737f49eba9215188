//! Bytes on the wire: MLLP framing without I/O.
