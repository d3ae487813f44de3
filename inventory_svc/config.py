"""The service's settings, each read from POLYMART_<NAME>."""

from chassis.config import PostgresUrl, ServiceConfig


class InventoryConfig(ServiceConfig):
    """`postgres_url`: this service's own database, with its own role."""

    postgres_url: PostgresUrl
