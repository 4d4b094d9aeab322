"""Patterns of users: what they match, and how large they may be."""

import pickle
import resource
import sys

import pytest
import re2

from services.language import patterns


def matches(pattern: str, text: str) -> bool:
    return patterns.compiled(pattern).matches(text)


def test_a_pattern_matches_a_text_from_end_to_end() -> None:
    assert matches("a|ab", "ab")
    assert not matches("a|ab", "abc")
    assert not matches("a", "a\n")
    assert matches(r"\pL+", "Zoë")
    assert not matches(r"\w+", "Zoë")  # ASCII
    assert matches("", "")


@pytest.mark.parametrize("pattern", ["(?=a)", r"(a)\1", "a)|(b", "a{1001}", "[", "\\"])
def test_what_is_no_pattern_is_refused_with_the_reason(pattern: str) -> None:
    with pytest.raises(patterns.BadPattern, match=r"\S"):
        patterns.compiled(pattern)


@pytest.mark.parametrize(
    "pattern", [r"\pL{140}[a-z]{9}", r"(\pL|\pN){200}", r"[^\pL]{100}", "((((a{10}){10}){10}){10})"]
)
def test_a_pattern_that_would_be_too_large_is_refused(pattern: str) -> None:
    with pytest.raises(patterns.BadPattern, match=r"too large|invalid repetition size"):
        patterns.compiled(pattern)


def test_many_large_patterns_take_little_memory() -> None:
    """What took two processes to 2.5 GB: hundreds of patterns, each as large as it may be."""
    before = _peak_bytes()
    for length in range(1, 500):
        patterns.compiled(rf"\w{{140}}[a-z]{{{length}}}").matches("a" * 16_000)
        patterns.compiled(rf"(.{{{length % 40}}}a|b){{9}}").matches("a" * 16_000)
    assert _peak_bytes() - before < 64 * 1024 * 1024


def test_a_text_is_as_long_as_its_pattern_allows() -> None:
    small, large = patterns.compiled("[A-Z]{2}[0-9]{4,10}"), patterns.compiled("(.*.*){1000}=")
    assert small.chars_max > 16 * 1024 > large.chars_max > 100
    assert not large.matches("=" * (large.chars_max + 1))
    assert large.matches("=" * large.chars_max)


def test_the_engine_survives_a_pickle() -> None:
    compiled = re2.compile("a+", patterns.compiled("a+")._compiled.options)
    assert pickle.loads(pickle.dumps(compiled)).fullmatch("aaa")


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
