-- Numbers the calls that every server process answers.
CREATE SEQUENCE IF NOT EXISTS apikeys_control_message_number;

-- migrate:down
DROP SEQUENCE IF EXISTS apikeys_control_message_number;
