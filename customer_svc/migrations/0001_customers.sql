-- Who orders, and how to reach them. Of a customer that was erased the row stays, empty, so that its id isn't given again.
CREATE TABLE customers (
    customer_id text PRIMARY KEY,
    display_name text NOT NULL,
    email text NOT NULL,           -- empty: isn't written to
    country text NOT NULL,
    addresses jsonb NOT NULL,      -- a list of domain.address.Address
    muted jsonb NOT NULL,          -- what they don't want to be told: a list of [channel, kind]
    email_verified boolean NOT NULL,
    erased boolean NOT NULL,
    version bigint NOT NULL CHECK (version > 0),  -- counts the writes; the etag is made of it
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    CHECK (NOT erased OR (display_name, email, country, addresses, muted, email_verified)
        = ('', '', '', '[]'::jsonb, '[]'::jsonb, false))
);

-- What each customer's data in events is sealed with. Deleting a key erases all that was ever said of its customer.
CREATE TABLE customer_keys (
    customer_id text PRIMARY KEY REFERENCES customers,
    key bytea NOT NULL CHECK (length(key) = 32)
);

-- The last code sent to a customer's e-mail address, as a digest. Gone once the address changes.
CREATE TABLE email_verifications (
    customer_id text PRIMARY KEY REFERENCES customers,
    verification_id uuid NOT NULL,
    digest bytea NOT NULL,
    request_time timestamptz NOT NULL
);
