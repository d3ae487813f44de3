-- Orders are shipped, delivered and returned, in parts; money goes back in parts.
ALTER TABLE orders DROP CONSTRAINT orders_status_check;
ALTER TABLE orders ADD CONSTRAINT orders_status_check CHECK (status IN (
    'PENDING', 'CONFIRMED', 'REJECTED', 'CANCELLED', 'PARTLY_SHIPPED', 'SHIPPED', 'DELIVERED', 'RETURNED'
));
ALTER TABLE orders ADD COLUMN refunded_nanos bigint NOT NULL DEFAULT 0;

-- Lists are by time of placing, newest first; the id decides between equals and is where the next page begins.
DROP INDEX orders_by_customer;
DROP INDEX orders_by_status;
CREATE INDEX orders_by_customer ON orders (customer_id, place_time DESC, order_id DESC) WHERE customer_id <> '';
CREATE INDEX orders_by_status ON orders (status, place_time DESC, order_id DESC);
CREATE INDEX orders_by_time ON orders (place_time DESC, order_id DESC);

-- The other part of the read side: what of which order is under way, and what arrived.
CREATE TABLE shipments (
    shipment_id uuid PRIMARY KEY,        -- UUIDv7: newest first is this, descending
    order_id uuid NOT NULL,
    ship_time timestamptz NOT NULL,
    deliver_time timestamptz             -- none: under way
);
CREATE INDEX shipments_by_order ON shipments (order_id, shipment_id DESC);
CREATE INDEX shipments_under_way ON shipments (shipment_id DESC) WHERE deliver_time IS NULL;

-- Who did it (a customer's id, "guest", an operator, a service) and why (a message's type, a method, "clock"). None: of
-- a release that didn't say; the first event of an order is its buyer's PlaceOrder.
ALTER TABLE events ADD COLUMN actor text;
ALTER TABLE events ADD COLUMN cause text;

-- All events of all orders in one sequence. Numbers are given before their transactions end, so what is below a
-- position is complete only up to the oldest transaction that is still open.
ALTER TABLE events ADD COLUMN position bigint GENERATED ALWAYS AS IDENTITY;
ALTER TABLE events ADD COLUMN transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE UNIQUE INDEX events_by_position ON events (transaction_id, position);
