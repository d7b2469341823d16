"""Shows progress and results: with rich on a terminal, else as plain text that other programs can read."""

import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

TEXT_COLUMNS_MAX = 100
LABEL_COLUMNS = 11
REFRESH_PER_S = 8

Advance = Callable[[int], None]
"""Told, for each file that is done, its size in bytes."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text, wrapped to the width of the terminal."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A title and rows of text; `alignment` has one of `<` and `>` for each column.

    The texts of the column `kept_whole` are folded last, when half of the width is not enough for them.
    """

    title: str
    alignment: str
    rows: Sequence[Sequence[str]]
    header: Sequence[str] = ()
    title_style: str = "bold"
    strong_column: int = -1
    kept_whole: int = 0


Block = Paragraph | Table


class Screen(Protocol):
    """What the demo needs of a place to show things."""

    def track(self, label: str, files: int, total_bytes: int) -> AbstractContextManager[Advance]:
        """Shows how far a run over so many files has come, for as long as the context lasts."""

    def show(self, blocks: Sequence[Block]) -> None:
        """Writes blocks, an empty line before each."""


def open_screen(stream: TextIO) -> Screen:
    """The best screen that `stream` can have; file names that it cannot encode are written with backslashes."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    if not stream.isatty():
        return PlainScreen(stream)
    if os.environ.get("TERM") == "dumb":
        return PlainScreen(stream, tells_progress=True)
    try:
        from rich.console import Console
    except ImportError:
        stream.write("The progress bar needs the package rich, which is missing: pip install 'netfutures[demo]'\n")
        return PlainScreen(stream, tells_progress=True)
    console = Console(file=stream, highlight=False)
    # Ctrl-C is echoed as two characters behind the bar. Without room for them the bar would be drawn on a new line.
    return RichScreen(console, Console(file=stream, width=max(1, min(console.width, TEXT_COLUMNS_MAX) - 3)))


class PlainScreen:
    """Plain text; progress, if at all, is a line for every tenth of the way."""

    def __init__(self, stream: TextIO, *, tells_progress: bool = False) -> None:
        self._stream = stream
        self._tells_progress = tells_progress

    @contextmanager
    def track(self, label: str, files: int, total_bytes: int) -> Iterator[Advance]:
        """Writes a line whenever another tenth of the bytes is done."""
        done_files = done_bytes = told_tenths = 0

        def advance(size_bytes: int) -> None:
            nonlocal done_files, done_bytes, told_tenths
            done_files += 1
            done_bytes += size_bytes
            tenths = _percent(done_files, files, done_bytes, total_bytes) // 10
            if tenths > told_tenths and self._tells_progress:
                told_tenths = tenths
                line = f"{label:<{LABEL_COLUMNS}} {tenths * 10:>3} %   {done_files:,} of {files:,} files\n"
                self._stream.write(line)
                self._stream.flush()

        yield advance

    def show(self, blocks: Sequence[Block]) -> None:
        """Writes columns as wide as their longest text, whatever the width of the terminal, so that nothing is cut."""
        for block in blocks:
            lines = _plain_table(block) if isinstance(block, Table) else textwrap.wrap(block.text, TEXT_COLUMNS_MAX)
            self._stream.write("\n" + "".join(f"{line}\n" for line in lines))
        self._stream.flush()


def _percent(done_files: int, files: int, done_bytes: int, total_bytes: int) -> int:
    """How much of the bytes is done; all of it only when every file is."""
    return 100 if done_files == files else min(99, 100 * done_bytes // max(total_bytes, 1))


def _plain_table(table: Table) -> list[str]:
    rows = [table.header, *table.rows] if table.header else table.rows
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [table.title]
    for row in rows:
        cells = [f"{text:{side}{width}}" for text, side, width in zip(row, table.alignment, widths, strict=True)]
        lines.append(("  " + "   ".join(cells)).rstrip())
    return lines


class RichScreen:
    """A terminal with rich: bars that move, tables that fit its width."""

    def __init__(self, console: "Console", for_bars: "Console") -> None:
        self._console = console
        self._for_bars = for_bars

    @contextmanager
    def track(self, label: str, files: int, total_bytes: int) -> Iterator[Advance]:
        """Draws a bar. It moves by bytes, since a file takes about as long as it is big."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        width = len(f"{files:,}")
        progress = Progress(
            TextColumn(f"  {{task.description:<{LABEL_COLUMNS}}}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[percent]:>3} %"),
            TextColumn(f"[cyan]{{task.fields[done]:>{width},}}[/] of {files:,} files"),
            TimeElapsedColumn(),
            console=self._for_bars,
            expand=True,
            refresh_per_second=REFRESH_PER_S,
        )
        task = progress.add_task(label, total=max(total_bytes, 1), done=0, percent=0)
        done_files = done_bytes = 0

        def advance(size_bytes: int) -> None:
            nonlocal done_files, done_bytes
            done_files += 1
            done_bytes += size_bytes
            percent = _percent(done_files, files, done_bytes, total_bytes)
            progress.update(task, completed=done_bytes, done=done_files, percent=percent)

        with progress:
            yield advance

    def show(self, blocks: Sequence[Block]) -> None:
        """Writes the blocks with colours; what is too wide is folded, never cut."""
        from rich.padding import Padding
        from rich.text import Text

        width = min(self._console.width, TEXT_COLUMNS_MAX)
        for block in blocks:
            self._console.print()
            if isinstance(block, Paragraph):
                self._console.print(Text(block.text, block.style), width=width)
            else:
                self._console.print(Text(block.title, block.title_style))
                self._console.print(Padding(_rich_table(block, width), (0, 0, 0, 2)), width=width)


def _rich_table(table: Table, width: int) -> "RichTable":
    from rich.table import Table as RichTable
    from rich.text import Text

    rich_table = RichTable(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=bool(table.header))
    for index, side in enumerate(table.alignment):
        rich_table.add_column(
            table.header[index] if table.header else "",
            justify="left" if side == "<" else "right",
            style="bold cyan" if index == table.strong_column else "",
            header_style="dim",
            overflow="fold",
            no_wrap=index == table.kept_whole and max(len(row[index]) for row in table.rows) <= width // 2,
        )
    for row in table.rows:
        rich_table.add_row(*map(Text, row))
    return rich_table


def standard_screen() -> Screen:
    """The screen on this process's standard output."""
    return open_screen(sys.stdout)
