"""The service's settings, each read from POLYMART_<NAME>."""

from chassis.config import Address, TokenKey
from search_svc.engine_config import EngineConfig


class SearchConfig(EngineConfig):
    """The index is rebuilt from the services at `catalog_address` and `inventory_address`. `token_key` signs tokens,
    and is the same in all replicas and in the catalog."""

    catalog_address: Address
    inventory_address: Address
    token_key: TokenKey
