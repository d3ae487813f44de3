"""Measures of rankings, and the files they are made from."""

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ops.measures import condensed_ndcg, ndcg, recall, reciprocal_rank, summary
from ops.relevance import BadFiles, misspelt, read_judged

GAINS = {"a": 1.0, "b": 0.5, "c": 0.0, "d": 1.0}
TOOLS = Path(__file__).resolve().parents[4] / "shared" / "tools"


def test_the_measures_are_what_they_are_by_hand() -> None:
    ideal = 1 + 1 / math.log2(3) + 0.5 / 2
    assert ndcg(["a", "d", "b"], GAINS) == pytest.approx(1)
    assert ndcg(["x", "b", "a"], GAINS) == pytest.approx((0.5 / math.log2(3) + 1 / 2) / ideal)
    assert ndcg(["x"] * 10 + ["a"], GAINS) == 0
    assert condensed_ndcg(["x", "b", "y", "a"], GAINS) == pytest.approx((0.5 + 1 / math.log2(3)) / ideal)
    assert recall(["a", "b", *["x"] * 98, "d"], GAINS) == 0.5
    assert recall(["a", "b"], GAINS, 0.0) == pytest.approx(2 / 3)
    assert recall(["b"], {"b": 0.5}) is None
    assert reciprocal_rank(["b", "x", "d"], GAINS) == pytest.approx(1 / 3)
    assert reciprocal_rank(["b", "x", "d"], GAINS, 0.0) == 1
    assert reciprocal_rank([], GAINS) == 0


def test_a_query_without_a_run_counts_and_one_without_a_good_product_does_not() -> None:
    judged = {"1": GAINS, "2": {"a": 1.0}, "3": {"a": 0.0}}
    told = summary({"1": ["a", "d", "b"], "3": ["a"]}, judged)
    assert (told["queries"], told["scored"], told["ndcg@10"]) == (3, 2, 0.5)
    assert told["zero_result_rate"] == pytest.approx(1 / 3)


def test_the_measures_are_those_of_another_program(tmp_path: Path) -> None:
    if not (TOOLS / "search_eval.py").exists():
        pytest.skip("needs the shared tools beside the repository")
    chance = random.Random(7)
    products = [f"p{n}" for n in range(150)]
    queries = {f"{n}": f"query {n}" for n in range(30)}
    labels = ["query_id\tproduct_id\tlabel"]
    for query in queries:
        labels += [f"{query}\t{p}\t{chance.choice([0, 0, 1, 2, 3])}" for p in chance.sample(products, 12)]
    (tmp_path / "labels").write_text("\n".join(labels))
    (tmp_path / "queries").write_text("query_id,query\n" + "\n".join(f"{q},{t}" for q, t in queries.items()))
    runs = {query: chance.sample(products, chance.choice([0, 5, 100])) for query in queries}
    lines = [f"{query} {product} {place}" for query, run in runs.items() for place, product in enumerate(run, 1)]
    (tmp_path / "run").write_text("\n".join(lines))
    command = [sys.executable, TOOLS / "search_eval.py", tmp_path / "labels", tmp_path / "run"]
    told = dict(
        line.split()[:2]
        for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[2:]
    )
    ours = summary(runs, read_judged(tmp_path / "queries", tmp_path / "labels").gains)
    same = {
        "NDCG@10": "ndcg@10", "cNDCG@10": "condensed_ndcg@10", "Recall@100(top)": "recall@100",
        "Recall@100(any)": "recall@100_any", "MRR(top)": "mrr", "MRR(any)": "mrr_any",
    }  # fmt: skip
    assert {name: f"{ours[name]:.4f}" for name in same.values()} == {same[name]: told[name] for name in same}


def test_words_are_grades_too(tmp_path: Path) -> None:
    (tmp_path / "q").write_text("query_id\tquery\n1\tmug\n2\tcup\n")
    (tmp_path / "l").write_text("id,query_id,product_id,label\n0,1,p,Exact\n1,1,q,Partial\n2,1,q,Irrelevant\n")
    judged = read_judged(tmp_path / "q", tmp_path / "l")
    assert (judged.queries, judged.gains) == ({"1": "mug"}, {"1": {"p": 1.0, "q": 0.5}})


def test_bad_files_are_told_fault_by_fault(tmp_path: Path) -> None:
    (tmp_path / "q").write_text("query_id,query\n1,mug\n1,cup\n2,\n")
    (tmp_path / "l").write_text("query_id,product_id,label\n1,p,2\n1,q,Exact\n7,p,1\n1,,1\n")
    with pytest.raises(BadFiles) as bad:
        read_judged(tmp_path / "q", tmp_path / "l")
    assert str(bad.value).splitlines() == [
        "q, line 3: query 1 has another text above",
        "q, line 4: has no query",
        "l, line 5: has no product_id",
        'l, line 3: no gain is known for the label "Exact"',
        "l, line 4: query 7 is not in q",
    ]
    (tmp_path / "l").write_text("query_id,label\n1,1\n")
    with pytest.raises(BadFiles, match="lacks the columns product_id"):
        read_judged(tmp_path / "q", tmp_path / "l")


def test_a_typing_error_changes_one_long_word_and_is_the_same_for_a_seed() -> None:
    edited = {misspelt("usb keyboard", random.Random(seed)) for seed in range(200)}
    assert {misspelt("usb keyboard", random.Random(seed)) for seed in range(200)} == edited
    assert None not in edited
    assert "usb keyboard" not in edited
    assert {len(text) for text in edited if text} == {11, 12, 13}
    assert all(text.startswith("usb ") for text in edited if text)
    assert misspelt("usb fan 12345", random.Random(1)) is None
