"""The service's settings, each read from POLYMART_<NAME>."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field

from chassis.config import Address, TokenKey
from chassis.messaging.topology import EVENT_RETENTION
from search_svc.engine_config import EngineConfig

_KEPT_HOURS = EVENT_RETENTION // timedelta(hours=1)


class SearchConfig(EngineConfig):
    """The index is rebuilt from the services at `catalog_address` and `inventory_address`. `token_key` signs page
    tokens, and is the same in all replicas. `synonyms_file` says what has several names; changes of it are taken up.

    Popular is what sold in the last `popularity_hours`: no longer than order events are kept, so that it can be read
    from them again. It is computed every `popularity_interval` seconds. `token_key` signs tokens, and is the same in
    all replicas and in the catalog.
    """

    catalog_address: Address
    inventory_address: Address
    token_key: TokenKey
    popularity_hours: int = Field(default=_KEPT_HOURS, ge=1, le=_KEPT_HOURS)
    popularity_interval: float = Field(default=5, ge=0.1, le=3600)
    synonyms_file: Path | None = None
