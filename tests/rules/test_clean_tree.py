"""What git keeps names no registry's host and no place on somebody's machine, and leaves nothing undone behind."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from source_files import CHECKOUT, refuse, tracked_files

# Written with a gap, so that this file does not break its own rules.
HOSTS = [
    "py~pi.org",
    "python~hosted.org",
    "deb.~debian.org",
    "security.~debian.org",
    "registry.~npmjs",
    "registry.~yarnpkg",
    "registry-1.~docker.io",
    "ghcr.~io",
    "quay.~io",
    "proxy.~golang.org",
    "anaconda.~org",
    "file:~///",
]
PLACES = ["wo~rk", "ro~ot", "ho~me", "Use~rs", "opt/py~pi"]
UNDONE = ["TO~DO", "FIX~ME", "XX~X", "HA~CK"]
CONFLICT = ["<<<<~<<<", ">>>>~>>>"]
FILE_BYTES_MAX = 500_000


def any_of(words: list[str]) -> str:
    return "|".join(re.escape(word.replace("~", "")) for word in words)


RULES = {
    "names the host of a package registry": re.compile(any_of(HOSTS)),
    "names a place on one machine": re.compile(rf"(?<![\w.$)}}>~/-])/(?:{any_of(PLACES)})/\w"),
    "leaves something undone": re.compile(rf"\b(?:{any_of(UNDONE)})\b"),
    "is in the middle of a merge": re.compile(rf"^(?:{any_of(CONFLICT)})", re.MULTILINE),
}


def text_faults(name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        for says, pattern in RULES.items():
            found = pattern.search(line)
            if found:
                yield f"{name}:{number} {says}: {found.group()!r}"


def file_faults(path: Path) -> Iterator[str]:
    name = path.relative_to(CHECKOUT).as_posix()
    content = path.read_bytes()
    if len(content) > FILE_BYTES_MAX:
        yield f"{name} has {len(content)} bytes, {FILE_BYTES_MAX} at most"
    if b"\0" not in content:
        yield from text_faults(name, content.decode(errors="replace"))


def test_the_tree_is_clean() -> None:
    refuse(fault for path in tracked_files() for fault in file_faults(path))


@pytest.mark.parametrize(
    "line",
    [
        *(host.replace("~", "") for host in HOSTS),
        *(f"see /{place.replace('~', '')}/somebody/x" for place in PLACES),
        *(f"# {word.replace('~', '')}: later" for word in UNDONE),
        *(mark.replace("~", "") + " ours" for mark in CONFLICT),
    ],
)
def test_the_rule_finds_it(line: str) -> None:
    assert len(list(text_faults("x", line))) == 1


def test_the_rule_lets_relative_places_pass() -> None:
    assert list(text_faults("x", "$HOME/works/x ~/works/x a/home/b ../tree/x /usr/share/python3 and todo lists")) == []
