"""Names that people bring from Mistral's first language, or mistype, and what they are called here."""

from collections.abc import Collection, Mapping

from services.jobs.fields import nearest

MEANT: Mapping[str, str] = {
    "Namespaces": "services",
    "on-complete": "on-exit",
    "on-finish": "on-exit",
    "requires": "on-success",
}
"""Keys of Mistral that have another name here."""

HINTS: Mapping[str, str] = {
    **{key: f"write {name}" for key, name in MEANT.items()},
    "requires": "name the step in on-success of the one before it",
    "publish": "later steps read $.steps.<name>.result",
    "triggers": "a pipeline is run by requests; remove it",
}


def meant(key: str, known: Collection[str]) -> str | None:
    """The key that an unknown one most likely stands for."""
    return MEANT.get(key) or nearest(key, known)
