-- Django makes these for LIKE, which nobody asks of these ids; every request would write to them.
DROP INDEX IF EXISTS apikeys_usagerecord_id_e5ab9f34_like;
DROP INDEX IF EXISTS apikeys_reservation_id_4d1bbd45_like;

-- migrate:down
-- They go with their tables.
