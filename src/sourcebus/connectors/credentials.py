"""A source's secret: one text, or a JSON object of named ones, each of which may be a list while it is being replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sourcebus.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Credentials:
    """Named secrets, each with all its living values, newest first. Its text shows names only."""

    values: Mapping[str, tuple[str, ...]] = field(repr=False)

    def one(self, name: str) -> str | None:
        """The newest value: what we prove ourselves by."""
        return next(iter(self.all(name)), None)

    def all(self, name: str) -> tuple[str, ...]:
        """Every living value: what others may prove themselves by, also while a secret is being replaced."""
        return self.values.get(name, ())

    @classmethod
    def parse(cls, secret: str | None, names: Sequence[str]) -> Credentials:
        """From a source's `secret`: plain text is the first of `names`, ``{"token": …, "webhook": ["new", "old"]}`` names them.

        Raises `InvalidInput` for the field ``secret``, without repeating any of it.
        """
        if not secret:
            return cls({})
        if not secret.lstrip().startswith("{"):
            return cls({names[0]: (secret,)})
        try:
            given = json.loads(secret)
        except (ValueError, RecursionError):
            raise InvalidInput("secret", "begins like JSON but is none", "send a text, or an object of named secrets") from None
        return cls({name: _living(name, value, names) for name, value in cast("dict[str, Any]", given).items()})


def _living(name: str, value: Any, names: Sequence[str]) -> tuple[str, ...]:
    if name not in names:
        raise InvalidInput("secret", f"names {name!r}", "allowed: " + ", ".join(names))
    living = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not living or not all(isinstance(one, str) and one for one in living):
        raise InvalidInput(
            "secret", f"{name!r} is no text or list of texts", f'send {{"{name}": "…"}} or {{"{name}": ["new", "old"]}}'
        )
    return tuple(living)
