"""Numbers of JSON and YAML texts, without losing a digit."""

from decimal import Decimal, InvalidOperation


def exact(text: str) -> float | Decimal:
    """The number that a text with fraction or exponent writes: a float where its shortest form is that very
    number (0.1 is), else a Decimal, which nobody takes for a float: who cannot keep it has to refuse it."""
    value = float(text)
    shortest = repr(value)
    if shortest == text:
        return value
    try:
        written = Decimal(text)
    except InvalidOperation:  # an exponent of more than 18 digits
        return Decimal("Infinity")
    return value if Decimal(shortest) == written else written
