"""Payloads that are almost right: what a provider would never send, and anybody with the secret could."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from sourcebus.errors import InvalidInput
from sourcebus.model import MAX_REF_BYTES, ChangeKind, Heard

_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**30, "", "x", "../..", "\ud800", "\0", "x" * 5000, [], {}, [[]], [None], {"id": {}}, [{"a": 1}],
)  # fmt: skip


def spoiled(payload: Any, chance: random.Random) -> Any:
    """A copy with one to three of its values replaced or removed."""
    made = copy.deepcopy(payload)
    for _ in range(chance.randint(1, 3)):
        places = list(_places(made))
        if not places:
            break
        holder, key = chance.choice(places)
        if isinstance(holder, dict) and chance.random() < 0.3:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(chance.choice(_ODD))
    return made


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Where values stand; those near the top, which is where meaning is, several times."""
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []  # pyright: ignore[reportUnknownArgumentType]  any JSON
    for key in keys:
        for _ in range(max(1, 4 - depth)):
            yield value, key
        yield from _places(value[key], depth + 1)


def check_parsing(parse: Callable[[bytes], Heard], payload: Any) -> bool:
    """Whether it was understood. Fails on any other error than `InvalidInput`, and on a reference that nothing could store."""
    try:
        said = parse(json.dumps(payload).encode())
    except InvalidInput:
        return False
    for change in said.changes:
        assert change.object_ref or change.change_kind is ChangeKind.SCAN
        assert len(change.object_ref.encode()) <= MAX_REF_BYTES
    assert said.delivery_id is None or isinstance(said.delivery_id, str)
    return True
