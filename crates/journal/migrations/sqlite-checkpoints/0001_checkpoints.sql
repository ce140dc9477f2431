-- Checkpoints of a shard's tables: the latest that was finished, one that is being made, and what is left of older ones.
CREATE TABLE checkpoints (
    id       INTEGER PRIMARY KEY,
    finished INTEGER NOT NULL,
    root     BLOB,             -- of its manifest; NULL until that is known
    manifest BLOB              -- paymesh.events.v1.Checkpoint
) STRICT;

-- Chunks as they are sent, by their number from 0. Rows are only ever added, but for the last one of a checkpoint that is being made.
CREATE TABLE chunks (
    checkpoint INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    payload    BLOB    NOT NULL,
    PRIMARY KEY (checkpoint, number)
) STRICT;
