"""From a connector's name to the connector.

Names come from the entry-point group ``sourcebus.connectors`` of every installed package, and from `register`. Only the
connector that is asked for is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from sourcebus.connectors.base import Connector, refuse_unknown
from sourcebus.errors import InvalidInput

GROUP = "sourcebus.connectors"

Factory = Callable[[Mapping[str, Any], str | None], Connector]
"""Builds a connector from a source's config and secret."""

_registered: dict[str, Factory] = {}
_loaded: dict[str, tuple[str, Factory]] = {}


def register(name: str, connector: type[Connector] | Connector | Factory) -> None:
    """Make a connector known under `name` in this process; it takes the place of an installed one of that name.

    `connector` is a `Connector` class, a function of (config, secret), or one ready instance for a source without config.
    """
    _registered[name] = _factory(connector)


def available() -> list[str]:
    """The names that `create` knows, sorted. Imports none of them."""
    return sorted({*_registered, *(entry.name for entry in entry_points(group=GROUP))})


def create(connector: str, config: Mapping[str, Any], secret: str | None = None) -> Connector:
    """The connector of that name for one source.

    Raises `InvalidInput` for an unknown name, for one that cannot be imported, and for a config the connector refuses.
    """
    factory = _registered.get(connector) or _installed(connector)
    return factory(config, secret)


def _installed(name: str) -> Factory:
    entry = next(iter(entry_points(group=GROUP, name=name)), None)
    if entry is None:
        raise InvalidInput("connector", f"there is no connector {name!r}", "available: " + (", ".join(available()) or "none"))
    known = _loaded.get(name)
    if known is None or known[0] != entry.value:
        known = _loaded[name] = (entry.value, _load(entry))
    return known[1]


def _load(entry: EntryPoint) -> Factory:
    try:
        return _factory(entry.load())
    except Exception as error:
        raise InvalidInput(
            "connector",
            f"{entry.name!r} is installed but cannot be loaded ({type(error).__name__}: {error})",
            _repair(entry, error),
        ) from error


def _repair(entry: EntryPoint, error: Exception) -> str:
    extras = (entry.dist.metadata.get_all("Provides-Extra") or ()) if entry.dist else ()
    if isinstance(error, ImportError) and entry.dist and entry.name in extras:
        return f"pip install '{entry.dist.name}[{entry.name}]'"
    return f"repair {entry.value}, or install what it needs"


def _factory(connector: type[Connector] | Connector | Factory) -> Factory:
    if isinstance(connector, type) and issubclass(connector, Connector):
        return connector.create
    if isinstance(connector, Connector):
        return _Ready(connector)
    return cast("Factory", connector)


class _Ready:
    """The factory of a connector that exists already and takes no config."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    def __call__(self, config: Mapping[str, Any], secret: str | None) -> Connector:
        del secret
        refuse_unknown(config, ())
        return self._connector
