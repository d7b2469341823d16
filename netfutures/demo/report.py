"""Says what the demo found: files that do not parse, the most complex functions, totals, and how fast it was."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from netfutures.demo.complexity import FileReport
from netfutures.demo.screen import Block, Paragraph, Table

TOP_FUNCTIONS_MAX = 10
FAILURES_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What both runs found and took; `unread` are directories that could not be listed."""

    root: str
    reports: Sequence[FileReport]
    unread: Sequence[FileReport]
    slots: int
    slots_s: float
    single_s: float
    same: bool


def blocks(outcome: Outcome, *, verbose: bool) -> list[Block]:
    """The whole result, the most wanted last, where the terminal's prompt will be."""
    failures = [each for each in [*outcome.unread, *outcome.reports] if each.failure]
    shown: list[Block] = []
    if failures:
        shown.append(_failures(outcome.root, sorted(failures), verbose=verbose))
    shown += [_most_complex(outcome), _totals(outcome), _speed(outcome), _what_was_timed(outcome)]
    return shown


def _failures(root: str, failures: Sequence[FileReport], *, verbose: bool) -> Table:
    kept = failures if verbose else failures[:FAILURES_SHOWN_MAX]
    rows = [(_shown_path(root, each.path), printable(each.failure)) for each in kept]
    if len(failures) > len(kept):
        rows.append((f"and {len(failures) - len(kept):,} more", "--verbose names them all"))
    title = f"Not parsed: {len(failures):,} (named here, and counted below as such)"
    return Table(title, "<<", rows, title_style="bold yellow")


def _most_complex(outcome: Outcome) -> Block:
    found = [(function, report) for report in outcome.reports for function in report.functions]
    found.sort(key=lambda each: (-each[0].complexity, each[1].path, each[0].line))
    rows = [
        (str(function.complexity), printable(function.name), f"{_shown_path(outcome.root, file.path)}:{function.line}")
        for function, file in found[:TOP_FUNCTIONS_MAX]
    ]
    if not rows:
        return Paragraph("There is no function in these files.")
    title = "The ten most complex functions" if len(found) >= TOP_FUNCTIONS_MAX else "The most complex functions"
    return Table(title, "><<", rows, ("complexity", "function", "file and line"), strong_column=0, kept_whole=2)


def _totals(outcome: Outcome) -> Table:
    reports = outcome.reports
    complexities = [function.complexity for report in reports for function in report.functions]
    mean = sum(complexities) / max(len(complexities), 1)
    failed = sum(1 for each in reports if each.failure)
    rows = [
        ("files", f"{len(reports):,}", f"{failed:,} of them not parsed" if failed else "all of them parsed"),
        ("lines", f"{sum(each.lines for each in reports):,}", ""),
        ("functions", f"{len(complexities):,}", f"complexity {mean:.1f} on average" if complexities else ""),
        ("classes", f"{sum(each.classes for each in reports):,}", ""),
        ("imports", f"{sum(each.imports for each in reports):,}", ""),
        ("syntax nodes", f"{sum(each.nodes for each in reports):,}", "visited in the trees of these files"),
    ]
    return Table("Totals", "<><", rows)


def _speed(outcome: Outcome) -> Table:
    tasks = len(outcome.reports)
    rows = [
        (slots_label(outcome.slots), f"{outcome.slots_s:.2f} s", f"{tasks / outcome.slots_s:,.0f} tasks per second"),
        ("one process", f"{outcome.single_s:.2f} s", f"{tasks / outcome.single_s:,.0f} files per second"),
        ("speed-up", f"{outcome.single_s / outcome.slots_s:.2f} times", f"with {slots_label(outcome.slots)}"),
    ]
    return Table("Speed", "<><", rows, strong_column=1)


def _what_was_timed(outcome: Outcome) -> Paragraph:
    if not outcome.same:
        return Paragraph("The two runs did not find the same: did a file change meanwhile? Run it again.", "bold red")
    return Paragraph(
        f"One task a file. The time of the {slots_label(outcome.slots)} is that of the whole `with Executor()` block: "
        "its processes' start and end, sending the tasks, reading and parsing, taking the results. The time of one "
        "process is a plain loop over the same files with the same function, reading and parsing; it ran afterwards, "
        "in this process. All files had been read once before, so neither run waited for the disk. "
        "Both found exactly the same.",
        "dim",
    )


def slots_label(slots: int) -> str:
    """The number of slots, in words that fit before or after it."""
    return "1 slot" if slots == 1 else f"{slots:,} slots"


def files_label(files: int, size_bytes: int) -> str:
    """How many files, and how big they are together."""
    size = f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"
    return f"{files:,} {'file' if files == 1 else 'files'}, {size}"


def printable(text: str) -> str:
    """`text` with all that would disturb a terminal (control characters, undecodable bytes) written as escapes."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _shown_path(root: str, path: str) -> str:
    return printable(os.path.relpath(path, root))
