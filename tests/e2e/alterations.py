"""What is altered behind the services' backs, and what `polymart verify` must say of it."""

# Only its owner can alter the ledger, and only like this.
LEDGER = "ALTER TABLE entries DISABLE TRIGGER entries_stay; {}; ALTER TABLE entries ENABLE TRIGGER entries_stay"

# service, what is done, what takes it back, and what must be named; {…} are Sale.facts()
ALTERATIONS = {
    "an order that isn't settled": (
        "order_svc", "UPDATE orders SET settled = false WHERE order_id = '{confirmed}'",
        "UPDATE orders SET settled = true WHERE order_id = '{confirmed}'", "{confirmed}"),
    "a read model that differs from the events": (
        "order_svc", "UPDATE orders SET version = version + 1 WHERE order_id = '{confirmed}'",
        "UPDATE orders SET version = version - 1 WHERE order_id = '{confirmed}'", "{confirmed}"),
    "an event that is gone": (
        "order_svc", "CREATE TABLE kept AS SELECT * FROM events WHERE stream_id = '{confirmed}' AND version = 3; "
        "DELETE FROM events WHERE stream_id = '{confirmed}' AND version = 3",
        "INSERT INTO events SELECT * FROM kept; DROP TABLE kept", "{confirmed}"),
    "an event of a type that nobody knows": (
        "order_svc", "UPDATE events SET type = 'Bogus' WHERE stream_id = '{confirmed}' AND version = 2",
        "UPDATE events SET type = 'OrderStockReserved' WHERE stream_id = '{confirmed}' AND version = 2",
        "order {confirmed}: its event 2 can't be read: no event of an order has the type Bogus"),
    "an event whose data is broken": (
        "order_svc", "UPDATE events SET data = '\\xff' || data WHERE stream_id = '{confirmed}' AND version = 1",
        "UPDATE events SET data = substr(data, 2) WHERE stream_id = '{confirmed}' AND version = 1",
        "order {confirmed}: its event 1 can't be read: the data is no OrderPlaced"),
    "an order that was placed twice": (
        "order_svc", "CREATE TABLE kept AS SELECT * FROM events WHERE stream_id = '{confirmed}' AND version = 2; "
        "UPDATE events SET type = 'OrderPlaced', data = first.data FROM events AS first "
        "WHERE events.stream_id = '{confirmed}' AND events.version = 2 "
        "AND first.stream_id = events.stream_id AND first.version = 1",
        "UPDATE events SET type = kept.type, data = kept.data FROM kept "
        "WHERE events.stream_id = kept.stream_id AND events.version = 2; DROP TABLE kept",
        "order {confirmed}: its events make no order"),
    "a shipment that arrived by the read model alone": (
        "order_svc", "CREATE TABLE kept AS SELECT * FROM shipments WHERE order_id = '{returned}'; "
        "UPDATE shipments SET deliver_time = NULL WHERE order_id = '{returned}'",
        "UPDATE shipments SET deliver_time = kept.deliver_time FROM kept "
        "WHERE shipments.shipment_id = kept.shipment_id; DROP TABLE kept",
        "order {returned} has other shipments in the read model than in its events"),
    "a shipment of an order that never was": (
        "order_svc", "INSERT INTO shipments VALUES ('00000000-0000-7000-8000-000000000000', "
        "'00000000-0000-7000-8000-000000000001', now(), NULL)",
        "DELETE FROM shipments WHERE shipment_id = '00000000-0000-7000-8000-000000000000'",
        "shipment 00000000-0000-7000-8000-000000000000 is of an order without events"),
    "a refund that the order doesn't know": (
        "order_svc", "CREATE TABLE kept AS SELECT * FROM events WHERE stream_id = '{returned}' "
        "AND type = 'OrderRefunded'; UPDATE events SET type = 'OrderRetried' WHERE stream_id = '{returned}' "
        "AND type = 'OrderRefunded'",
        "UPDATE events SET type = 'OrderRefunded' FROM kept WHERE events.stream_id = kept.stream_id "
        "AND events.version = kept.version; DROP TABLE kept",
        "order {returned} has 20.00 GBP paid and not given back for what is worth 10.00 GBP"),
    "a refund that its order says was another": (
        "order_svc", "UPDATE orders SET refunded_nanos = refunded_nanos - 1 WHERE order_id = '{returned}'",
        "UPDATE orders SET refunded_nanos = refunded_nanos + 1 WHERE order_id = '{returned}'",
        "order {returned} had 9.999999999 GBP refunded, 10.00 GBP was by its payment"),
    "a return that isn't in stock": (
        "inventory_svc", "UPDATE movements SET operation_id = 'x' || operation_id "
        "WHERE order_id = '{returned}' AND kind = 'RESTOCK'",
        "UPDATE movements SET operation_id = substr(operation_id, 2) "
        "WHERE order_id = '{returned}' AND kind = 'RESTOCK'", "stock has nothing"),
    "an order whose request is gone": (
        "order_svc", "CREATE TABLE kept AS SELECT * FROM requests WHERE order_id = '{confirmed}'; "
        "DELETE FROM requests WHERE order_id = '{confirmed}'",
        "INSERT INTO requests SELECT * FROM kept; DROP TABLE kept", "order {confirmed} was placed by 0 requests"),
    "a request that placed no order": (
        "order_svc", "INSERT INTO requests SELECT customer_id, gen_random_uuid(), fingerprint, "
        "'00000000-0000-7000-8000-000000000000' FROM requests WHERE order_id = '{confirmed}'",
        "DELETE FROM requests WHERE order_id = '00000000-0000-7000-8000-000000000000'",
        "a request placed order 00000000-0000-7000-8000-000000000000, which doesn't exist"),
    "two requests of one order": (
        "order_svc", "INSERT INTO requests SELECT customer_id, '00000000-0000-7000-8000-000000000000', fingerprint, "
        "order_id FROM requests WHERE order_id = '{confirmed}'",
        "DELETE FROM requests WHERE request_id = '00000000-0000-7000-8000-000000000000'",
        "order {confirmed} was placed by 2 requests"),
    "a request of another customer": (
        "order_svc", "UPDATE requests SET customer_id = 'x' || customer_id WHERE order_id = '{confirmed}'",
        "UPDATE requests SET customer_id = substr(customer_id, 2) WHERE order_id = '{confirmed}'",
        "order {confirmed} was placed by a request of another customer"),
    "a price that differs from the catalog": (
        "order_svc", "UPDATE prices SET price_nanos = price_nanos + 1 WHERE sku = '{sku}'",
        "UPDATE prices SET price_nanos = price_nanos - 1 WHERE sku = '{sku}'", "{sku}"),
    "a price of another version": (
        "order_svc", "UPDATE prices SET product_version = product_version + 1 WHERE sku = '{sku}'",
        "UPDATE prices SET product_version = product_version - 1 WHERE sku = '{sku}'",
        "SKU {sku} of product {product_id}: product_version is 2 instead of 1 in the price list"),
    "a price under another name": (
        "order_svc", "UPDATE prices SET product_name = 'x' || product_name WHERE sku = '{sku}'",
        "UPDATE prices SET product_name = substr(product_name, 2) WHERE sku = '{sku}'",
        "SKU {sku} of product {product_id}: product_name is"),
    "a price of something else": (
        "order_svc", "INSERT INTO prices SELECT product_id, 'other', product_version, product_name, currency, "
        "price_nanos, untracked FROM prices WHERE sku = '{sku}'", "DELETE FROM prices WHERE sku = 'other'",
        "SKU other of product {product_id} has a price and isn't sold"),
    "a product of another version in the price list": (
        "order_svc", "UPDATE products SET version = version + 1 WHERE product_id = '{product_id}'",
        "UPDATE products SET version = version - 1 WHERE product_id = '{product_id}'",
        "product {product_id} is at version 1, the price list at 2"),
    "a product of the price list alone": (
        "order_svc", "INSERT INTO products VALUES ('stranger', 1)",
        "DELETE FROM products WHERE product_id = 'stranger'",
        "product stranger is in the price list and not in the catalog"),
    "stock that no movement explains": (
        "inventory_svc", "UPDATE stock SET on_hand = on_hand + 1 WHERE sku = '{sku}'",
        "UPDATE stock SET on_hand = on_hand - 1 WHERE sku = '{sku}'", "{sku}"),
    "units at a location that no movement brought there": (
        "inventory_svc", "INSERT INTO locations (location_id, display_name, priority) VALUES ('attic', '', 9); "
        "INSERT INTO stock (sku, location_id, on_hand, reserved) VALUES ('{sku}', 'attic', 3, 0)",
        "DELETE FROM stock WHERE location_id = 'attic'; DELETE FROM locations WHERE location_id = 'attic'",
        "SKU {sku} at attic has 3 on hand"),
    "movements of stock that is gone": (
        "inventory_svc", "CREATE TABLE kept AS SELECT * FROM stock WHERE sku = '{sku}'; "
        "DELETE FROM stock WHERE sku = '{sku}'", "INSERT INTO stock SELECT * FROM kept; DROP TABLE kept",
        "SKU {sku} at main has movements"),
    "a movement that never was": (
        "inventory_svc", "INSERT INTO movements (sku, location_id, kind, on_hand_delta, reserved_delta, operation_id) "
        "VALUES ('{sku}', 'main', 'ADJUST', -1, 0, 'verify')", "DELETE FROM movements WHERE operation_id = 'verify'",
        "SKU {sku} at main"),
    "more units sold than there were": (
        "inventory_svc", "INSERT INTO movements (sku, location_id, kind, on_hand_delta, reserved_delta, operation_id) "
        "SELECT '{sku}', 'main', 'ADJUST', delta, 0, 'verify' || delta FROM (VALUES (-99), (99)) AS v (delta)",
        "DELETE FROM movements WHERE operation_id LIKE 'verify%'", "SKU {sku} at main was sold beyond"),
    "an availability that the units don't mean": (
        "inventory_svc", "UPDATE items SET availability = 'LOW' WHERE sku = '{sku}'",
        "UPDATE items SET availability = 'IN_STOCK' WHERE sku = '{sku}'", "SKU {sku} is announced as LOW"),
    "a return of more than was bought": (
        "inventory_svc", "INSERT INTO movements "
        "(sku, location_id, kind, on_hand_delta, reserved_delta, order_id, operation_id) "
        "VALUES ('{sku}', 'main', 'RESTOCK', 2, 0, '{confirmed}', 'verify')",
        "DELETE FROM movements WHERE operation_id = 'verify'", "{confirmed} returned more than it took"),
    "units reserved for nobody": (
        "inventory_svc", "UPDATE stock SET reserved = reserved + 1 WHERE sku = '{sku}'",
        "UPDATE stock SET reserved = reserved - 1 WHERE sku = '{sku}'", "{sku}"),
    "a hold that a declined order kept": (
        "inventory_svc", "UPDATE holds SET state = 'RESERVED' WHERE order_id = '{declined}'",
        "UPDATE holds SET state = 'RELEASED' WHERE order_id = '{declined}'", "{declined}"),
    "units that left for another quantity": (
        "inventory_svc", "UPDATE reservations SET quantity = quantity + 1 WHERE order_id = '{confirmed}'",
        "UPDATE reservations SET quantity = quantity - 1 WHERE order_id = '{confirmed}'", "{confirmed}"),
    "a payment of another amount": (
        "payment_svc", "UPDATE payments SET amount = amount + 1 WHERE payment_id = '{confirmed}'",
        "UPDATE payments SET amount = amount - 1 WHERE payment_id = '{confirmed}'", "{confirmed}"),
    "a confirmed order that wasn't captured": (
        "payment_svc", "UPDATE payments SET status = 'AUTHORIZED' WHERE payment_id = '{confirmed}'",
        "UPDATE payments SET status = 'CAPTURED' WHERE payment_id = '{confirmed}'", "{confirmed}"),
    "money held for a declined order": (
        "payment_svc", "UPDATE payments SET status = 'CAPTURED' WHERE payment_id = '{declined}'",
        "UPDATE payments SET status = 'DECLINED' WHERE payment_id = '{declined}'", "{declined}"),
    "a payment that nobody decided on": (
        "payment_svc", "UPDATE payments SET status = 'NEW' WHERE payment_id = '{declined}'",
        "UPDATE payments SET status = 'DECLINED' WHERE payment_id = '{declined}'",
        "order {declined} is REJECTED, its payment is NEW"),
    "a declined payment that is gone": (
        "payment_svc", "CREATE TABLE kept AS SELECT * FROM payments WHERE payment_id = '{declined}'; "
        "CREATE TABLE kept_attempts AS SELECT * FROM attempts WHERE payment_id = '{declined}'; "
        "DELETE FROM attempts WHERE payment_id = '{declined}'; DELETE FROM payments WHERE payment_id = '{declined}'",
        "INSERT INTO payments SELECT * FROM kept; "
        "INSERT INTO attempts OVERRIDING SYSTEM VALUE SELECT * FROM kept_attempts; "
        "DROP TABLE kept, kept_attempts", "order {declined} asked for its payment, which is missing"),
    "a question to the provider that is never asked": (
        "payment_svc", "UPDATE attempts SET state = 'PENDING', due_at = 'infinity' "
        "WHERE payment_id = '{confirmed}' AND operation = 'CAPTURE'",
        "UPDATE attempts SET state = 'APPROVED', due_at = now() "
        "WHERE payment_id = '{confirmed}' AND operation = 'CAPTURE'", "CAPTURE of payment {confirmed} is PENDING"),
    "an attempt that ended otherwise": (
        "payment_svc", "UPDATE attempts SET state = 'UNNEEDED' WHERE payment_id = '{declined}'",
        "UPDATE attempts SET state = 'REFUSED' WHERE payment_id = '{declined}'",
        "AUTHORIZE of payment {declined} is UNNEEDED, by the provider's record it is REFUSED"),
    "an attempt that is gone": (
        "payment_svc", "CREATE TABLE kept AS SELECT * FROM attempts WHERE payment_id = '{declined}'; "
        "DELETE FROM attempts WHERE payment_id = '{declined}'",
        "INSERT INTO attempts OVERRIDING SYSTEM VALUE SELECT * FROM kept; DROP TABLE kept",
        "the provider was asked for AUTHORIZE of payment {declined}, and the payment doesn't know"),
    "a capture that isn't what the order costs": (
        "payment_svc", "UPDATE payments SET captured = captured - 1 WHERE payment_id = '{confirmed}'",
        "UPDATE payments SET captured = captured + 1 WHERE payment_id = '{confirmed}'",
        "order {confirmed} costs 10.00 GBP, 9.999999999 GBP was captured"),
    "a refund that nobody made": (
        "payment_svc", "UPDATE payments SET refunded = 1 WHERE payment_id = '{confirmed}'",
        "UPDATE payments SET refunded = 0 WHERE payment_id = '{confirmed}'", "the provider did REFUND of 0.00 GBP"),
    "an entry of another amount": (
        "payment_svc", LEDGER.format("UPDATE entries SET amount = amount + 1 WHERE payment_id = '{confirmed}' "
        "AND operation = 'CAPTURE' AND account = 'SALES'"),
        LEDGER.format("UPDATE entries SET amount = amount - 1 WHERE payment_id = '{confirmed}' "
        "AND operation = 'CAPTURE' AND account = 'SALES'"), "the entries of CAPTURE of payment {confirmed} sum to"),
    "an operation that isn't booked": (
        "payment_svc", LEDGER.format("CREATE TABLE kept AS SELECT * FROM entries WHERE payment_id = '{confirmed}'; "
        "DELETE FROM entries WHERE payment_id = '{confirmed}'"),
        "INSERT INTO entries SELECT * FROM kept; DROP TABLE kept",
        "the provider did {confirmed}:CAPTURE, which the ledger lacks"),
    "an account that doesn't say what the payment does": (
        "payment_svc", LEDGER.format("UPDATE entries SET account = 'REFUNDS' WHERE payment_id = '{confirmed}' "
        "AND account = 'SALES'"),
        LEDGER.format("UPDATE entries SET account = 'SALES' WHERE payment_id = '{confirmed}' "
        "AND account = 'REFUNDS'"), "on SALES for it instead of"),
    "an operation booked that nobody did": (
        "payment_svc", "INSERT INTO attempts (payment_id, operation, operation_id, amount, state, causation_id, "
        "correlation_id) VALUES ('{confirmed}', 'REFUND', 'x', 0, 'APPROVED', gen_random_uuid(), ''); "
        "INSERT INTO entries (payment_id, operation, operation_id, account, currency, amount) "
        "VALUES ('{confirmed}', 'REFUND', 'x', 'PROVIDER', 'GBP', 0)",
        LEDGER.format("DELETE FROM entries WHERE payment_id = '{confirmed}' AND operation = 'REFUND'; "
        "DELETE FROM attempts WHERE payment_id = '{confirmed}' AND operation = 'REFUND'"),
        "REFUND x of payment {confirmed}, which the provider never did"),
    "a notification that never ended": (
        "notification_svc", "UPDATE notifications SET stage = 2 WHERE order_id = '{confirmed}'",
        "UPDATE notifications SET stage = 4 WHERE order_id = '{confirmed}'", "is still IN_PROGRESS"),
    "a mail without a Message-ID": (
        "notification_svc",
        "UPDATE notifications SET failure = message_id, message_id = '' "
        "WHERE order_id = '{declined}'",
        "UPDATE notifications SET message_id = failure, failure = '' WHERE order_id = '{declined}'",
        "PROCESSED without a Message-ID"),
    "a customer nobody told": (
        "notification_svc", "CREATE TABLE kept AS SELECT * FROM notifications WHERE order_id = '{confirmed}'; "
        "DELETE FROM notifications WHERE order_id = '{confirmed}'",
        "INSERT INTO notifications SELECT * FROM kept; DROP TABLE kept",
        "nobody was notified about order {confirmed}: ORDER_CONFIRMED is missing"),
    "a customer who was told one thing of two": (
        "notification_svc", "UPDATE notifications SET kind = 4 WHERE order_id = '{confirmed}'",
        "UPDATE notifications SET kind = 2 WHERE order_id = '{confirmed}'", "isn't ORDER_CANCELLED about {confirmed}"),
    "something that never happened to an order": (
        "notification_svc", "CREATE TABLE kept AS SELECT * FROM notifications WHERE order_id = '{confirmed}'; "
        "UPDATE kept SET notification_id = '{cancelled}', kind = 4, message_id = 'other', number = 0; "
        "INSERT INTO notifications SELECT * FROM kept",
        "DELETE FROM notifications WHERE notification_id = '{cancelled}'; DROP TABLE kept",
        "notification {cancelled} is ORDER_CANCELLED about order {confirmed}, to which that didn't happen"),
    "a notification for somebody else": (
        "notification_svc", "INSERT INTO recipients (customer_id) VALUES ('mallory'); "
        "UPDATE notifications SET customer_id = 'mallory' WHERE order_id = '{confirmed}'",
        "UPDATE notifications SET customer_id = '{customer}' WHERE order_id = '{confirmed}'; "
        "DELETE FROM recipients WHERE customer_id = 'mallory'",
        "about order {confirmed} is for customer mallory, the order is {customer}'s"),
    "a welcome for somebody else": (
        "notification_svc", "INSERT INTO recipients (customer_id) VALUES ('mallory'); "
        "UPDATE notifications SET customer_id = 'mallory' WHERE subject = '{customer}'",
        "UPDATE notifications SET customer_id = '{customer}' WHERE subject = '{customer}'; "
        "DELETE FROM recipients WHERE customer_id = 'mallory'",
        "welcomes {customer} and is for customer mallory"),
    "a notification of another total": (
        "notification_svc", "CREATE TABLE kept AS SELECT * FROM notifications WHERE order_id = '{confirmed}'; "
        """UPDATE notifications SET content = jsonb_set(content, '{{total,units}}', '"9"') """
        "WHERE order_id = '{confirmed}'",
        "UPDATE notifications SET content = kept.content FROM kept "
        "WHERE notifications.notification_id = kept.notification_id; DROP TABLE kept",
        "about order {confirmed} says something else than happened"),
    "an e-mail that was sent and counts as failed": (
        "notification_svc", "UPDATE notifications SET stage = 3 WHERE order_id = '{confirmed}'",
        "UPDATE notifications SET stage = 4 WHERE order_id = '{confirmed}'", "is FAILED, its delivery is DELIVERED"),
    "an e-mail that was sent and counts as muted": (
        "notification_svc", "UPDATE notifications SET muted = true WHERE order_id = '{confirmed}'",
        "UPDATE notifications SET muted = false WHERE order_id = '{confirmed}'",
        "is PROCESSED, muted, its delivery is DELIVERED"),
    "a customer's notification for the merchant": (
        "notification_svc", "UPDATE notifications SET kind = 6, notification_id = '{low}' "
        "WHERE subject = '{customer}'",
        "UPDATE notifications SET kind = 1, notification_id = '{welcome}' WHERE subject = '{customer}'",
        "notification {low} is LOW_STOCK and for {customer}"),
    "an e-mail that was sent with another Message-ID": (
        "notification_svc", "UPDATE notifications SET message_id = 'x' || message_id WHERE order_id = '{confirmed}'",
        "UPDATE notifications SET message_id = substr(message_id, 2) WHERE order_id = '{confirmed}'",
        "has the Message-ID x<"),
    "an e-mail that took more attempts": (
        "notification_svc", "UPDATE notifications SET attempt = attempt + 1 WHERE order_id = '{confirmed}'",
        "UPDATE notifications SET attempt = attempt - 1 WHERE order_id = '{confirmed}'", "its delivery in attempt 1"),
    "an e-mail that nobody sent": (
        "notification_svc", "CREATE TABLE kept AS SELECT * FROM notifications WHERE subject = '{customer}'; "
        "UPDATE kept SET notification_id = '{absent}', subject = 'absent', message_id = 'x', number = 0; "
        "INSERT INTO notifications SELECT * FROM kept",
        "DELETE FROM notifications WHERE notification_id = '{absent}'; DROP TABLE kept",
        "notification {absent} is PROCESSED, the delivery log doesn't know it"),
    "an e-mail about something forgotten": (
        "notification_svc", "CREATE TABLE kept AS SELECT * FROM notifications WHERE subject = '{customer}'; "
        "DELETE FROM notifications WHERE subject = '{customer}'",
        "INSERT INTO notifications SELECT * FROM kept; DROP TABLE kept",
        "the delivery log knows notification {welcome}, which doesn't exist"),
    "an erased customer whose data can be opened": (
        "customer_svc", "UPDATE customers SET erased = true, display_name = '', email = '' "
        "WHERE customer_id = '{customer}'",
        "UPDATE customers SET erased = false, display_name = '{customer}', email = '{customer}@shop.example' "
        "WHERE customer_id = '{customer}'", "customer {customer} was erased"),
    "what an erased customer was told": (
        "customer_svc", "UPDATE customers SET erased = true, display_name = '', email = '' "
        "WHERE customer_id = '{customer}'",
        "UPDATE customers SET erased = false, display_name = '{customer}', email = '{customer}@shop.example' "
        "WHERE customer_id = '{customer}'", "still says what an erased customer was told"),
    "a customer whose key is gone": (
        "customer_svc", "CREATE TABLE kept_keys AS SELECT * FROM customer_keys WHERE customer_id = '{customer}'; "
        "DELETE FROM customer_keys WHERE customer_id = '{customer}'",
        "INSERT INTO customer_keys SELECT * FROM kept_keys; DROP TABLE kept_keys", "customer {customer} has no key"),
    "a message that stays in an outbox": (
        "customer_svc", "INSERT INTO outbox (id, aggregate_id, subject, headers, data) VALUES "
        "(gen_random_uuid(), 'x', 'to.no.stream', '{{}}', '')",
        "DELETE FROM outbox WHERE subject = 'to.no.stream'", "outbox of customer_svc"),
}  # fmt: skip

