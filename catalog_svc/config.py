"""Settings of catalog_svc, read from the environment."""

from typing import Literal

from chassis.config import MongoUrl, ServiceConfig, TokenKey


class CatalogConfig(ServiceConfig):
    """Those of every service, the store of products (POLYMART_MONGODB_URL) and the driver that reaches it
    (POLYMART_MONGODB_DRIVER: motor, or pymongo for PyMongo's own async client). `token_key` signs what writes are
    answered with and the tokens of pages, and is the one that search has."""

    mongodb_url: MongoUrl
    mongodb_driver: Literal["motor", "pymongo"] = "motor"
    token_key: TokenKey
