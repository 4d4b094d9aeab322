"""Names that say of a value that it is a secret, alike wherever something is shown."""

import re

_ANYWHERE = (
    r"pass(?:word|wd|phrase|code)|secret|token|credential|cookie|session|signature|authori[sz]ation"
    r"|api[_-]?key|private[_-]?key|access[_-]?key|card[_-]?number"
)
_ALONE = r"auth|bearer|csc|cv[cv]2?|jwt|otp|pin|puk|pwd|sid|ssn|tan|totp"
"""Too short to be looked for within a word: `shipping` holds a pin."""

PATTERN = rf"(?:{_ANYWHERE}|(?<![^\W_])(?:{_ALONE})(?![^\W_]))"
"""In a text, whatever its case; for whoever looks for `pin=1234`."""

_NAMED = re.compile(PATTERN, re.IGNORECASE)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def is_secret(name: str) -> bool:
    """Whether the value of this name is to be hidden: `card_pin` and `cardPin` are, `shipping` is not."""
    return _NAMED.search(_HUMP.sub("_", name)) is not None
