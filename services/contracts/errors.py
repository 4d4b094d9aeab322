"""Errors that cross a process boundary. Each one names the field, what was expected and what was found."""

from msgspec import Struct


class FieldError(Struct, frozen=True, gc=False):
    """One fault in a request. `pointer` is the path as the sender wrote it: `params.batches[1]`."""

    pointer: str
    message: str

    def __str__(self) -> str:
        return f"{self.pointer}: {self.message}"


class Undecodable(Exception):
    """These bytes are no record of ours; the message says what is wrong with them."""
