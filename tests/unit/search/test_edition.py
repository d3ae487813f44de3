from chassis.messaging.topology import SEARCH_EDITION
from search_svc.adapters.mappings import SCHEMA_VERSION


def test_each_version_of_the_index_has_consumers_of_its_own() -> None:
    assert SEARCH_EDITION == SCHEMA_VERSION
