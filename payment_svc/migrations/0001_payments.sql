-- One payment an order. Texts that are sorted when locked use the C collation, which is how Python sorts.
-- NEW exists only inside the transaction that decides. `amount` counts 10^-9 units of `currency`; both are null where
-- a void came before the authorisation.
CREATE TABLE payments (
    payment_id text COLLATE "C" PRIMARY KEY,
    status text NOT NULL CHECK (status IN (
        'NEW', 'AUTHORIZING', 'AUTHORIZED', 'DECLINED', 'CAPTURING', 'CAPTURED', 'CAPTURE_FAILED', 'VOIDING', 'VOIDED'
    )),
    currency text,
    amount bigint CHECK (amount >= 0),
    token text NOT NULL DEFAULT '',
    failure text NOT NULL DEFAULT '',
    provider_reference text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((currency IS NULL) = (amount IS NULL))
) WITH (fillfactor = 70);

CREATE INDEX payments_newest ON payments (created_at DESC, payment_id DESC);
CREATE INDEX payments_by_status ON payments (status, created_at DESC, payment_id DESC);

-- What the provider is or was asked, once for each operation of a payment, under a key that never changes.
-- A claim moves due_at into the future and counts a try; cause, correlation and trace are those of the command.
CREATE TABLE attempts (
    payment_id text COLLATE "C" NOT NULL REFERENCES payments,
    operation text NOT NULL CHECK (operation IN ('AUTHORIZE', 'CAPTURE', 'VOID')),
    state text NOT NULL CHECK (state IN ('WAITING', 'PENDING', 'APPROVED', 'REFUSED', 'UNNEEDED')),
    tries integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    causation_id uuid NOT NULL,
    correlation_id text NOT NULL,
    traceparent text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (payment_id, operation)
) WITH (fillfactor = 70);

CREATE INDEX attempts_due ON attempts (due_at) WHERE state = 'PENDING';
