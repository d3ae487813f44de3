-- What the tax table knows a product as. Products heard of before have none until they are heard of again.
ALTER TABLE prices ADD COLUMN tax_class text NOT NULL DEFAULT '';

-- What somebody means to order. A cart's row is locked while the cart is edited or checked out.
CREATE TABLE carts (
    cart_id uuid PRIMARY KEY,
    customer_id text NOT NULL,           -- empty for a guest
    country text NOT NULL,               -- where it is to go; empty where nobody said
    region text NOT NULL,
    version bigint NOT NULL,             -- counts the edits, from 1: the etag
    order_id uuid,                       -- what it became: the cart is closed
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL
);

CREATE INDEX carts_by_expiry ON carts (expire_time);

CREATE TABLE cart_lines (
    cart_id uuid NOT NULL REFERENCES carts ON DELETE CASCADE,
    place int NOT NULL,                  -- the order they came in
    sku text NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    currency text NOT NULL,
    price_nanos bigint NOT NULL,         -- of one unit, as the buyer last saw it
    product_id text NOT NULL,
    product_name text NOT NULL,
    PRIMARY KEY (cart_id, sku)
);
