"""The service's settings, each read from POLYMART_<NAME>."""

from chassis.config import Address, HttpUrl, ServiceConfig, TokenKey


class SearchConfig(ServiceConfig):
    """`elasticsearch_url`: the engine, user and password in it where it wants them. The index is rebuilt from the
    services at `catalog_address` and `inventory_address`. `token_key` signs page tokens, and is the same in
    all replicas."""

    elasticsearch_url: HttpUrl
    catalog_address: Address
    inventory_address: Address
    token_key: TokenKey
