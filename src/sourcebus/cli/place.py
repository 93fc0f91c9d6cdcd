"""Which installation a command speaks to.

`sourcebus up` writes ``instance.json`` and ``secret.key`` into its data folder; other commands find it there. An
explicit ``--data`` beats the environment, the environment beats the default folder's instance.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sourcebus.errors import InvalidInput, SourcebusError

if TYPE_CHECKING:
    from sourcebus.runtime import Runtime
    from sourcebus.settings import Settings

DEFAULT_DATA = Path("sourcebus-data")
INSTANCE = "instance.json"
SECRET_KEY = "secret.key"
_ADDRESSES = ("redis_url", "database_url", "api_url")

DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Data folder of the `sourcebus up` to speak to.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON on standard output.")]


class NotRunning(SourcebusError):
    """No installation is known here: no data folder of `sourcebus up`, and no address in the environment."""


def data_dir(given: Path | None) -> Path:
    """The data folder that is meant: the flag, else SOURCEBUS_DATA_DIR, else ``sourcebus-data`` here."""
    return (given or Path(os.environ.get("SOURCEBUS_DATA_DIR") or DEFAULT_DATA)).expanduser().absolute()


def read_instance(data: Path) -> dict[str, Any]:
    """What `sourcebus up` wrote about itself, {} if it never ran on this folder."""
    try:
        found: object = json.loads((data / INSTANCE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def settings_for(given: Path | None) -> Settings:
    """The settings of the installation meant by `given`; NotRunning if there is none to speak to.

    They are exported to this process's environment too: `sourcebus.worker` reads them there.
    """
    data = data_dir(given)
    instance = read_instance(data)
    named = any(os.environ.get(f"SOURCEBUS_{name.upper()}") for name in ("redis_url", "database_url"))
    if not instance and (given is not None or not named):
        raise NotRunning(
            f"no sourcebus has run on {visible_path(data)}; start one: sourcebus up --data {visible_path(data)}"
            ", or say where it is: --data DIR, or SOURCEBUS_REDIS_URL and SOURCEBUS_DATABASE_URL"
        )
    for name in _ADDRESSES:
        variable = f"SOURCEBUS_{name.upper()}"
        if name in instance and (given is not None or not os.environ.get(variable)):
            os.environ[variable] = str(instance[name])
    key = data / SECRET_KEY
    if instance and key.exists() and (given is not None or not os.environ.get("SOURCEBUS_SECRET_KEY")):
        os.environ["SOURCEBUS_SECRET_KEY"] = key.read_text("ascii").strip()
    os.environ["SOURCEBUS_DATA_DIR"] = str(data)
    return load_settings()


def load_settings() -> Settings:
    """The settings in the environment; InvalidInput names the variable that cannot be used."""
    from pydantic import ValidationError

    from sourcebus.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise InvalidInput(f"SOURCEBUS_{name}", first["msg"], "see docs/settings.md") from None


@contextmanager
def opened(given: Path | None, *, inviting: bool = False) -> Generator[Runtime]:
    """The parts of the installation, put together. `inviting`: what is emitted wakes a worker at once, not at the next tick."""
    settings = settings_for(given)
    from sourcebus.runtime import build

    if inviting:
        from sourcebus.worker import invite
    else:
        invite = None
    with build(settings, invite=invite) as runtime:
        yield runtime


def visible_path(path: Path) -> str:
    """A path as it would be typed from here: relative where that is shorter."""
    try:
        short = str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
    return short if short != "." else str(path)
