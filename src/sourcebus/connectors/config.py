"""Settings that many connectors have, read from a source's `config`. `InvalidInput` names the key, the value and the fix."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sourcebus.connectors.patterns import Selection
from sourcebus.errors import InvalidInput


def texts_at(config: Mapping[str, Any], key: str, fix: str) -> list[str]:
    """A list of texts, none of them empty; an empty list where the key is missing."""
    value = config.get(key, [])
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in cast("list[Any]", value)):
        raise InvalidInput(f"config.{key}", f"is {value!r}", fix)
    return [*cast("Sequence[str]", value)]


def patterns_at(config: Mapping[str, Any], key: str) -> list[str]:
    """Patterns as in `sourcebus.connectors.patterns`, such as ``include`` and ``exclude`` hold."""
    patterns = texts_at(config, key, 'give a list of patterns, such as ["*.md", "docs/**"]')
    try:
        Selection(patterns, patterns)
    except re.error as error:
        raise InvalidInput(f"config.{key}", f"{error} in {patterns}", "correct the character range in [...]") from error
    return patterns


def number_at(config: Mapping[str, Any], key: str, *, default: float, least: float = 1) -> float:
    """A finite number that is at least `least`."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
        raise InvalidInput(f"config.{key}", f"is {value!r}", f"give a number, at least {least:g}")
    return value


def flag_at(config: Mapping[str, Any], key: str, *, default: bool) -> bool:
    """True or false, and nothing that only looks like it."""
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise InvalidInput(f"config.{key}", f"is {value!r}", "give true or false")
    return value
