-- Releases the reservations of requests that were refused after all, because no decision reached their caller.
CREATE OR REPLACE FUNCTION apikeys_release(ids text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    held apikeys_reservation[];
    met bigint[];
BEGIN
    WITH gone AS (
        DELETE FROM apikeys_reservation AS reservation WHERE reservation.id = ANY (ids) RETURNING reservation
    )
    SELECT array_agg(gone.reservation) INTO held FROM gone;
    met := ARRAY(SELECT unnest(reservation.limit_ids) FROM unnest(held) AS reservation);
    PERFORM 1 FROM apikeys_counter AS counter WHERE counter.limit_id = ANY (met)
    ORDER BY counter.limit_id FOR UPDATE;
    UPDATE apikeys_counter AS counter SET reserved = greatest(0, counter.reserved - part.amount)
    FROM (
        SELECT part.limit_id, part.period_start, sum(part.amount)::bigint AS amount
        FROM unnest(held) AS reservation,
            LATERAL unnest(reservation.limit_ids, reservation.amounts, reservation.period_starts)
                AS part(limit_id, amount, period_start)
        GROUP BY part.limit_id, part.period_start
    ) AS part
    WHERE counter.limit_id = part.limit_id AND counter.period_start = part.period_start;
END $$;

-- migrate:down
DROP FUNCTION IF EXISTS apikeys_release(text[]);
