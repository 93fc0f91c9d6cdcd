"""A connector's configuration as a pydantic model, refused in the words that every connector uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sourcebus.errors import InvalidInput


class Configuration(BaseModel):
    """Base of configurations: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


C = TypeVar("C", bound=Configuration)


def configured(model: type[C], config: Mapping[str, Any]) -> C:
    """`config` as `model`. Raises `InvalidInput` for the first key that is wrong: ``config.read.url``."""
    try:
        return model.model_validate(dict(config))
    except ValidationError as error:
        # A key that nobody knows comes first: it may be a missing one, mistyped.
        first = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
        where = ".".join(["config", *map(str, first["loc"])])
        if first["type"] == "extra_forbidden":
            raise InvalidInput(where, "is not a setting of this connector", "see its page in docs/connectors") from None
        said = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(where, said[:1].lower() + said[1:]) from None
