"""The service's settings, each read from POLYMART_<NAME>."""

from pathlib import Path

from chassis.config import Address, TokenKey
from search_svc.engine_config import EngineConfig


class SearchConfig(EngineConfig):
    """The index is rebuilt from the services at `catalog_address` and `inventory_address`. `token_key` signs page
    tokens, and is the same in all replicas. `synonyms_file` says what has several names; changes of it are taken up."""

    catalog_address: Address
    inventory_address: Address
    token_key: TokenKey
    synonyms_file: Path | None = None
