"""Search measured as anyone can, by judged queries over real products."""

import os
from pathlib import Path

import pytest

from devstack.search import SearchServer
from ops.relevance import Judged, read_judged, relevance
from tests.conftest import SEARCH_ENGINES, emptied

CHORUS = Path(__file__).resolve().parents[4] / "shared" / "data" / "chorus"
# What the engines score alike: osmem may be so much below.
LEAST = {"opensearch": (0.82, 0.85), "osmem": (0.80, 0.83)}


async def measured(
    request: pytest.FixtureRequest, name: str, folder: Path, *files: Path, typos: int
) -> dict[str, object]:
    url = emptied(request.getfixturevalue(name))
    environ = {**os.environ, SearchServer.variable: url}
    judged: Judged = read_judged(files[1], files[2])
    return await relevance(folder, files[0], judged, environ=environ, typos=typos)


async def test_a_file_of_products_is_measured_through_the_services(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    products, queries, labels = (tmp_path / name for name in ("products.jsonl", "queries.csv", "labels.csv"))
    names = {"keyboard": "Keyboard", "cover": "Keyboard cover", "mug": "Mug"}
    rows = [f'{{"sku": "{sku}", "name": "{name}", "price": "1", "currency": "EUR"}}' for sku, name in names.items()]
    products.write_text("\n".join([*rows, '{"sku": "draft", "name": "Keyboard", "price": "1"}']))
    queries.write_text("query_id,query\n1,keyboard\n2,zzzzz\n")
    labels.write_text("query_id,product_id,label\n1,keyboard,2\n1,cover,1\n2,mug,2\n")
    told = await measured(request, "osmem", tmp_path, products, queries, labels, typos=2)
    expected = {"products": 3, "rejected": 1, "queries": 2, "scored": 2, "ndcg@10": 0.5, "zero_result_rate": 0.5}
    assert {key: told[key] for key in expected} == expected
    assert isinstance(told["typos"], dict)
    assert told["typos"]["seeds"] == 2


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("name", SEARCH_ENGINES)
async def test_search_finds_what_people_judged_to_be_meant(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    if not CHORUS.exists():
        pytest.skip("needs the shared judgements beside the repository")
    files = (CHORUS / "products.jsonl.gz", CHORUS / "open" / "query.csv", CHORUS / "open" / "label.csv")
    told = await measured(request, name, tmp_path, *files, typos=5)
    least, least_condensed = LEAST[name]
    assert isinstance(told["typos"], dict)
    assert float(str(told["ndcg@10"])) >= least
    assert float(str(told["condensed_ndcg@10"])) >= least_condensed
    assert told["typos"]["ndcg@10_kept"] >= 0.92
