-- Django makes these indexes for LIKE. No query uses it with these ids, and every request would write to them.
DROP INDEX IF EXISTS apikeys_usagerecord_id_e5ab9f34_like;
DROP INDEX IF EXISTS apikeys_reservation_id_4d1bbd45_like;

-- migrate:down
-- Nothing is to be undone: the indexes are dropped with their tables.
