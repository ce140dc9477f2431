-- What the vault of a zone keeps. Nothing in it can be read without a key-encryption key, which is elsewhere; nothing of a user without the
-- user's own data key, whose row is all that has to go for the user to be erased.

-- One row: whose file this is, and the key-encryption key that new keys are wrapped under.
CREATE TABLE vault (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    mesh      TEXT    NOT NULL,
    zone      TEXT    NOT NULL,
    kek       INTEGER, -- NULL: none yet
    kek_since INTEGER, -- microseconds since 1970 UTC
    erased_at INTEGER  -- the first erasure since then, microseconds since 1970 UTC
) STRICT;

-- Keys, wrapped. Users have one each; the zone has one for fingerprints, and those that cards are sealed to.
CREATE TABLE keys (
    id         BLOB    PRIMARY KEY,
    purpose    INTEGER NOT NULL, -- 1: a user's data, 2: fingerprints, 3: sealing
    user       INTEGER UNIQUE,   -- of purpose 1
    kek        INTEGER NOT NULL,
    wrapped    BLOB    NOT NULL,
    public_key BLOB,             -- of purpose 3
    made_at    INTEGER NOT NULL  -- microseconds since 1970 UTC
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX keys_of_fingerprints ON keys (purpose) WHERE purpose = 2;
CREATE INDEX keys_by_kek ON keys (kek);

-- Cards, encrypted under their user's data key.
CREATE TABLE cards (
    token  BLOB    PRIMARY KEY,
    user   INTEGER NOT NULL,
    key    BLOB    NOT NULL, -- the data key
    lookup BLOB    NOT NULL, -- finds a number among the user's: an HMAC under a key that is derived from the data key
    sealed BLOB    NOT NULL,
    UNIQUE (key, lookup)
) STRICT, WITHOUT ROWID;
CREATE INDEX cards_by_user ON cards (user);

-- What became of requests, so that the same id gets the same answer.
CREATE TABLE requests (
    id    BLOB    PRIMARY KEY,
    kind  INTEGER NOT NULL, -- 1: tokenize, 2: delete, 3: erase
    user  INTEGER NOT NULL,
    token BLOB,             -- of the kinds 1 and 2
    body  BLOB,             -- of kind 1: an HMAC of the card under a key that is derived from the data key; NULL once the user is erased
    count INTEGER           -- of kind 3
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_user ON requests (user);
