"""The service's settings, each read from POLYMART_<NAME>."""

from chassis.config import Address
from search_svc.engine_config import EngineConfig


class SearchConfig(EngineConfig):
    """The index is rebuilt from the services at `catalog_address` and `inventory_address`."""

    catalog_address: Address
    inventory_address: Address
