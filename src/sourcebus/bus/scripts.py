"""Loads the Lua verbs and binds their headers to Python.

A verb's header is a contract that is read here: ``@include`` names the parts of ``_lib`` it is built from, ``@arg`` its
fixed arguments, ``@args`` those that repeat, ``@reply`` its answers, ``@keys`` every key it touches. ``@struct`` lines in
``_lib/layout.lua`` define the packed values once for both languages.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha1
from importlib.resources import files
from typing import Any, cast

from redis import Redis
from redis.exceptions import NoScriptError

from sourcebus.errors import ContractError

_NAME, _NUMBER = r"[A-Z][A-Z0-9_]+", r"-?[0-9.]+(?: / [0-9]+)?"
_CONSTANTS = re.compile(rf"^local ({_NAME}(?:, {_NAME})*) = ({_NUMBER}(?:, {_NUMBER})*)(?: --.*)?$")

Arg = bytes | str | int | float


@dataclass(frozen=True)
class Layout:
    """A packed value: the letter it goes by in Lua, its struct codes and its field names."""

    letter: str
    codes: str
    fields: tuple[str, ...]

    @property
    def format(self) -> str:
        return "<" + self.codes

    @property
    def size(self) -> int:
        """Bytes of one packed value."""
        return struct.calcsize(self.format)


@dataclass(frozen=True)
class Verb:
    """One script: its name, contract and full text."""

    name: str
    args: tuple[str, ...]
    repeated: tuple[str, ...]
    replies: tuple[str, ...]
    keys: tuple[str, ...]
    text: str

    @cached_property
    def sha(self) -> str:
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Redis, root: bytes, args: Sequence[Arg]) -> Any:
        """Runs the verb; `args` in the header's order. ContractError when their number cannot be right."""
        extra = len(args) - len(self.args)
        if extra < 0 or (extra and (not self.repeated or extra % len(self.repeated))):
            raise ContractError(f"{self.name} takes {self.args} and {self.repeated}…, not {len(args)} arguments")
        try:
            return client.evalsha(self.sha, 1, cast("str", root), *cast("Sequence[str]", args))
        except NoScriptError:
            return client.eval(self.text, 1, cast("str", root), *cast("Sequence[str]", args))


def _read(path: str) -> str:
    return (files("sourcebus.bus") / "lua" / path).read_text(encoding="utf-8")


def _tags(text: str, tag: str) -> list[str]:
    return [word for line in re.findall(rf"^-- @{tag} (.+)$", text, re.MULTILINE) for word in cast("str", line).split()]


@cache
def layouts() -> dict[str, Layout]:
    """The packed values by their letter: M, N, S, B, C, R, X, T, P."""
    found = re.findall(r"^-- @struct (\w) (\w+) (.+)$", _read("_lib/layout.lua"), re.MULTILINE)
    result = {letter: Layout(letter, codes, tuple(names.split())) for letter, codes, names in found}
    for letter in "MNSBC":  # all doubles: one code stands for all
        result[letter] = Layout(letter, "d" * len(result[letter].fields), result[letter].fields)
    return result


@cache
def _numbers() -> dict[str, str]:
    # Scripts keep a few slots of their own before or behind a value's fields while they work on it; never stored.
    before = {"S": ("TOUCHED", "RAW"), "B": ("TOUCHED", "WAS_AT", "WAS"), "C": ("TOUCHED",), "N": ("TOUCHED",)}
    behind = {"X": ("SINCE", "PAYLOAD", "WAS", "DEADLINE", "TOUCHED")}
    names: dict[str, str] = {}
    for letter, layout in layouts().items():
        first = len(layouts()["R"].fields) + 1 if letter == "X" else 1
        slots = (*before.get(letter, ()), *map(str.upper, layout.fields))
        names |= {f"{letter}_{name}": str(at) for at, name in enumerate(slots, first)}
        names |= {f"R_{name}": str(first + len(slots) + at) for at, name in enumerate(behind.get(letter, ()))}
        names[f"{letter}_FORMAT"] = f"'{layout.format}'"
        names[f"{letter}_FIRST"] = str(1 + len(before.get(letter, ())))
        names[f"{letter}_LAST"] = str(len(slots))
        names[f"{letter}_BYTES"] = str(layout.size)
    for parts in ("RT", "RX", "XT", "RXT"):
        names[f"{parts}_FORMAT"] = f"'<{''.join(layouts()[part].codes for part in parts)}'"
    return names


def _bind(match: re.Match[str]) -> str:
    try:
        return _numbers()[match[0]]
    except KeyError:
        raise ContractError(f"no @struct defines {match[0]}") from None


def _fold(body: str) -> str:
    """Puts numbers in place of the constants that lines like ``local ABSENT, READY = 0, 1`` define.

    Lua 5.1 has no constants: each would be a local that every function using it captures, anew at every call of the
    script, and capturing is most of a small call's cost.
    """
    constants: dict[str, str] = {}
    lines: list[str] = []
    for line in body.split("\n"):
        found = _CONSTANTS.match(line)
        names, values = (re.split(r", ", part) for part in found.groups()) if found else ([], [])
        if found and len(names) == len(values):
            constants |= dict(zip(names, values, strict=True))
        else:
            lines.append(line)
    if not constants:
        return body
    return re.sub(r"\b(" + "|".join(constants) + r")\b(?!')", lambda name: constants[name[0]], "\n".join(lines))


def build(name: str, own: str, library: dict[str, str] | None = None) -> Verb:
    """A verb from its own text. `library` replaces parts of ``_lib`` (mutation tests use it)."""
    parts = {part: _read(f"_lib/{part}.lua") for part in _tags(own, "include")} | (library or {})
    body = "\n".join([*(parts[part] for part in _tags(own, "include")), own])
    text = _fold(re.sub(r"\b(?:[MNSBCRXTP]|RX|RXT|RT|XT)_[A-Z0-9_]+\b", _bind, body))
    return Verb(
        name, tuple(_tags(own, "arg")), tuple(_tags(own, "args")), tuple(_tags(own, "reply")), tuple(_tags(own, "keys")), text
    )


@cache
def verbs() -> dict[str, Verb]:
    """Every verb by name."""
    names = [entry.name for entry in (files("sourcebus.bus") / "lua").iterdir() if entry.name.endswith(".lua")]
    return {name[:-4]: build(name[:-4], _read(name)) for name in sorted(names)}
