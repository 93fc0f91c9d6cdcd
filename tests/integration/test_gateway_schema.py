"""The OpenAPI document tells the truth: schemathesis sends what it allows, and what not, and holds the answers against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
import schemathesis
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis.errors import Unsatisfiable
from pydantic import SecretStr
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks
from tests.hearing import SECRET, register_all

from sourcebus.gateway import create_app
from sourcebus.runtime import build
from sourcebus.settings import Settings

register_all()


@pytest.fixture(scope="module")
def api(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The document of a gateway with a source of each kind, so that ids that are there are met."""
    folder: Path = tmp_path_factory.mktemp("schema")
    settings = Settings(
        redis_url=redis_url,
        database_url=f"sqlite:///{folder}/catalog.db",
        bus_name=f"test-{uuid4().hex}",
        data_dir=folder,
        secret_key=SecretStr(Fernet.generate_key().decode()),
        allowed_hosts=frozenset({"testserver"}),
        log_level="error",
    )
    with build(settings) as runtime:
        for source_id, connector in (("0", "signed"), ("1", "unsigned"), ("docs", "deaf")):
            runtime.sources.add(runtime.sources.parse({"id": source_id, "connector": connector, "secret": SECRET}))
        yield schemathesis.openapi.from_asgi("/openapi.json", create_app(runtime))


# What a source's config must hold is known to its connector, and a delivery must be signed: no schema can say either.
NOT_JUDGED = [cast("Any", checks).positive_data_acceptance]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_the_answers_are_as_the_document_says(api: Any, mode: GenerationMode) -> None:
    wrong: dict[str, str] = {}
    for found in api.get_all_operations():
        operation = found.ok()
        if operation.path == "/readyz":
            continue  # 503 without a worker, as it should be
        try:
            _sends(operation, mode)
        except Unsatisfiable:
            continue  # a call without parameters can only be right
        except (FailureGroup, Failure) as failure:
            wrong[operation.label] = str(failure)
    assert not wrong, "\n\n".join(f"{label}: {said}" for label, said in wrong.items())


def _sends(operation: Any, mode: GenerationMode) -> None:
    unhealthy = [HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large]

    @examples(max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=unhealthy)
    @given(case=operation.as_strategy(generation_mode=mode))
    def every(case: Any) -> None:
        case.call_and_validate(excluded_checks=NOT_JUDGED)

    every()
