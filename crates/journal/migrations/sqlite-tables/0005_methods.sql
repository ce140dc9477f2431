-- The cards that users keep, by their vault tokens, with the entry that added each.
CREATE TABLE methods (
    user_id  INTEGER NOT NULL,
    added    INTEGER NOT NULL,
    added_at INTEGER NOT NULL,
    token    TEXT    NOT NULL, -- card_ZONE_LETTERS
    PRIMARY KEY (user_id, added)
) STRICT, WITHOUT ROWID;
