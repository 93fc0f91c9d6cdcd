"""One frozen `Settings`, read once per process from the environment (``SOURCEBUS_…``) and an optional ``.env``-like file.

Every number carries its unit in its name. `docs/settings.md` lists them all; a test keeps the list true.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """How one installation runs. Each field is the environment variable ``SOURCEBUS_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="SOURCEBUS_", frozen=True, extra="ignore")

    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="Redis ≥ 6.2 or Valkey ≥ 7.2; unix:// works too")
    database_url: str = Field(default="sqlite:///sourcebus.db", description="SQLAlchemy URL: SQLite or postgresql+psycopg")
    bus_name: str = Field(
        default="sourcebus", description="prefix and hash tag of every Redis key", pattern=r"^[A-Za-z0-9_.-]{1,64}$"
    )
    sink_url: str | None = Field(default=None, description="also POST every indexed and deleted document to this URL, as JSON")
    data_dir: Path = Field(
        default=Path("sourcebus-data"), description="where `sourcebus up` keeps its server's data and its database"
    )
    secret_key: SecretStr | None = Field(
        default=None, description="Fernet key that encrypts secrets at rest; `up` makes one in DATA"
    )
    api_url: str = Field(default="http://127.0.0.1:8080", description="address that the command line shows to people")

    public_url: str | None = Field(
        default=None,
        description="address under which providers reach this gateway; without it nothing is subscribed",
        pattern="^https?://[^/?#]+",
    )

    lease_ms: int = Field(default=30_000, ge=1_000, description="a lease not extended for this long is lost")
    claim_batch: int = Field(default=128, ge=1, le=1_000, description="most events claimed at once while extractions are fast")
    claim_ms: int = Field(
        default=20, ge=1, description="most milliseconds of work claimed at once; what is slower comes singly"
    )
    slow_ms: int = Field(default=250, ge=1, description="an extraction slower than this gives back what was claimed with it")
    slice_ms: int = Field(default=15_000, ge=100, description="a consumer works this long before it invites a successor")
    commit_ms: int = Field(default=25, ge=0, description="results wait at most this long for others to share a transaction")
    extract_timeout_ms: int = Field(default=600_000, ge=1_000, description="an extraction that runs longer loses its lease")
    waiting_consumers: int = Field(default=1, ge=0, le=64, description="idle consumers kept waiting for the next event")
    watch_step_ms: int = Field(default=2, ge=1, le=1_000, description="changes this close together come in one batch")
    delete_share: float = Field(default=0.5, gt=0, le=1, description="a listing that would delete more of a source is held")
    max_body_bytes: int = Field(default=8_388_608, ge=1_024, description="a larger HTTP request body is refused with 413")
    max_events: int = Field(default=10_000, ge=1, le=10_000, description="a larger batch of events is refused with 413")
    max_hook_bytes: int = Field(default=26_214_400, ge=1_024, description="a larger delivery to a hook is refused with 413")
    hook_rate: float = Field(
        default=1_000,
        gt=0,
        description="deliveries per second and source that a gateway takes; a minute's worth may come at once",
    )
    hook_seen: int = Field(default=20_000, ge=1, description="deliveries of each source that are known when they come again")
    hook_log: int = Field(default=50, ge=1, le=1_000, description="deliveries of each source that are kept to be looked at")
    allowed_hosts: frozenset[str] = Field(
        default=frozenset(),
        description="JSON list of host names the gateway answers to, beside loopback, IP addresses, API_URL's and PUBLIC_URL's",
    )
    metrics_sources: int = Field(
        default=500, ge=0, description="sources with their own lines in /metrics; the rest are added up"
    )
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", description="least severe log event shown")
    log_json: bool = Field(default=False, description="log as JSON lines instead of text")
