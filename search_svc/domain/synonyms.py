"""What is called by several names.

# A line each; a name may have several words. Here each means all:
notebook, laptop, portable computer
# Here those on the left mean those on the right too, not the other way about:
telly => television, tv
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from search_svc.domain.words import words

_MOST_WORDS = 6
_MOST_NAMES = 50


class BadSynonyms(ValueError):
    """`faults` are sentences, one for each bad line."""

    def __init__(self, faults: Sequence[str]):
        super().__init__("; ".join(faults))
        self.faults = list(faults)


class Synonyms:
    """For the words of a query, what else parts of it are called."""

    def __init__(self, names: Mapping[tuple[str, ...], Sequence[str]] | None = None):
        self._names = dict(names or {})
        self._longest = max(map(len, self._names), default=0)

    @classmethod
    def read(cls, text: str) -> "Synonyms":
        """Raises BadSynonyms."""
        names: defaultdict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
        faults: list[str] = []
        for number, line in enumerate(text.splitlines(), 1):
            rule = line.partition("#")[0].strip()
            if not rule:
                continue
            asked, arrow, meant = rule.partition("=>")
            left = [name.strip() for name in asked.split(",")]
            right = [name.strip() for name in meant.split(",")] if arrow else left
            line_faults = [f"line {number}: {fault}" for fault in _faults(left, right, arrow)]
            faults += line_faults
            if line_faults:
                continue
            for name in left:
                key = tuple(words(name))
                names[key].update((other, None) for other in right if tuple(words(other)) != key)
        if faults:
            raise BadSynonyms(faults)
        return cls({key: tuple(others) for key, others in names.items()})

    def __call__(self, asked: Sequence[str]) -> Iterator[tuple[int, int, str]]:
        for begin in range(len(asked)):
            for end in range(begin + 1, min(begin + self._longest, len(asked)) + 1):
                for other in self._names.get(tuple(asked[begin:end]), ()):
                    yield begin, end, other


def _faults(left: Sequence[str], right: Sequence[str], arrow: str) -> Iterator[str]:
    if "=>" in " ".join(right) and arrow:
        yield "has more than one =>"
    if not arrow and len(left) < 2:
        yield "names one thing only; write a, b or a => b"
    if len(left) + len(right) > 2 * _MOST_NAMES:
        yield f"has more than {_MOST_NAMES} names"
    for name in dict.fromkeys([*left, *right]):
        if not name:
            yield "has an empty name"
        elif not words(name):
            yield f'"{name}" has no word'
        elif len(words(name)) > _MOST_WORDS:
            yield f'"{name}" has more than {_MOST_WORDS} words'
