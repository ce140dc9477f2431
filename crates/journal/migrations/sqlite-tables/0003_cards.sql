-- What a payment by card is at its acquirer: a paymesh.events.v1.Charge; NULL where no card is charged.
ALTER TABLE payments ADD COLUMN charge BLOB;
-- How many operations of it the acquirer is being asked for.
ALTER TABLE payments ADD COLUMN in_progress INTEGER NOT NULL DEFAULT 0;
CREATE INDEX payments_in_progress ON payments (sequence) WHERE in_progress > 0;

-- What has an end: what is held (phase 1) and what waits for its cardholder (8), unless its end is being brought about.
DROP INDEX payments_held;
CREATE INDEX payments_held ON payments (expires_at) WHERE phase IN (1, 8) AND in_progress = 0;

-- Of an acquirer's account (kind 3) it is the gateway. What is to go back to cards (4) has none.
ALTER TABLE system_accounts RENAME COLUMN zone TO party;
