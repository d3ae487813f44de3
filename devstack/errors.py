"""What goes wrong with engines and processes, told in one line each."""


class EngineError(Exception):
    """Something the stack stands on can't be used: `engine: cause; remedy`, always a single line.

    `engine` names it as a person would ("PostgreSQL"), `cause` says what happened, `remedy` what to do.
    """

    def __init__(self, engine: str, cause: str, remedy: str):
        self.engine = engine
        self.cause = _one_line(cause)
        self.remedy = _one_line(remedy)
        super().__init__(f"{engine}: {self.cause}; {self.remedy}")


def reason(error: BaseException) -> str:
    """An exception's own words on one line, or its type where it has none."""
    return _one_line(str(error)) or type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())
