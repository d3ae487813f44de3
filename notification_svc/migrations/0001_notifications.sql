-- Who is told something: a customer or, with an empty id, the merchant. The row's lock gives a customer's notifications
-- numbers in the order of their commits, and decides between an erasure and what is told meanwhile.
CREATE TABLE recipients (
    customer_id text PRIMARY KEY,
    last_number bigint NOT NULL DEFAULT 0,
    erased boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70);

-- One row for each thing somebody is told.
CREATE TABLE notifications (
    notification_id uuid PRIMARY KEY,       -- derived from kind and subject
    customer_id text NOT NULL REFERENCES recipients,
    number bigint NOT NULL,                 -- grows with each of a customer's, with gaps
    kind smallint NOT NULL,                 -- polymart.notification.v1.NotificationKind
    subject text NOT NULL,                  -- what it is about: of one kind, there is one fact about it
    order_id text NOT NULL,                 -- empty where it isn't about an order
    content jsonb NOT NULL,                 -- empty once the customer is erased
    read_time timestamptz,
    -- The delivery's latest report: (attempt, stage) only grows.
    attempt integer NOT NULL,
    stage smallint NOT NULL,                -- 1 NEW, 2 IN_PROGRESS, 3 FAILED, 4 PROCESSED
    failure text NOT NULL,
    message_id text NOT NULL,
    muted boolean NOT NULL,
    start_time timestamptz,
    end_time timestamptz,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    UNIQUE (kind, subject),
    UNIQUE (customer_id, number)
) WITH (fillfactor = 80);

-- Lists are pages by (create_time, notification_id), newest first.
CREATE INDEX notifications_newest ON notifications (create_time, notification_id);
CREATE INDEX notifications_of_customer ON notifications (customer_id, create_time, notification_id);
CREATE INDEX notifications_of_order ON notifications (order_id, create_time, notification_id) WHERE order_id <> '';
CREATE INDEX notifications_unread ON notifications (customer_id, create_time, notification_id) WHERE read_time IS NULL;
