"""What a person sees: numbered steps, what each one does, and how long it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

WIDTH = 81


class Screen:
    """Plain lines everywhere; colour, and a bar where there is a terminal."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, soft_wrap=True)
        self._began = time.monotonic()
        self._number = 0

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._began

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One numbered step; its time is printed when it succeeds."""
        self._number += 1
        start = time.monotonic()
        self.console.print(f"\n[{self._number}] {title}", style="bold")
        yield
        self.console.print(f"    {'done in':>{WIDTH - 12}} {time.monotonic() - start:5.1f} s", style="green")

    def title(self, text: str) -> None:
        """The first line."""
        self.console.print(text)

    def line(self, text: str, style: str | None = None) -> None:
        """A line of detail within a step."""
        self.console.print(f"    {text}", style=style)

    def end(self, text: str, style: str) -> None:
        """The last line."""
        self.console.print(f"\n{text}", style=style)
