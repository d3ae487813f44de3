"""What is said of a MongoDB that can't be reached."""

import pytest

from catalog_svc.adapters.mongo import Driver, Mongo
from chassis.errors import Unavailable
from tests.conftest import free_port


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_an_outage_is_said_in_the_same_few_words_each_time(driver: Driver) -> None:
    url = f"mongodb://127.0.0.1:{free_port()}/catalog"
    said = set()
    for _ in range(2):
        mongo = Mongo(url, driver)
        with pytest.raises(Unavailable) as raised:
            await mongo.ready()
        await mongo.close()
        said.add(str(raised.value))
    (text,) = said
    assert text.startswith("MongoDB can't be reached: 127.0.0.1:")
    assert len(text) < 120
