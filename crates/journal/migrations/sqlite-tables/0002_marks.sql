-- What tells the history that a cursor (kind 0) is in from others: paymesh.events.v1.PeerCursor's taken_in_mark as a signed number;
-- NULL where it was not noted.
ALTER TABLE peers ADD COLUMN mark INTEGER;
