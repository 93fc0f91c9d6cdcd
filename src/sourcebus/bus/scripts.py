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
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, cast

from redis import Redis
from redis.exceptions import NoScriptError

from sourcebus.errors import ContractError

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

    @property
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
    """The packed values by their letter: M, S, B, R, X."""
    found = re.findall(r"^-- @struct (\w) (\w+) (.+)$", _read("_lib/layout.lua"), re.MULTILINE)
    result = {letter: Layout(letter, codes, tuple(names.split())) for letter, codes, names in found}
    for letter in "MSB":  # all doubles: one code stands for all
        result[letter] = Layout(letter, "d" * len(result[letter].fields), result[letter].fields)
    return result


@cache
def _numbers() -> dict[str, str]:
    names: dict[str, str] = {}
    for layout in layouts().values():
        first = {"X": len(layouts()["R"].fields) + 1, "S": 2, "B": 2}.get(layout.letter, 1)  # core.lua says what slot 1 is
        names |= {f"{layout.letter}_{field.upper()}": str(at) for at, field in enumerate(layout.fields, first)}
        names[f"{layout.letter}_FORMAT"] = f"'{layout.format}'"
        names[f"{layout.letter}_SIZE"] = str(len(layout.fields))
        names[f"{layout.letter}_BYTES"] = str(layout.size)
    # What scripts keep behind a value's own fields while they work on it; never stored.
    record = len(layouts()["R"].fields) + len(layouts()["X"].fields)
    names |= {f"R_{name}": str(record + at) for at, name in enumerate(("TAIL", "WAS", "DEADLINE", "TOUCHED"), 1)}
    own = len(layouts()["B"].fields) + 1
    return names | {"B_WAS_AT": str(own + 1), "B_WAS": str(own + 2)}


def _bind(match: re.Match[str]) -> str:
    try:
        return _numbers()[match[0]]
    except KeyError:
        raise ContractError(f"no @struct defines {match[0]}") from None


def build(name: str, own: str, library: dict[str, str] | None = None) -> Verb:
    """A verb from its own text. `library` replaces parts of ``_lib`` (mutation tests use it)."""
    parts = {part: _read(f"_lib/{part}.lua") for part in _tags(own, "include")} | (library or {})
    body = "\n".join([*(parts[part] for part in _tags(own, "include")), own])
    text = re.sub(r"\b[MSBRX]_[A-Z0-9_]+\b", _bind, body)
    return Verb(
        name, tuple(_tags(own, "arg")), tuple(_tags(own, "args")), tuple(_tags(own, "reply")), tuple(_tags(own, "keys")), text
    )


@cache
def verbs() -> dict[str, Verb]:
    """Every verb by name."""
    names = [entry.name for entry in (files("sourcebus.bus") / "lua").iterdir() if entry.name.endswith(".lua")]
    return {name[:-4]: build(name[:-4], _read(name)) for name in sorted(names)}
