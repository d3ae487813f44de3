"""A shopper's words and a product's in one form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_svc.domain.synonyms import BadSynonyms, Synonyms
from search_svc.domain.words import joined, measures, terms, thing, words


def forms(text: str, synonyms: Synonyms | None = None) -> list[tuple[str, ...]]:
    return [term.forms for term in terms(text, synonyms or Synonyms())]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15.6 inch", ["15.6inch"]), ('15.6" and 13,3"', ["15.6inch", "13.3inch"]), ("15.6in", ["15.6inch"]),
        ("2 in 1", []), ("4GB", ["4gb"]), ("4 gigabytes", ["4gb"]), ("2 metres", ["2m"]), ("2-metre", ["2m"]),
        ("5 pounds", ["5lb"]), ("100 Hz, 3GHz", ["100hz", "3ghz"]), ("A4GB", []), ("4GBX", []), ("1.2.3 m", []),
    ],
)  # fmt: skip
def test_a_number_and_its_unit_are_one_word_however_they_are_written(text: str, expected: list[str]) -> None:
    assert list(measures(text)) == expected


def test_neighbours_are_also_one_word() -> None:
    assert list(joined("USB-C to HDMI")) == ["USBC", "Cto", "toHDMI"]
    assert forms("usb c cable") == [("usb", "usbc"), ("c", "usbc", "ccable"), ("cable", "ccable")]
    assert forms("4 gb stick") == [("4gb", "4gbstick"), ("stick", "4gbstick")]


def test_links_are_no_terms_unless_there_is_nothing_else() -> None:
    assert forms("case for the iphone") == [("case", "caseiphone"), ("iphone", "caseiphone")]
    assert forms("the") == [("the",)]
    assert forms("!?") == [("!?",)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("WetEx Keyboard cover", "cover"), ("Covers for keyboards", "cover"), ("Standard Mouse", "mouse"),
        ("Notebook PC", "notebook"), ("iPhone 11", "iphone"), ("Optical mouse 1000 DPI", "mouse"),
        ("mouse, black", "mouse"), ("Kettle (1.7 l)", "kettle"), ("for cats", "cat"), ("42", "42"), ("!", ""),
    ],
)  # fmt: skip
def test_the_last_word_of_a_name_says_what_it_is(text: str, expected: str) -> None:
    assert thing(text) == expected


def test_words_that_say_what_it_is_like_do_not_say_what_it_is() -> None:
    assert thing("Comfort keyboard QWERTY Black", ["qwerty", "black"]) == "keyboard"


@given(st.text(max_size=300))
def test_no_text_breaks_words(text: str) -> None:
    known = forms(text, Synonyms.read("a, b c\nx y => z"))
    assert len(set(known)) == len(known)
    assert all(known)
    assert len({word for term in known for word in term}) <= 3 * len(known) + 4
    assert thing(text) in (*words(text), "")
    assert all(measures(text))


def test_synonyms_replace_what_they_name_and_nothing_else() -> None:
    synonyms = Synonyms.read("# comment\nnotebook, laptop, portable computer\n\nTelly => television, TV # one way\n")
    assert forms("laptops", synonyms) == [("laptops", "notebook", "portable computer")]
    assert forms("portable computer", synonyms) == [
        ("portable", "portablecomputer", "notebook", "laptop"),
        ("computer", "portablecomputer", "notebook", "laptop"),
    ]
    assert forms("telly", synonyms) == [("telly", "television", "TV")]
    assert forms("television", synonyms) == [("television",)]


def test_a_bad_file_of_synonyms_is_told_line_by_line() -> None:
    with pytest.raises(BadSynonyms) as bad:
        Synonyms.read("alone\na, , b\na => b => c\nfine, good\n!, x\n=> y\na b c d e f g, h")
    assert bad.value.faults == [
        "line 1: names one thing only; write a, b or a => b",
        "line 2: has an empty name",
        "line 3: has more than one =>",
        'line 5: "!" has no word',
        "line 6: has an empty name",
        'line 7: "a b c d e f g" has more than 6 words',
    ]
