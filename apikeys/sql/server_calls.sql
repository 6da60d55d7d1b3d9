-- Numbers the calls that every server process answers.
CREATE SEQUENCE IF NOT EXISTS apikeys_call_number;

-- migrate:down
DROP SEQUENCE IF EXISTS apikeys_call_number;
