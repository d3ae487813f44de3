-- The event store: an order is the fold of its events. Rows are only ever added.
CREATE TABLE events (
    stream_id uuid NOT NULL,             -- the order
    version int NOT NULL CHECK (version > 0),
    type text NOT NULL,                  -- a message of polymart.order.v1, without the package
    schema_version smallint NOT NULL,
    data bytea NOT NULL,                 -- that message
    message_id uuid NOT NULL,            -- the id it is published under, where it is published
    occurred_at timestamptz NOT NULL,
    causation_id uuid,                   -- the message that led to it; none for a call or the clock
    traceparent text,
    PRIMARY KEY (stream_id, version)
);

-- The read side, a projection of `events` written in the same transaction. Its rows are also what is locked while an
-- order is being decided, in the order of their ids.
CREATE TABLE orders (
    order_id uuid PRIMARY KEY,           -- UUIDv7: newest first is this, descending
    customer_id text NOT NULL,           -- empty for a guest
    status text NOT NULL CHECK (status IN ('PENDING', 'CONFIRMED', 'REJECTED', 'CANCELLED')),
    settled boolean NOT NULL,
    currency text NOT NULL,
    total_nanos bigint NOT NULL,         -- 10^-9 units of the currency
    failure_reason text,                 -- set when rejected or cancelled
    failure_message text,
    place_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    deadline timestamptz NOT NULL,
    version int NOT NULL                 -- of the last event seen
) WITH (fillfactor = 70);

CREATE INDEX orders_by_customer ON orders (customer_id, order_id DESC) WHERE customer_id <> '';
CREATE INDEX orders_by_status ON orders (status, order_id DESC);
-- What the deadline worker polls.
CREATE INDEX orders_pending ON orders (deadline) WHERE status = 'PENDING';

-- Which request placed which order, so that a repeated request gets the same one.
CREATE TABLE requests (
    customer_id text NOT NULL,           -- guests share the empty one
    request_id uuid NOT NULL,
    fingerprint bytea NOT NULL,          -- SHA-256 of the request as received
    order_id uuid NOT NULL,
    PRIMARY KEY (customer_id, request_id)
);
