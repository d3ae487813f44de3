"""What an audit found."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Finding:
    """An invariant that doesn't hold: its name, and a sentence that names what breaks it."""

    invariant: str
    text: str


@dataclass(slots=True)
class Report:
    """Findings, and how many things each invariant was checked on."""

    checked: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, invariant: str, checked: int, faults: Iterable[str]) -> None:
        self.checked[invariant] = self.checked.get(invariant, 0) + checked
        self.findings += [Finding(invariant, text) for text in faults]

    def as_dict(self) -> dict[str, object]:
        findings = [{"invariant": f.invariant, "text": f.text} for f in self.findings]
        return {"checked": self.checked, "findings": findings}

    def print(self, console: Console, most: int = 20) -> None:
        table = Table("invariant", "checked", "", title="verify", title_justify="left")
        broken = {f.invariant for f in self.findings}
        for name, count in self.checked.items():
            table.add_row(name, f"{count:,}", "[red]broken[/]" if name in broken else "[green]holds[/]")
        console.print(table)
        for finding in self.findings[:most]:
            console.print(f"✗ {finding.invariant}: {finding.text}", style="red", markup=False, soft_wrap=True)
        if more := len(self.findings[most:]):
            console.print(f"✗ and {more} more", style="red")
