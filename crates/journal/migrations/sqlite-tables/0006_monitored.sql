-- What payments by card come to by day (UTC, in days since 1970) and by how they came to be authorized, in minor units of EUR: today and 90 days before it, as
-- of the last entry that counted.
CREATE TABLE monitored_days (
    day         INTEGER NOT NULL,
    means       INTEGER NOT NULL, -- paymesh.events.v1.Means
    payments    INTEGER NOT NULL,
    minor       INTEGER NOT NULL,
    frauds      INTEGER NOT NULL,
    fraud_minor INTEGER NOT NULL,
    PRIMARY KEY (day, means)
) STRICT, WITHOUT ROWID;
-- The first day that was counted; NULL while none was.
ALTER TABLE cursor ADD COLUMN monitored_since INTEGER;
