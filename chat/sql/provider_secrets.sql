-- A secret that was given for one address is not sent to another one.
CREATE OR REPLACE FUNCTION chat_clear_provider_secret() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.encrypted_secret := NULL;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER clear_secret BEFORE UPDATE ON chat_provider FOR EACH ROW
    WHEN (OLD.base_url <> NEW.base_url AND OLD.encrypted_secret IS NOT DISTINCT FROM NEW.encrypted_secret)
    EXECUTE FUNCTION chat_clear_provider_secret();

-- migrate:down
DROP TRIGGER IF EXISTS clear_secret ON chat_provider;
DROP FUNCTION IF EXISTS chat_clear_provider_secret();
