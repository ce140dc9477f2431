-- What fraud detection of a region remembers: the payments that it has scored, in the order in which it has.

-- One row: whose file this is.
CREATE TABLE fraud (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    mesh   TEXT NOT NULL,
    zone   TEXT NOT NULL,
    region TEXT NOT NULL
) STRICT;

CREATE TABLE scored (
    number    INTEGER PRIMARY KEY,
    request   BLOB    NOT NULL UNIQUE,
    body      BLOB    NOT NULL, -- a hash of what was asked
    answer    BLOB    NOT NULL, -- paymesh.fraud.v1.Assessment
    at        INTEGER NOT NULL, -- microseconds since 1970 UTC
    payer     INTEGER NOT NULL,
    payee     INTEGER NOT NULL,
    reference INTEGER,          -- minor units of the reference currency; NULL: its currency had no rate
    card      BLOB,             -- fingerprint
    device    BLOB,             -- hash
    region    TEXT    NOT NULL, -- where it entered the mesh
    accepted  INTEGER NOT NULL  -- 0: it was declined
) STRICT;
