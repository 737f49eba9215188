//! Where messages come in: MLLP listeners that hand over a `Received` and carry its reply back.
