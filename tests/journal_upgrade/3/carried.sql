-- A journal that a kiln of format 3 wrote, as text. What was carried over: nothing. Invented patients.
PRAGMA application_id = 1263094862;
PRAGMA user_version = 3;
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY, message INTEGER NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL, outcome INTEGER NOT NULL,
    code TEXT NOT NULL, summary TEXT NOT NULL, detail TEXT
) STRICT;
CREATE TABLE awaited (message INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (message, number)) STRICT, WITHOUT ROWID;
CREATE TABLE delivery (
    message INTEGER NOT NULL, number INTEGER NOT NULL, target INTEGER NOT NULL, route INTEGER NOT NULL, state INTEGER NOT NULL,
    attempts INTEGER NOT NULL, not_before INTEGER, first_attempt INTEGER, ambiguous INTEGER NOT NULL, program TEXT,
    received INTEGER NOT NULL, order_keys BLOB NOT NULL, PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE duplicate (id INTEGER PRIMARY KEY, original INTEGER NOT NULL, at INTEGER NOT NULL, peer TEXT NOT NULL) STRICT;
CREATE TABLE message (
    id INTEGER PRIMARY KEY, received INTEGER NOT NULL, listener INTEGER NOT NULL, format INTEGER NOT NULL,
    disposition INTEGER NOT NULL, code INTEGER, reason TEXT, type TEXT NOT NULL, application TEXT NOT NULL, facility TEXT NOT NULL,
    message_time TEXT NOT NULL, control_id TEXT NOT NULL, peer TEXT NOT NULL, order_keys BLOB NOT NULL, payload BLOB NOT NULL
) STRICT;
CREATE TABLE name (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE parked (
    target INTEGER NOT NULL, key INTEGER NOT NULL, message INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (target, key, message, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE setting (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE tally (kind INTEGER NOT NULL, a TEXT NOT NULL, b TEXT NOT NULL, c INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (kind, a, b, c)) STRICT, WITHOUT ROWID;
CREATE TABLE target_state (target TEXT PRIMARY KEY, sequence INTEGER NOT NULL, state TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX message_control ON message (control_id, message_time) WHERE control_id <> '';
CREATE INDEX delivery_open ON delivery (target, state, message, number) WHERE state <> 1;
CREATE INDEX attempt_delivery ON attempt (message, number);
CREATE INDEX duplicate_original ON duplicate (original);
CREATE TABLE acknowledgement (
    message INTEGER PRIMARY KEY, listener INTEGER NOT NULL, sender INTEGER NOT NULL, accept TEXT, wanted INTEGER NOT NULL, awaited BLOB NOT NULL,
    state INTEGER NOT NULL, positive INTEGER, decided INTEGER, told TEXT, line INTEGER, frames INTEGER,
    attempts INTEGER NOT NULL, not_before INTEGER, at INTEGER, note TEXT NOT NULL, code TEXT, bytes BLOB
) STRICT;
CREATE INDEX acknowledgement_due ON acknowledgement (listener, sender, message) WHERE state = 1;
