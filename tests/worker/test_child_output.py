"""What tasks print, by whatever way, comes before their results and from the right task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from child_stage import in_own_process, results_of, staged, text_of


@in_own_process
def test_output_comes_before_its_result_and_bears_its_task(tmp_path: Path) -> None:
    from netfutures.payload import dump_by_value, dump_call
    from netfutures_worker.channel import Output, Results

    def tell(value: int) -> int:
        import sys

        print("line", value)
        sys.stderr.write(f"no end {value}")
        sys.stdout.buffer.write(b"bytes \xff")
        return value

    with staged() as stage:
        child = stage.start()
        child.give_function(1, dump_by_value(tell), True)
        child.give_tasks(1, 1, [dump_call((value,), {}) for value in (1, 2)])
        heard = stage.hear(child, lambda heard: isinstance(heard[-1], Results))
        assert heard[:-1] == [
            Output(1, 1, b"line 1\n"), Output(1, 1, b"bytes \xff"), Output(1, 2, b"no end 1"),
            Output(2, 1, b"line 2\n"), Output(2, 1, b"bytes \xff"), Output(2, 2, b"no end 2"),
        ]  # fmt: skip


@in_own_process
def test_streams_look_like_those_of_a_program_in_a_pipe(tmp_path: Path) -> None:
    def look() -> Any:
        import sys

        print("é", end="")
        print("\udcff", file=sys.stderr)
        sys.stdout.reconfigure(line_buffering=False)  # type: ignore[union-attr]
        print("later")
        names = [(each.name, each.mode, each.encoding, each.fileno(), each.isatty(), each.writable())
                 for each in (sys.stdout, sys.stderr)]  # fmt: skip
        return names, sys.stdout is sys.__stdout__, sys.stdout.newlines

    with staged() as stage:
        child = stage.start()
        stage.give(child, 1, look)
        heard = stage.hear(child, lambda heard: bool(results_of(heard)))
        assert text_of(heard) == "élater\n"
        assert text_of(heard, 2) == "\\udcff\n"
        names, same, _ = results_of(heard)[1]
        assert names == [("<stdout>", "w", "utf-8", 1, False, True), ("<stderr>", "w", "utf-8", 2, False, True)]
        assert same


@in_own_process
def test_what_goes_to_descriptors_comes_before_the_result(tmp_path: Path) -> None:
    from netfutures_worker.channel import Output, Results

    def write() -> None:
        import os
        import subprocess

        os.write(1, b"by descriptor\n")
        subprocess.run(["echo", "by program"], check=True)
        subprocess.run(["sh", "-c", "echo error >&2"], check=True)
        print("and by print")

    with staged() as stage:
        child = stage.start()
        for index in range(1, 6):
            stage.give(child, index, write)
            heard = stage.hear(child, lambda heard: isinstance(heard[-1], Results))
            assert text_of([each for each in heard if isinstance(each, Output) and not each.task_index]) == (
                "by descriptor\nby program\n"
            )
            assert text_of(heard, 2) == "error\n"
            assert text_of([each for each in heard if isinstance(each, Output) and each.task_index]) == "and by print\n"


@in_own_process
def test_large_output_comes_whole_and_threads_may_print(tmp_path: Path) -> None:
    from netfutures_worker.channel import OUTPUT_BYTES_MAX, Output

    def print_much() -> None:
        import threading

        print("x" * 1_000_000)
        threads = [threading.Thread(target=lambda n=n: [print(n) for _ in range(300)]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with staged() as stage:
        child = stage.start()
        stage.give(child, 1, print_much)
        heard = stage.hear(child, lambda heard: bool(results_of(heard)))
        text = text_of(heard)
        assert text.startswith("x" * 1_000_000 + "\n")
        assert sorted(text[1_000_001:].replace("\n", "")) == sorted("0123" * 300)
        assert max(len(each.data) for each in heard if isinstance(each, Output)) <= OUTPUT_BYTES_MAX


@in_own_process
def test_a_closed_or_replaced_stream_disturbs_nothing(tmp_path: Path) -> None:
    def close() -> None:
        import sys

        print("last words", end="")
        sys.stderr.detach()  # type: ignore[union-attr]
        sys.stdout.close()

    def again() -> str:
        import contextlib
        import io

        with contextlib.redirect_stdout(io.StringIO()) as caught:
            print("caught")
        return caught.getvalue()

    with staged() as stage:
        child = stage.start()
        stage.give(child, 1, close)
        assert text_of(stage.hear(child, lambda heard: bool(results_of(heard)))) == "last words"
        assert stage.call(child, 2, again) == "caught\n"
        assert isinstance(stage.call(child, 3, print, "nowhere"), ValueError)


@in_own_process
def test_endless_output_waits_for_the_worker_and_is_ended_by_it(tmp_path: Path) -> None:
    from netfutures_worker.channel import Exit, Output

    def print_for_ever() -> None:
        while True:
            print("again and again")

    with staged() as stage:
        child = stage.start()
        stage.give(child, 1, print_for_ever)
        heard = stage.hear(child, lambda heard: len(heard) > 1000)
        assert all(isinstance(each, Output) for each in heard)
        assert len(child.harvest()) < 100_000  # It comes to an end, though the child writes on.
        child.kill()
        assert stage.death(child) == Exit(None, 9)
