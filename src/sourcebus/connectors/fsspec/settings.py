"""A source's URL and options, checked without talking to anybody."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import fsspec

from sourcebus.errors import InvalidInput

SETTINGS = ("url", "storage_options", "include", "exclude", "max_bytes", "version")

REFUSED = (
    "simplecache", "filecache", "blockcache", "cached",  # they keep old contents
    "reference", "generic", "dask", "data", "dvc", "wandb", "jupyter", "jlab", "pyscript",  # no folder of files of their own
    "async_wrapper", "asyncwrapper", "asynclocal",
)  # fmt: skip

ARCHIVES = ("zip", "tar", "libarchive")
"""What may stand before ``::``."""

_SECRET_NAME = re.compile(r"pass(word|wd|phrase)?$|secret|token|credential|(account|private|api)_?key", re.IGNORECASE)
_OURS = ("skip_instance_cache", "use_listings_cache", "protocol", "fo", "target_protocol", "target_options", "auto_mkdir")


def url_of(config: Mapping[str, Any]) -> str:
    """``protocol://…``, or ``zip://::protocol://…`` for what is in an archive."""
    url = config.get("url")
    fix = 'give protocol://path, such as "sftp://files.example.org/srv/handbook"'
    if not isinstance(url, str) or "://" not in url or "\0" in url:
        raise InvalidInput("config.url", "is missing" if url is None else f"is {url!r}", fix)
    *archives, base = url.split("::")
    if len(archives) > 1:
        raise InvalidInput("config.url", "has more than one ::", "one archive on one filesystem can be read")
    for archive in archives:
        if archive.partition("://")[0] not in ARCHIVES:
            raise InvalidInput("config.url", f"chains {archive!r}", "before :: use one of " + ", ".join(ARCHIVES))
    for part in (*archives, base):
        _check_protocol(part.partition("://")[0])
    if "*" in url:
        raise InvalidInput("config.url", "has a * in it", "give a folder, and patterns in config.include")
    _check_path(base)
    if _password_in(base):
        raise InvalidInput("config.url", "has a password in it", "put it into the source's secret")
    return url


def options_of(config: Mapping[str, Any], secret: str | None) -> dict[str, Any]:
    """The filesystem's own options: those of the config, and over them those of the secret (a text alone is the password)."""
    given = config.get("storage_options", {})
    if not isinstance(given, dict):
        raise InvalidInput("config.storage_options", f"is {given!r}", "give an object")
    options = dict(cast("dict[str, Any]", given))
    _refuse_secrets(options, "config.storage_options")
    return _merged(options, _secret_options(secret))


def _check_protocol(protocol: str) -> None:
    untyped: Any = fsspec
    known = sorted({*untyped.available_protocols(), *ARCHIVES} - {*REFUSED})
    if protocol not in known:
        raise InvalidInput("config.url", f"has the protocol {protocol!r}", "use one of " + ", ".join(known))
    try:
        untyped.get_filesystem_class(protocol)
    except ImportError as error:
        raise InvalidInput("config.url", f"{protocol}: {error}", "install it where workers and gateway run") from error


def _check_path(base: str) -> None:
    protocol, _, path = base.partition("://")
    if protocol in ("file", "local") and (not path.startswith("/") or posixpath.normpath(path).rstrip("/") != path.rstrip("/")):
        raise InvalidInput("config.url", "is no full, plain path", 'give one such as "file:///srv/handbook"')
    if ".." in path.split("/"):
        raise InvalidInput("config.url", "has .. in it", "give the folder itself")


def _password_in(base: str) -> bool:
    try:
        return urlsplit(base).password is not None
    except ValueError:
        return False


def _refuse_secrets(options: Mapping[str, Any], field: str) -> None:
    for name, value in options.items():
        if name in _OURS:
            raise InvalidInput(f"{field}.{name}", "cannot be set here", "leave it out")
        if _SECRET_NAME.search(name) and value:
            raise InvalidInput(f"{field}.{name}", "looks like a secret", f'put it into the source\'s secret: {{"{name}": …}}')
        if isinstance(value, dict):
            _refuse_secrets(cast("dict[str, Any]", value), f"{field}.{name}")


def _secret_options(secret: str | None) -> dict[str, Any]:
    if not secret:
        return {}
    if not secret.lstrip().startswith("{"):
        return {"password": secret}
    try:
        given = json.loads(secret)
    except (ValueError, RecursionError):
        raise InvalidInput("secret", "begins like JSON but is none", "send a password, or an object of options") from None
    for name in cast("dict[str, Any]", given):
        if name in _OURS:
            raise InvalidInput("secret", f"names {name!r}", "leave it out")
    return cast("dict[str, Any]", given)


def _merged(options: dict[str, Any], secret: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in secret.items():
        below = options.get(name)
        both = isinstance(below, dict) and isinstance(value, dict)
        options[name] = _merged(dict(cast("dict[str, Any]", below)), cast("dict[str, Any]", value)) if both else value
    return options
