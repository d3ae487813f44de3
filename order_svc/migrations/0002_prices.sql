-- The last version seen of each product, deleted ones too: what is older is ignored.
CREATE TABLE products (
    product_id text PRIMARY KEY,
    version bigint NOT NULL              -- 0: only asked for, no event seen
);

-- What each SKU costs, as the catalog last said. A SKU that moves from one product to another may be in two rows until
-- both have been heard.
CREATE TABLE prices (
    product_id text NOT NULL,
    sku text NOT NULL,
    product_version bigint NOT NULL,
    product_name text NOT NULL,
    currency text NOT NULL,
    price_nanos bigint NOT NULL,         -- of one unit, in 10^-9 units of the currency
    untracked boolean NOT NULL,          -- reserves no stock
    PRIMARY KEY (product_id, sku)
);

CREATE INDEX prices_by_sku ON prices (sku);
