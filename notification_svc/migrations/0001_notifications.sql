-- One row for each thing a customer is told.
CREATE TABLE notifications (
    notification_id uuid PRIMARY KEY,       -- derived from kind and subject
    customer_id text NOT NULL,
    kind smallint NOT NULL,                 -- polymart.notification.v1.NotificationKind
    subject text NOT NULL,                  -- the order, or the customer where it isn't about an order
    order_id text NOT NULL,                 -- empty where it isn't about an order
    content jsonb NOT NULL,
    -- The delivery's latest report: (attempt, stage) only grows.
    attempt integer NOT NULL,
    stage smallint NOT NULL,                -- 1 NEW, 2 IN_PROGRESS, 3 FAILED, 4 PROCESSED
    failure text NOT NULL,
    message_id text NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    UNIQUE (kind, subject)
) WITH (fillfactor = 80);

-- Lists are pages by (create_time, notification_id), newest first.
CREATE INDEX notifications_newest ON notifications (create_time, notification_id);
CREATE INDEX notifications_of_customer ON notifications (customer_id, create_time, notification_id);
CREATE INDEX notifications_of_order ON notifications (order_id, create_time, notification_id) WHERE order_id <> '';
