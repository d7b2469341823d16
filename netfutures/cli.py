"""The command `netfutures`: one function for each subcommand, which hands over at once."""

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version

EXIT_FAILED = 1
EXIT_BAD_USE = 2
EXIT_INTERRUPTED = 130
EXIT_NOBODY_READS = 141

ABOUT = """\
concurrent.futures over the network: one executor for every core of this
machine, or of many.

    from netfutures import Executor

    with Executor() as ex:
        print(sum(ex.map(score, documents)))
"""

AFTER_ABOUT = """\
'netfutures demo' shows it at work; 'netfutures COMMAND --help' tells more.
"""

DEMO = """\
Analyse real code on every core: each .py file of this Python's standard
library (its site-packages left out) is one task, which reads and parses the
file and measures the cyclomatic complexity of every function in it. Then the
same files are analysed once more by one process alone, so that you see what
the cores gain.
"""

AFTER_DEMO = """\
examples:
  netfutures demo                    the standard library, one slot for each usable core
  netfutures demo --path ~/project   your own code
  netfutures demo --slots 1          what the executor itself costs

exit status:
  0    all done; files that do not parse are named in the result
  1    it failed on the way: the message says why
  2    it cannot be done as asked: no such directory, no .py file in it, a bad option
  130  stopped by Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help(sys.stderr)
        return EXIT_BAD_USE
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\nnetfutures {options.command}: stopped by Ctrl-C, before the end.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does. Nothing is left to say; the exit must not try it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_NOBODY_READS
    return status


def demo(options: argparse.Namespace) -> int:
    """`netfutures demo`."""
    from netfutures.demo.run import BadUse, run
    from netfutures.errors import NetfuturesError

    if options.address is not None:
        sentence = "--address is coming: the demo cannot use a cluster yet. Leave it out to use this machine."
        return _say("demo", EXIT_BAD_USE, sentence)
    try:
        return run(options.path, options.slots, verbose=options.verbose)
    except BadUse as error:
        return _say("demo", EXIT_BAD_USE, str(error))
    except NetfuturesError as error:
        return _say("demo", EXIT_FAILED, f"not all files were analysed. {error}")


def _say(command: str, status: int, sentence: str) -> int:
    """Tells on stderr why a command ends as it does, and returns the status to end with."""
    print(f"netfutures {command}: {sentence}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="netfutures",
        description=ABOUT,
        epilog=AFTER_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    this_python = f"{platform.python_implementation()} {platform.python_version()}"
    parser.add_argument("--version", action="version", version=f"netfutures {version('netfutures')} on {this_python}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    _add_demo(commands)
    return parser


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "demo",
        help="analyse the Python standard library on every core of this machine",
        description=DEMO,
        epilog=AFTER_DEMO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--path", metavar="DIR", type=_directory, help="analyse the .py files in and below DIR instead")
    parser.add_argument(
        "--slots", metavar="N", type=_slots, help="how many files at a time (default: one for each usable core)"
    )
    parser.add_argument("--address", help="coming: the cluster to use; without it, this machine")
    parser.add_argument("--verbose", action="store_true", help="name every file that does not parse, not only 20")
    parser.set_defaults(run=demo)


def _directory(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("an empty name is no directory (is a variable of your shell not set?)")
    return text


def _slots(text: str) -> int:
    try:
        slots = int(text)
    except ValueError:
        slots = 0
    if slots < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of slots: give 1, 2, 3, ...")
    return slots
