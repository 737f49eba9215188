//! HL7 v2, ER7 encoding: bytes <-> messages, escapes, dictionaries 2.1 to 2.9, group structure. Pure: no I/O, no clock.
