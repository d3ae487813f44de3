-- One payment an order. Texts that are sorted when locked use the C collation, which is how Python sorts.
-- NEW exists only inside the transaction that decides. Amounts count 10^-9 units of `currency`; it and `amount` are
-- null where a void came before the authorisation.
CREATE TABLE payments (
    payment_id text COLLATE "C" PRIMARY KEY,
    status text NOT NULL CHECK (status IN (
        'NEW', 'AUTHORIZING', 'AUTHORIZED', 'DECLINED', 'CAPTURING', 'CAPTURED', 'CAPTURE_FAILED', 'VOIDING', 'VOIDED'
    )),
    currency text,
    amount bigint CHECK (amount >= 0),
    captured bigint NOT NULL DEFAULT 0,
    refunded bigint NOT NULL DEFAULT 0,
    token text NOT NULL DEFAULT '',
    failure text NOT NULL DEFAULT '',
    provider_reference text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((currency IS NULL) = (amount IS NULL)),
    CONSTRAINT captured_within_amount CHECK (captured BETWEEN 0 AND coalesce(amount, 0)),
    CONSTRAINT refunded_within_captured CHECK (refunded BETWEEN 0 AND captured)
) WITH (fillfactor = 70);

CREATE INDEX payments_newest ON payments (created_at DESC, payment_id DESC);
CREATE INDEX payments_by_status ON payments (status, created_at DESC, payment_id DESC);

-- What the provider is or was asked, once for each operation of a payment, under a key that never changes.
-- A refund has an operation_id, unless it is what a void came down to. `seq` is the order they were opened in.
-- A claim moves due_at into the future and counts a try; cause, correlation and trace are those of the command.
CREATE TABLE attempts (
    payment_id text COLLATE "C" NOT NULL REFERENCES payments,
    operation text NOT NULL CHECK (operation IN ('AUTHORIZE', 'CAPTURE', 'VOID', 'REFUND')),
    operation_id text NOT NULL CHECK (operation_id = '' OR operation = 'REFUND'),
    seq bigint GENERATED ALWAYS AS IDENTITY,
    amount bigint NOT NULL CHECK (amount >= 0),
    state text NOT NULL CHECK (state IN ('WAITING', 'PENDING', 'APPROVED', 'REFUSED', 'UNNEEDED')),
    reason text NOT NULL DEFAULT '',
    tries integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    causation_id uuid NOT NULL,
    correlation_id text NOT NULL,
    traceparent text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (payment_id, operation, operation_id)
) WITH (fillfactor = 70);

CREATE INDEX attempts_due ON attempts (due_at) WHERE state = 'PENDING';

CREATE TABLE accounts (
    account text PRIMARY KEY,
    about text NOT NULL
);

INSERT INTO accounts VALUES
    ('HOLDS', 'set aside by the provider for the shop'),
    ('BUYERS', 'set aside from buyers: the other side of HOLDS'),
    ('PROVIDER', 'collected by the provider and owed to the shop'),
    ('SALES', 'collected from buyers'),
    ('REFUNDS', 'given back to buyers');

-- The ledger: an operation the provider did is one transaction, booked once. Debits are positive.
CREATE TABLE entries (
    payment_id text COLLATE "C" NOT NULL,
    operation text NOT NULL,
    operation_id text NOT NULL,
    account text NOT NULL REFERENCES accounts,
    currency text NOT NULL,
    amount bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (payment_id, operation, operation_id, account),
    FOREIGN KEY (payment_id, operation, operation_id) REFERENCES attempts
);

-- A transaction is inserted by one statement and never touched again, so it is enough to look when that ends.
CREATE FUNCTION entries_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    unbalanced record;
BEGIN
    SELECT e.payment_id, e.operation, e.operation_id, e.currency, sum(e.amount) AS off INTO unbalanced
    FROM entries e JOIN (SELECT DISTINCT payment_id, operation, operation_id FROM fresh) AS touched
        USING (payment_id, operation, operation_id)
    GROUP BY e.payment_id, e.operation, e.operation_id, e.currency HAVING sum(e.amount) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the entries of % % of payment % sum to % %, not to zero',
            unbalanced.operation, unbalanced.operation_id, unbalanced.payment_id, unbalanced.off, unbalanced.currency
            USING ERRCODE = 'check_violation', CONSTRAINT = 'entries_balance';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER entries_balance AFTER INSERT ON entries REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION entries_balance();

CREATE FUNCTION entries_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is written once' USING ERRCODE = 'check_violation', CONSTRAINT = 'entries_stay';
END
$$;

CREATE TRIGGER entries_stay BEFORE UPDATE OR DELETE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION entries_stay();

-- Notices of the provider that were taken. They outlive the time in which one could be sent again.
CREATE TABLE notices (
    id text PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX notices_received_at ON notices (received_at);
