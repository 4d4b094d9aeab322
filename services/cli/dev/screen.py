"""What a person sees: one line per part, green when it is up, with how long it took."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

_one_line_at_a_time = threading.Lock()


def line(text: str, colour: str | None = None) -> None:
    """One line, at once."""
    # a reader that went away (`| head`, a closed terminal) must not cut the drain short
    with _one_line_at_a_time, suppress(OSError):
        typer.secho(text, fg=colour)


def good(name: str, detail: str, seconds: float) -> None:
    """A part that is up."""
    line(f"  ok  {name:<10} {detail:<52} {seconds:5.1f} s", typer.colors.GREEN)


def note(text: str) -> None:
    """Something to know."""
    line(f"      {text}", typer.colors.YELLOW)


def bad(text: str) -> None:
    """Something that went wrong."""
    line(text, typer.colors.RED)


@contextmanager
def part(name: str, detail: str) -> Iterator[None]:
    """Times the block and prints its green line; nothing when it raises."""
    start = time.monotonic()
    yield
    good(name, detail, time.monotonic() - start)
