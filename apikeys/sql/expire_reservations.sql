-- Settles reservations of processes whose heartbeats stopped: the prompt's bound is charged, the rest given back.
-- A reservation that is twelve hours old, longer than any request runs, was forgotten by a live process.
CREATE OR REPLACE FUNCTION apikeys_expire_reservations(silence interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    items jsonb;
BEGIN
    SELECT jsonb_agg(jsonb_build_object(
        'id', left_behind.id, 'team_id', left_behind.team_id, 'key_id', left_behind.key_id,
        'app_id', left_behind.app_id, 'endpoint', left_behind.endpoint, 'model', left_behind.model,
        'prompt_tokens', left_behind.prompt_tokens, 'completion_tokens', 0, 'token_source', 'bound',
        'cost_micropoints', left_behind.prompt_micropoints, 'prompt_price', left_behind.prompt_price,
        'completion_price', left_behind.completion_price, 'status', 0, 'outcome', 'lost',
        'duration_ms', least(2147483647, extract(epoch FROM clock_timestamp() - left_behind.admitted_at) * 1000)::int))
    INTO items
    FROM (
        SELECT reservation.* FROM apikeys_reservation AS reservation
        WHERE reservation.admitted_at < clock_timestamp() - silence AND (
            reservation.admitted_at < clock_timestamp() - interval '12 hours' OR NOT EXISTS (
                SELECT 1 FROM apikeys_serverprocess AS server
                WHERE server.id = reservation.server_id AND server.heartbeat_at > clock_timestamp() - silence))
        ORDER BY reservation.id LIMIT 500 FOR UPDATE SKIP LOCKED
    ) AS left_behind;
    IF items IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM apikeys_settle(items);
    RETURN jsonb_array_length(items);
END $$;

-- migrate:down
DROP FUNCTION IF EXISTS apikeys_expire_reservations(interval);
