"""The answer to a request that can never run."""

from services.contracts.errors import FieldError


class Refused(Exception):
    """Every fault found in a request or definition, in the order of its fields; never empty."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors
