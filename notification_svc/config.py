"""Settings of notification_svc, read from the environment."""

from chassis.config import PostgresUrl, ServiceConfig


class NotificationConfig(ServiceConfig):
    """Those of every service, and the database of notifications (POLYMART_POSTGRES_URL)."""

    postgres_url: PostgresUrl
