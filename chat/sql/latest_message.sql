-- Returns the id of a conversation's latest message. It is volatile, so that it sees what others committed while the
-- statement that calls it waited for the conversation's row.
CREATE OR REPLACE FUNCTION chat_latest_message(conversation bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (SELECT max(id) FROM chat_message WHERE conversation_id = conversation);
END $$;

-- migrate:down
DROP FUNCTION IF EXISTS chat_latest_message(bigint);
