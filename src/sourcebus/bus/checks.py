"""What is refused before Redis is asked."""

from __future__ import annotations

from sourcebus.bus.keys import encode_ref
from sourcebus.errors import InvalidInput
from sourcebus.model import MAX_ID_BYTES


def check_id(field: str, value: str) -> None:
    """InvalidInput unless it is 1 to `MAX_ID_BYTES` bytes long."""
    size = len(encode_ref(value))
    if not 0 < size <= MAX_ID_BYTES:
        raise InvalidInput(field, f"is {size} bytes long", f"use 1 to {MAX_ID_BYTES} bytes")


def check_positive(field: str, value: float) -> None:
    """InvalidInput unless it is a number above 0 that a script can calculate with."""
    if not 0 < value < 1e15:
        raise InvalidInput(field, f"is {value}", "use a number above 0")
