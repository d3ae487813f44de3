"""Settings of customer_svc, read from the environment."""

from chassis.config import PostgresUrl, ServiceConfig


class CustomerConfig(ServiceConfig):
    """Those of every service, and the database of customers (POLYMART_POSTGRES_URL)."""

    postgres_url: PostgresUrl
