-- When an order that stood still last had its open commands sent once more; none: never.
ALTER TABLE orders ADD COLUMN asked_again_at timestamptz;

CREATE INDEX orders_unsettled ON orders (order_id) WHERE NOT settled;
