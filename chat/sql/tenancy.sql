-- An app's team is its datasets' team: given to the row here, and held by the two foreign keys.
CREATE OR REPLACE FUNCTION chat_fill_team_of_app_dataset() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT team_id INTO NEW.team_id FROM chat_app WHERE id = NEW.app_id;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER fill_team BEFORE INSERT OR UPDATE ON chat_appdataset
    FOR EACH ROW EXECUTE FUNCTION chat_fill_team_of_app_dataset();
ALTER TABLE chat_appdataset
    DROP CONSTRAINT IF EXISTS app_dataset_app_in_team,
    ADD CONSTRAINT app_dataset_app_in_team FOREIGN KEY (app_id, team_id)
        REFERENCES chat_app (id, team_id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE chat_appdataset
    DROP CONSTRAINT IF EXISTS app_dataset_dataset_in_team,
    ADD CONSTRAINT app_dataset_dataset_in_team FOREIGN KEY (dataset_id, team_id)
        REFERENCES datasets_dataset (id, team_id);

-- migrate:down
ALTER TABLE chat_appdataset DROP CONSTRAINT IF EXISTS app_dataset_dataset_in_team;
ALTER TABLE chat_appdataset DROP CONSTRAINT IF EXISTS app_dataset_app_in_team;
DROP TRIGGER IF EXISTS fill_team ON chat_appdataset;
DROP FUNCTION IF EXISTS chat_fill_team_of_app_dataset();
-- One of before, which comes back when the removal of its column is undone.
ALTER TABLE chat_app DROP CONSTRAINT IF EXISTS app_provider_in_team;
