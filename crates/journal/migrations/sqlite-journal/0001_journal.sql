-- The shards whose journals this file holds. Appends of an earlier epoch than a shard's are refused.
CREATE TABLE shards (
    slot   INTEGER PRIMARY KEY,
    mesh   TEXT    NOT NULL,
    zone   TEXT    NOT NULL,
    shard  INTEGER NOT NULL,
    shards INTEGER NOT NULL, -- of its zone
    held_for TEXT, -- the zone that may have only what concerns it, and no sealed part; NULL: all is held
    epoch  INTEGER NOT NULL,
    set_aside_at INTEGER -- microseconds since 1970 UTC: a copy that was damaged or had diverged, kept and not used
) STRICT;
CREATE UNIQUE INDEX shards_used ON shards (zone, shard) WHERE set_aside_at IS NULL;

-- The ordered entries of each shard. Rows are only ever added, in the order of their commits.
CREATE TABLE segments (
    slot         INTEGER NOT NULL,
    first        INTEGER NOT NULL,
    last         INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    committed_at INTEGER NOT NULL, -- microseconds since 1970 UTC
    previous     BLOB    NOT NULL,
    root         BLOB    NOT NULL,
    hash         BLOB    NOT NULL,
    checksum     BLOB    NOT NULL,
    payload      BLOB    NOT NULL,
    PRIMARY KEY (slot, first),
    CHECK (last >= first)
) STRICT;
