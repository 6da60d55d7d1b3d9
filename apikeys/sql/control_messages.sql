-- Numbers the control messages that every server process acknowledges.
CREATE SEQUENCE IF NOT EXISTS apikeys_control_message_number;

-- migrate:down
DROP SEQUENCE IF EXISTS apikeys_control_message_number;
