"""What the tests may touch."""

from devstack.engines import KINDS
from tests.conftest import forget_engines


def test_engines_that_the_environment_names_are_for_tests_only_where_it_says_so() -> None:
    named = {kind.variable: "somewhere" for kind in KINDS.values()}
    others = {"POLYMART_LOG_LEVEL": "INFO", "PATH": "/bin"}
    for allowed in ({}, {"POLYMART_TEST_ON_ENGINES": "0"}):
        environ = {**named, **others, **allowed}
        forget_engines(environ)
        assert environ == {**others, **allowed}
    environ = {**named, **others, "POLYMART_TEST_ON_ENGINES": "1"}
    forget_engines(environ)
    assert environ.keys() > named.keys()
