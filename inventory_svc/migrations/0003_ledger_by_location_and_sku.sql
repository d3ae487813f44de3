-- A SKU's movements at one location, the newest first, however many it has elsewhere.
CREATE INDEX movements_at_a_location ON movements (sku, location_id, id);

-- What a reservation holds, beside its lines: for whoever asks which open ones hold a SKU, however many are open.
ALTER TABLE holds ADD COLUMN skus text[] NOT NULL DEFAULT '{}';
UPDATE holds SET skus = taken.skus
FROM (
    SELECT order_id, array_agg(DISTINCT sku) AS skus FROM holds JOIN reservations USING (order_id)
    WHERE state = 'RESERVED' GROUP BY order_id
) taken
WHERE holds.order_id = taken.order_id;
CREATE INDEX open_holds_by_sku ON holds USING gin (skus) WHERE state = 'RESERVED';
