-- Where a shard's journal begins, once its first segments are not kept any more: the end of the last of them. Rows of segments
-- up to it are of no meaning, and go by and by.
ALTER TABLE shards ADD COLUMN origin_last INTEGER NOT NULL DEFAULT 0;
ALTER TABLE shards ADD COLUMN origin_epoch INTEGER NOT NULL DEFAULT 0;
-- paymesh.events.v1.JournalOrigin; NULL while the journal begins with its first entry.
ALTER TABLE shards ADD COLUMN origin BLOB;
-- The end of the copy that was set aside before this one, where this region took money from it: what comes must pass through it.
ALTER TABLE shards ADD COLUMN witness_last INTEGER;
ALTER TABLE shards ADD COLUMN witness_hash BLOB;