# what is done to the provider's record, what takes it back, and what must be said; {0} is the confirmed payment
CHARGES = {
    "charged twice": (
        "INSERT INTO operations SELECT key || '-2', payment_id, kind, amount, currency, token, outcome, reason, "
        "reference, at FROM operations WHERE payment_id = '{0}' AND kind = 'CAPTURE'",
        "DELETE FROM operations WHERE payment_id = '{0}' AND key LIKE '%-2'",
        "the provider did CAPTURE 2 times for payment {0}"),
    "never charged": (
        "UPDATE operations SET outcome = 'REFUSED' WHERE payment_id = '{0}' AND kind = 'CAPTURE'",
        "UPDATE operations SET outcome = 'APPROVED' WHERE payment_id = '{0}' AND kind = 'CAPTURE'",
        "payment {0} is CAPTURED with 10.00 GBP captured, the provider did CAPTURE of 0.00 GBP"),
    "charged another amount": (
        "UPDATE operations SET amount = amount + 5000000 WHERE payment_id = '{0}' AND kind = 'CAPTURE'",
        "UPDATE operations SET amount = amount - 5000000 WHERE payment_id = '{0}' AND kind = 'CAPTURE'",
        "payment {0} is for 10.00 GBP, the provider did CAPTURE of 10.005 GBP"),
    "charged in another currency": (
        "UPDATE operations SET currency = 'USD' WHERE payment_id = '{0}' AND kind = 'CAPTURE'",
        "UPDATE operations SET currency = 'GBP' WHERE payment_id = '{0}' AND kind = 'CAPTURE'",
        "payment {0} is for 10.00 GBP, the provider did CAPTURE of 10.00 USD"),
    "never authorised": (
        "CREATE TABLE kept AS SELECT * FROM operations WHERE payment_id = '{0}' AND kind = 'AUTHORIZE'; "
        "DELETE FROM operations WHERE payment_id = '{0}' AND kind = 'AUTHORIZE'",
        "INSERT INTO operations SELECT * FROM kept; DROP TABLE kept",
        "AUTHORIZE of payment {0} is APPROVED, by the provider's record it is unknown"),
}  # fmt: skip
