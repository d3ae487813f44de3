-- Who orders, and where to write to.
CREATE TABLE customers (
    customer_id text PRIMARY KEY,
    display_name text NOT NULL,
    email text NOT NULL,          -- empty: isn't written to
    country text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),  -- counts the writes; the etag is made of it
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
