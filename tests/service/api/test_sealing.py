"""Sealing: what opens, and everything that must not (matrix I)."""

import base64

import pytest

from services.contracts.names import is_sealed
from services.runtime.sealing import Sealer, Tampered, UnknownKey

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
SEALER = Sealer({"k1": OLD})


def flipped(text: str, index: int) -> str:
    """`text` with one bit of one byte of its sealed part changed."""
    head, _, encoded = text.rpartition(":")
    raw = bytearray(base64.urlsafe_b64decode(encoded))
    raw[index] ^= 1
    return f"{head}:{base64.urlsafe_b64encode(bytes(raw)).decode()}"


def test_opens_what_it_sealed() -> None:
    sealed = SEALER.seal("Bearer tök", "acme", "callback.secret")
    assert is_sealed(sealed)
    assert sealed.startswith("sealed:v1:k1:")
    assert "tök" not in sealed
    assert SEALER.open(sealed, "acme", "callback.secret") == "Bearer tök"


def test_sealing_twice_gives_different_texts() -> None:
    assert SEALER.seal("a", "acme", "f") != SEALER.seal("a", "acme", "f")


def test_a_new_first_key_seals_and_the_old_one_still_opens() -> None:
    old = SEALER.seal("a", "acme", "f")
    rotated = Sealer({"k2": NEW, "k1": OLD})
    assert rotated.open(old, "acme", "f") == "a"
    assert rotated.seal("a", "acme", "f").startswith("sealed:v1:k2:")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UnknownKey, match="k1"):
        Sealer({"k2": NEW}).open(SEALER.seal("a", "acme", "f"), "acme", "f")


def test_another_key_under_the_same_id_does_not_open() -> None:
    with pytest.raises(Tampered):
        Sealer({"k1": NEW}).open(SEALER.seal("a", "acme", "f"), "acme", "f")


@pytest.mark.parametrize(("tenant", "field"), [("other", "f"), ("acme", "g"), ("acm", "ef"), ("acmef", "")])
def test_a_swapped_tenant_or_field_does_not_open(tenant: str, field: str) -> None:
    with pytest.raises(Tampered):
        SEALER.open(SEALER.seal("a", "acme", "f"), tenant, field)


@pytest.mark.parametrize("index", [0, 11, 12, -16, -1], ids=["nonce", "nonce end", "body", "tag", "tag end"])
def test_a_flipped_bit_does_not_open(index: int) -> None:
    with pytest.raises(Tampered):
        SEALER.open(flipped(SEALER.seal("a", "acme", "f"), index), "acme", "f")


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "",
        "sealed:v2:k1:AAAA",
        "sealed:v1:k1:",
        "sealed:v1:k1:AAAA",
        "sealed:v1:k1:!!!!",
        "sealed:v1:k1:é",
    ],
    ids=["plain", "empty", "other version", "nothing", "too short", "not base64", "not ASCII"],
)
def test_other_forms_do_not_open_and_are_not_repeated(text: str) -> None:
    with pytest.raises(Tampered) as caught:
        SEALER.open(text, "acme", "f")
    assert not text or text not in str(caught.value)


def test_a_cut_text_does_not_open() -> None:
    sealed = SEALER.seal("a longer secret", "acme", "f")
    with pytest.raises(Tampered):
        SEALER.open(sealed[:-4], "acme", "f")
