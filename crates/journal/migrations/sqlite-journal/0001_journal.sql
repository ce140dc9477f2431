-- The ordered entries of one shard. Rows are only ever added.
CREATE TABLE segments (
    first        INTEGER PRIMARY KEY,
    last         INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    committed_at INTEGER NOT NULL, -- microseconds since 1970 UTC
    previous     BLOB    NOT NULL,
    root         BLOB    NOT NULL,
    hash         BLOB    NOT NULL,
    checksum     BLOB    NOT NULL,
    payload      BLOB    NOT NULL,
    CHECK (last >= first)
) STRICT;

-- One row: the term of leadership. Appends of earlier terms are refused.
CREATE TABLE leadership (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL
) STRICT;
INSERT INTO leadership (id, epoch) VALUES (1, 0);

-- One row: whose journal this is.
CREATE TABLE identity (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    mesh   TEXT    NOT NULL,
    zone   TEXT    NOT NULL,
    shard  INTEGER NOT NULL,
    shards INTEGER NOT NULL
) STRICT;
