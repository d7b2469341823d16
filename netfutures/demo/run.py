"""Runs the demo: finds the files, analyses them on all slots, then in this process, and shows what came out."""

import gc
import os
import platform
import sysconfig
from collections.abc import Sequence
from concurrent.futures import Future, as_completed
from time import perf_counter

from netfutures.demo.complexity import FileReport, analyse, read_source
from netfutures.demo.report import Outcome, blocks, files_label, printable, slots_label
from netfutures.demo.screen import Paragraph, Screen, standard_screen

INSTALLED_BY_USERS = frozenset({"site-packages", "dist-packages"})


class BadUse(Exception):
    """What was asked for cannot be done; the message says why and what to do."""


def run(path: str | None = None, slots: int | None = None, *, verbose: bool = False) -> int:
    """Shows everything on standard output; returns 0, or 1 if the two runs did not find the same."""
    root, title, left_out = (path, "Python files", frozenset[str]()) if path else _standard_library()
    paths, unread = find_sources(root, left_out)
    screen = standard_screen()
    sizes = _sizes_bytes(paths)
    screen.show([Paragraph(f"{title}: {files_label(len(paths), sum(sizes))}, in {printable(root)}", "bold")])
    # The largest first: were one of them last, all slots but one would stand idle at the end.
    ordered = sorted(zip(paths, sizes, strict=True), key=lambda each: (-each[1], each[0]))
    reports, slots_used, slots_s = _on_slots(ordered, slots, screen)
    again, single_s = _in_this_process(ordered, screen)
    outcome = Outcome(root, reports, unread, slots_used, slots_s, single_s, same=reports == again)
    screen.show(blocks(outcome, verbose=verbose))
    return 0 if outcome.same else 1


def _standard_library() -> tuple[str, str, frozenset[str]]:
    title = f"The standard library of {platform.python_implementation()} {platform.python_version()}"
    return sysconfig.get_path("stdlib"), title, INSTALLED_BY_USERS


def find_sources(root: str, left_out: frozenset[str]) -> tuple[list[str], list[FileReport]]:
    """All `.py` files below `root`, directories named in `left_out` excepted, and the directories it could not list."""
    if not os.path.isdir(root):
        what = "is not a directory" if os.path.exists(root) else "does not exist"
        raise BadUse(f"{printable(root)} {what}: --path wants a directory that holds Python files")
    unread: list[FileReport] = []

    def note(error: OSError) -> None:
        unread.append(FileReport(error.filename, failure=f"{type(error).__name__}: {error.strerror} (a directory)"))

    paths: list[str] = []
    for directory, subdirectories, names in os.walk(root, onerror=note):
        subdirectories[:] = [name for name in subdirectories if name not in left_out]
        paths += [os.path.join(directory, name) for name in names if name.endswith(".py")]
    if not paths:
        raise BadUse(f"there is no .py file in {printable(root)} or below it: give another directory with --path")
    return paths, unread


def _sizes_bytes(paths: Sequence[str]) -> list[int]:
    """Reads every file once: for the sizes, and so that the first run does not pay alone for a cold file cache."""
    sizes = []
    for path in paths:
        try:
            sizes.append(len(read_source(path)))
        except OSError:
            # It is analysed all the same, so that the report names it with the reason.
            sizes.append(0)
    return sizes


def _on_slots(
    files: Sequence[tuple[str, int]], slots: int | None, screen: Screen
) -> tuple[list[FileReport], int, float]:
    """One task for each file; timed from before the executor is made until after it has been shut down."""
    from netfutures.client.executor import Executor

    started = perf_counter()
    try:
        executor = Executor(max_workers=slots, address="local")
    except ValueError as error:
        raise BadUse(f"no executor with these slots: {error}") from error
    slots_used = executor._max_workers
    with screen.track(slots_label(slots_used), len(files), sum(size for _, size in files)) as advance, executor:
        sizes: dict[Future[FileReport], int] = {executor.submit(analyse, path): size for path, size in files}
        for future in as_completed(sizes):
            future.result()
            advance(sizes[future])
    return [future.result() for future in sizes], slots_used, perf_counter() - started


def _in_this_process(files: Sequence[tuple[str, int]], screen: Screen) -> tuple[list[FileReport], float]:
    """The same work in a plain loop, which is what the slots are measured against."""
    # The garbage collector must not walk what the first run left: that would be held against this one.
    gc.collect()
    gc.freeze()
    reports = []
    started = perf_counter()
    with screen.track("one process", len(files), sum(size for _, size in files)) as advance:
        for path, size in files:
            reports.append(analyse(path))
            advance(size)
    took_s = perf_counter() - started
    gc.unfreeze()
    return reports, took_s
