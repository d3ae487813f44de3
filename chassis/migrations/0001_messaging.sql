-- Messages written in the transaction of their cause, until the broker has acknowledged them.
CREATE TABLE outbox (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    aggregate_id text NOT NULL,
    subject text NOT NULL,
    headers json NOT NULL,
    data bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Which replica's relay publishes; free when expired.
CREATE TABLE relay_lease (
    name text PRIMARY KEY,
    holder text NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

INSERT INTO relay_lease (name, holder, expires_at) VALUES ('outbox', '', '-infinity');

-- The messages whose effects are committed, one row for each consumer that had them.
CREATE TABLE inbox (
    consumer text NOT NULL,
    id uuid NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, id)
);

CREATE INDEX inbox_received_at ON inbox USING brin (received_at);
