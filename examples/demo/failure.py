"""The one way the demo fails."""


class Failed(Exception):
    """Something is not as it must be; the text says what was expected and what was found."""
