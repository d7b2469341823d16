"""`docs/protocol.md` has a section for every message of the wire, with its number and its fields, and for no other."""

import re
from itertools import pairwise

import pytest

from netfutures.wire import MESSAGES
from source_files import CHECKOUT, refuse

# A message's heading: its name, then its kind in brackets. A field is named in a row of a table or an item of a list.
HEADING = re.compile(r"^#+ `?(?P<name>[A-Z]\w+)`? \((?:kind )?(?P<kind>\d+)\)", re.MULTILINE)
ANY_HEADING = re.compile(r"^#+ ", re.MULTILINE)
FIELD = re.compile(r"^(?:\| *|[-*] |\d+\. )`(?P<field>\w+)`", re.MULTILINE)

Described = dict[str, tuple[int, list[str]]]


def described(document: str) -> Described:
    """By name: the kind and the fields, in their order, of each message that the document describes."""
    starts = [found.start() for found in ANY_HEADING.finditer(document)] + [len(document)]
    sections = [document[start:end] for start, end in pairwise(starts)]
    return {
        found["name"]: (int(found["kind"]), [field["field"] for field in FIELD.finditer(section)])
        for section in sections
        if (found := HEADING.match(section))
    }


def declared() -> Described:
    return {message.__name__: (kind, [*message.__match_args__]) for kind, message in MESSAGES.items()}


def document_faults(document: str, messages: Described) -> list[str]:
    known = described(document)
    faults = [f"{name} has no heading: '### `{name}` ({messages[name][0]})'" for name in messages.keys() - known.keys()]
    faults += [f"{name} is described, but no such message is in wire.py" for name in known.keys() - messages.keys()]
    for name in known.keys() & messages.keys():
        kind, names = messages[name]
        if known[name] != (kind, names):
            faults.append(f"{name} is kind {kind} with the fields {names}, and described as {known[name]}")
    return faults


def test_the_document_and_the_wire_agree() -> None:
    document = CHECKOUT / "docs" / "protocol.md"
    assert document.is_file(), "docs/protocol.md is what a person needs to write a client in another language"
    refuse(document_faults(document.read_text(encoding="utf-8"), declared()))


WIRE: Described = {"Ping": (1, ["token", "sent_s"]), "Who": (2, [])}
GOOD = """
# The protocol
## Messages
### `Ping` (1)
Asks.
| field | meaning |
|---|---|
| `token` | a number |
| `sent_s` | when |

### Who (kind 2)
Has no fields; `token` is not one.
### What a client does
- `anything`
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("### `Ping` (1)", "### `Ping`", "Ping has no heading"),
        ("### `Ping` (1)", "### `Ping` (3)", "described as (3"),
        ("| `token` | a number |\n", "", "described as (1, ['sent_s'])"),
        ("| `token` |", "| `token` |\n| `tokens` |", "described as"),
        ("## Messages", "## `Pong` (7)\n", "no such message"),
    ],
)
def test_the_rule_finds_a_difference(old: str, new: str, says: str) -> None:
    assert says in " ".join(document_faults(GOOD.replace(old, new), WIRE))


def test_the_rule_lets_agreement_pass() -> None:
    assert document_faults(GOOD, WIRE) == []
