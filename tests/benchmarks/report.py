"""Tables on the terminal and in docs/performance.md."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.machine import describe, load, versions

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "build/benchmarks"
PAGE = REPOSITORY / "docs/performance.md"
MEASURED = PAGE.with_suffix(".json")
"""What the page is written from: parts that a run leaves out keep their earlier figures."""

HEAD = """# Performance

Written by `make benchmark`, which measures all of it in one run, the peers beside us. Each section tells when it was
measured and how busy the machine was before; parts that were run by themselves have times of their own. The CT is our
own phantom in slices of 512 x 512; nothing here says how well anything is found, which is in the model cards.

A virtual machine on a shared host is not always as quick: on 2026-11-26 the whole job at 300 slices took between 4.2
and 5.7 s with the same code, of it 1.3 to 2.2 s the rest. What was measured in one run is comparable,
and so are its ratios.

**Machine**: {machine}.
**Software**: {software}.
"""


@dataclass(frozen=True)
class Section:
    """What one part of the benchmark found.

    Attributes
    ----------
    title: str
    text: str
        Markdown.
    date: str
    load: float
        Processes that wanted to run in the minute before it began.
    """

    title: str
    text: str
    date: str
    load: float


def new_section(title: str, *paragraphs: str, load_before: float) -> Section:
    """A section measured now."""
    return Section(title, "\n\n".join(paragraphs), time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), load_before)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown, its columns aligned for the terminal too."""
    texts = [[_text(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in texts
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.2f}" if abs(cell) >= 0.095 else f"{cell:.3f}"
    return str(cell)


def show(section: Section) -> None:
    """Print a section."""
    print(f"\n## {section.title}\n(load before: {section.load:.1f})\n\n{section.text}", flush=True)


def keep(name: str, section: Section) -> None:
    """Keep a section for the page, instead of an earlier one of the same name."""
    kept = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    kept[name] = asdict(section)
    MEASURED.write_text(json.dumps(kept, indent=1) + "\n")


def write_page(order: Sequence[str], page: Path = PAGE) -> None:
    """Write the page from the sections that are kept, each with the date and the load of its measurement."""
    kept = json.loads(MEASURED.read_text())
    parts = [HEAD.format(machine=describe(), software=versions())]
    for name in order:
        if name in kept:
            section = Section(**kept[name])
            parts.append(
                f"## {section.title}\n*{section.date}; load before it began: {section.load:.1f}*\n\n{section.text}\n"
            )
        else:
            parts.append(f"## {name}\nNot run.\n")
    page.write_text("\n".join(parts), encoding="utf-8")


def current_load() -> float:
    """For `new_section`, before anything of ours runs."""
    return load()
