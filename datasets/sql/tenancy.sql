ALTER TABLE datasets_dataset
    DROP CONSTRAINT IF EXISTS dataset_rerank_provider_in_team,
    ADD CONSTRAINT dataset_rerank_provider_in_team FOREIGN KEY (rerank_provider_id, team_id)
        REFERENCES chat_provider (id, team_id) DEFERRABLE INITIALLY DEFERRED;

CREATE OR REPLACE FUNCTION datasets_guard_dataset() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the team of a dataset never changes' USING ERRCODE = 'restrict_violation';
END $$;
CREATE OR REPLACE TRIGGER guard BEFORE UPDATE ON datasets_dataset FOR EACH ROW
    WHEN ((OLD.id, OLD.team_id) <> (NEW.id, NEW.team_id)) EXECUTE FUNCTION datasets_guard_dataset();

CREATE OR REPLACE FUNCTION datasets_guard_vector_set() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM datasets_dataset AS dataset JOIN chat_provider AS provider ON provider.team_id = dataset.team_id
        WHERE dataset.id = NEW.dataset_id AND provider.id = NEW.provider_id
    ) THEN
        RAISE EXCEPTION 'a provider belongs to another team' USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER guard BEFORE INSERT OR UPDATE OF dataset_id, provider_id ON datasets_vectorset FOR EACH ROW
    WHEN (NEW.provider_id IS NOT NULL) EXECUTE FUNCTION datasets_guard_vector_set();

-- migrate:down
DROP TRIGGER IF EXISTS guard ON datasets_vectorset;
DROP FUNCTION IF EXISTS datasets_guard_vector_set();
DROP TRIGGER IF EXISTS guard ON datasets_dataset;
DROP FUNCTION IF EXISTS datasets_guard_dataset();
ALTER TABLE datasets_dataset DROP CONSTRAINT IF EXISTS dataset_rerank_provider_in_team;
