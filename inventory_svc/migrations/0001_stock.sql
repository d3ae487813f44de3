-- Units of each SKU. Texts that are sorted when locked use the C collation, which is how Python sorts.
CREATE TABLE stock (
    sku text COLLATE "C" PRIMARY KEY,
    on_hand bigint NOT NULL DEFAULT 0,
    reserved bigint NOT NULL DEFAULT 0,
    availability text CHECK (availability IN ('IN_STOCK', 'LOW', 'OUT')),
    availability_version bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT reserved_within_on_hand CHECK (reserved BETWEEN 0 AND on_hand)
) WITH (fillfactor = 70);

-- What became of each order's wish. NEW exists only inside the transaction that decides.
CREATE TABLE holds (
    order_id text COLLATE "C" PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('NEW', 'RESERVED', 'REJECTED', 'COMMITTED', 'RELEASED')),
    shortages json,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);

-- What an order reserved. Rows stay: stock.reserved is the sum over the orders that are RESERVED.
CREATE TABLE reservations (
    order_id text COLLATE "C" NOT NULL,
    sku text COLLATE "C" NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, sku)
);

-- Every change: stock.on_hand and stock.reserved are the sums of their deltas.
CREATE TABLE movements (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('RESERVE', 'COMMIT', 'RELEASE', 'RESTOCK', 'COUNT', 'ADJUST')),
    on_hand_delta bigint NOT NULL,
    reserved_delta bigint NOT NULL,
    order_id text,
    operation_id text,
    reason text NOT NULL DEFAULT '',
    at timestamptz NOT NULL DEFAULT now(),
    CHECK ((order_id IS NULL) <> (operation_id IS NULL))
);

-- The net below: an order moves a SKU at most once in each way.
CREATE UNIQUE INDEX movements_of_orders ON movements (order_id, sku, kind) WHERE order_id IS NOT NULL;

-- Calls that must have no effect twice.
CREATE TABLE requests (
    request_id uuid PRIMARY KEY,
    content bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
