-- What queries read, projected from the journal. It can be deleted and is then made again.
--
-- Lines and payments are appended in the journal's order and chained backwards from their account: writing them touches
-- the end of two tables, however many accounts there are, and a page of a statement is a walk of as many look-ups.

-- One row: the last entry that the tables hold, and the latest time in a request id of version 7 up to it.
CREATE TABLE cursor (
    id                INTEGER PRIMARY KEY CHECK (id = 1),
    sequence          INTEGER NOT NULL,
    newest_request_ms INTEGER NOT NULL
) STRICT;
INSERT INTO cursor (id, sequence, newest_request_ms) VALUES (1, 0, 0);

CREATE TABLE identity (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    mesh   TEXT    NOT NULL,
    zone   TEXT    NOT NULL,
    shard  INTEGER NOT NULL,
    shards INTEGER NOT NULL,
    held_for TEXT
) STRICT;

CREATE TABLE users (
    user_id INTEGER PRIMARY KEY,
    country TEXT NOT NULL
) STRICT;

CREATE TABLE claims (
    user_id INTEGER PRIMARY KEY,
    zone    TEXT NOT NULL
) STRICT;

CREATE TABLE wallets (
    user_id      INTEGER NOT NULL,
    currency     INTEGER NOT NULL, -- ISO 4217 number
    balance      INTEGER NOT NULL,
    held         INTEGER NOT NULL,
    closed       INTEGER NOT NULL,
    last_line    INTEGER NOT NULL,
    last_payment INTEGER NOT NULL,
    PRIMARY KEY (user_id, currency)
) STRICT, WITHOUT ROWID;

CREATE TABLE lines (
    id           INTEGER PRIMARY KEY, -- sequence * 2 + place in the entry
    user_id      INTEGER NOT NULL,
    currency     INTEGER NOT NULL,
    kind         INTEGER NOT NULL,
    amount       INTEGER NOT NULL,
    balance      INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    payment      TEXT,
    counterparty INTEGER,
    reference    TEXT,
    previous     INTEGER NOT NULL
) STRICT;

CREATE TABLE payments (
    sequence    INTEGER PRIMARY KEY,
    epoch       INTEGER NOT NULL,
    payer       INTEGER NOT NULL,
    payee       INTEGER NOT NULL,
    payee_zone  TEXT, -- NULL: the payee is of this shard
    payee_shard INTEGER,
    currency    INTEGER NOT NULL,
    amount      INTEGER NOT NULL,
    captured    INTEGER NOT NULL,
    refunded    INTEGER NOT NULL,
    sent        INTEGER NOT NULL,
    phase       INTEGER NOT NULL,
    reason      INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER, -- NULL unless it is held
    previous    INTEGER NOT NULL,
    reference   TEXT
) STRICT;
-- Only what is held: phase 1 is AUTHORIZED.
CREATE INDEX payments_held ON payments (expires_at) WHERE phase = 1;

CREATE TABLE requests (
    sequence   INTEGER PRIMARY KEY,
    request_id BLOB    NOT NULL UNIQUE,
    at         INTEGER NOT NULL
) STRICT;

-- The outside world's account (kind 0) and the clearing accounts (1 sent, 2 received).
CREATE TABLE system_accounts (
    kind     INTEGER NOT NULL,
    zone     TEXT    NOT NULL,
    shard    INTEGER NOT NULL,
    currency INTEGER NOT NULL,
    balance  INTEGER NOT NULL,
    PRIMARY KEY (kind, zone, shard, currency)
) STRICT, WITHOUT ROWID;

-- Cursors on other shards' journals (kind 0) and how far they took in what this one sent (1).
CREATE TABLE peers (
    kind     INTEGER NOT NULL,
    zone     TEXT    NOT NULL,
    shard    INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (kind, zone, shard)
) STRICT, WITHOUT ROWID;
