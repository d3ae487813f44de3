-- Where stock lies: orders are served from the lowest priority first. Locations are never removed. Texts that are
-- sorted when locked use the C collation, which is how Python sorts.
CREATE TABLE locations (
    location_id text COLLATE "C" PRIMARY KEY,
    display_name text NOT NULL,
    priority int NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- What calls that name no location mean.
INSERT INTO locations (location_id, display_name, priority) VALUES ('main', 'Main warehouse', 0);

-- What a SKU is over all locations: its settings, and what a shopper was last told. Whoever changes its stock anywhere
-- locks its row here.
CREATE TABLE items (
    sku text COLLATE "C" PRIMARY KEY,
    safety_stock bigint NOT NULL DEFAULT 0 CHECK (safety_stock >= 0),
    low_stock bigint NOT NULL DEFAULT 5 CHECK (low_stock >= 0),
    availability text CHECK (availability IN ('IN_STOCK', 'LOW', 'OUT')),
    availability_version bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);

-- Units of each SKU at each location where it ever lay.
CREATE TABLE stock (
    sku text COLLATE "C" NOT NULL REFERENCES items,
    location_id text COLLATE "C" NOT NULL REFERENCES locations,
    on_hand bigint NOT NULL,
    reserved bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sku, location_id),
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

-- For whoever asks which orders have held stock for long.
CREATE INDEX open_holds ON holds (created_at, order_id) WHERE state = 'RESERVED';

-- What an order reserved, and where. Rows stay: stock.reserved is the sum over the orders that are RESERVED.
CREATE TABLE reservations (
    order_id text COLLATE "C" NOT NULL,
    sku text COLLATE "C" NOT NULL,
    location_id text COLLATE "C" NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, sku, location_id)
);

-- Every change: stock.on_hand and stock.reserved are the sums of their deltas. A movement belongs to an order, to an
-- operation or, where a buyer returned something, to both.
CREATE TABLE movements (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku text COLLATE "C" NOT NULL,
    location_id text COLLATE "C" NOT NULL,
    kind text NOT NULL
        CHECK (kind IN ('RESERVE', 'COMMIT', 'RELEASE', 'RESTOCK', 'COUNT', 'ADJUST', 'RECEIVE')),
    on_hand_delta bigint NOT NULL,
    reserved_delta bigint NOT NULL,
    order_id text COLLATE "C",
    operation_id text COLLATE "C",
    reason text NOT NULL DEFAULT '',
    at timestamptz NOT NULL DEFAULT now(),
    CHECK ((order_id IS NOT NULL) = (kind IN ('RESERVE', 'COMMIT', 'RELEASE', 'RESTOCK'))),
    CHECK ((operation_id IS NULL) = (kind IN ('RESERVE', 'COMMIT', 'RELEASE')))
);

-- The net below: an order moves a SKU at a location at most once in each way, and so does an operation.
CREATE UNIQUE INDEX movements_happen_once ON movements (order_id, operation_id, sku, location_id, kind)
    NULLS NOT DISTINCT;
CREATE INDEX movements_of_a_sku ON movements (sku, id);

-- Calls that must have no effect twice.
CREATE TABLE requests (
    request_id uuid PRIMARY KEY,
    content bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
