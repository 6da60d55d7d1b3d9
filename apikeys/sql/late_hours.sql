-- A single row holds the hour up to which the ledger is rolled up.
INSERT INTO apikeys_rollupwatermark (id) VALUES (1) ON CONFLICT DO NOTHING;

-- Each insertion of late records adds a row, also for an hour that has one: writers of the ledger must never wait for
-- one another, or for whoever reads and deletes these rows.
CREATE OR REPLACE FUNCTION apikeys_note_late_hours() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO apikeys_latehour (hour)
    SELECT DISTINCT date_trunc('hour', written.created_at, 'UTC') FROM written
    WHERE written.created_at < clock_timestamp() - interval '5 minutes';
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER note_late_hours AFTER INSERT ON apikeys_usagerecord
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION apikeys_note_late_hours();

-- migrate:down
DROP TRIGGER IF EXISTS note_late_hours ON apikeys_usagerecord;
DROP FUNCTION IF EXISTS apikeys_note_late_hours();
DELETE FROM apikeys_rollupwatermark;
