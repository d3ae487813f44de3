"""Search measured as anyone can, by judged queries over real products."""

import os
from pathlib import Path
from typing import Any

import pytest

from devstack.engine import Engine
from devstack.opensearch import OpenSearch
from devstack.search import SearchServer
from ops.relevance import read_judged, relevance
from tests.conftest import emptied

CHORUS = Path(__file__).resolve().parents[4] / "shared" / "data" / "chorus"
# What the engines score alike: osmem may be so much below.
LEAST: dict[type[Engine], tuple[float, float]] = {OpenSearch: (0.82, 0.85), SearchServer: (0.80, 0.83)}


async def measured(engine: Engine, folder: Path, *files: Path, typos: int) -> dict[str, Any]:
    environ = {**os.environ, SearchServer.variable: emptied(engine)}
    judged = read_judged(files[1], files[2])
    return await relevance(folder, files[0], judged, environ=environ, typos=typos)


@pytest.mark.slow
async def test_a_file_of_products_is_measured_through_the_services(osmem: Engine, tmp_path: Path) -> None:
    products, queries, labels = (tmp_path / name for name in ("products.jsonl", "queries.csv", "labels.csv"))
    names = {"keyboard": "Keyboard", "cover": "Keyboard cover", "mug": "Mug"}
    rows = [f'{{"sku": "{sku}", "name": "{name}", "price": "1", "currency": "EUR"}}' for sku, name in names.items()]
    products.write_text("\n".join([*rows, '{"sku": "draft", "name": "Keyboard", "price": "1"}']))
    queries.write_text("query_id,query\n1,keyboard\n2,zzzzz\n")
    labels.write_text("query_id,product_id,label\n1,keyboard,2\n1,cover,1\n2,mug,2\n")
    told = await measured(osmem, tmp_path, products, queries, labels, typos=2)
    expected = {"products": 3, "rejected": 1, "queries": 2, "scored": 2, "ndcg@10": 0.5, "zero_result_rate": 0.5}
    assert {key: told[key] for key in expected} == expected
    assert told["typos"]["seeds"] == 2


@pytest.mark.slow
@pytest.mark.timeout(1_200)
async def test_search_finds_what_people_judged_to_be_meant(search_engine: Engine, tmp_path: Path) -> None:
    if not CHORUS.exists():
        pytest.skip("needs the shared judgements beside the repository")
    files = (CHORUS / "products.jsonl.gz", CHORUS / "open" / "query.csv", CHORUS / "open" / "label.csv")
    told = await measured(search_engine, tmp_path, *files, typos=5)
    least, least_condensed = LEAST[type(search_engine)]
    assert told["ndcg@10"] >= least
    assert told["condensed_ndcg@10"] >= least_condensed
    assert told["typos"]["ndcg@10_kept"] >= 0.92
