-- Of an account in EUR: payments by card that were exempt from strong customer authentication since the owner was last authenticated,
-- and what they come to in minor units.
ALTER TABLE wallets ADD COLUMN exempted_payments INTEGER NOT NULL DEFAULT 0;
ALTER TABLE wallets ADD COLUMN exempted_minor INTEGER NOT NULL DEFAULT 0;
