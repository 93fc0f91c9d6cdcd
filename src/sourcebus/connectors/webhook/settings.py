"""What can be configured. Expressions are JMESPath (jmespath.org/specification.html), compiled when a source is added."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, cast

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator, Field, model_validator

from sourcebus.connectors.configuration import Configuration


def _compiles(expression: str) -> str:
    try:
        cast("Any", jmespath).compile(expression)
    except JMESPathError as error:
        raise ValueError(f"is no JMESPath expression ({str(error).splitlines()[0]})") from None
    return expression


def _is_http(url: str) -> str:
    if url != "{ref}" and not url.startswith(("http://", "https://")):
        raise ValueError('is no http(s) URL, nor "{ref}" for references that are URLs')
    return url


Expression = Annotated[str, Field(min_length=1, max_length=1_000), AfterValidator(_compiles)]
Template = Annotated[str, Field(max_length=2_000), AfterValidator(_is_http)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]


class Handshake(Configuration):
    """How the sender checks the address first: by a query field of a GET, or by a field of a JSON body, echoed."""

    echo_query: str | None = None
    echo_field: Expression | None = None
    unsigned: bool = False
    """The body with `echo_field` carries no proof yet (the secret is agreed later)."""


class Proof(Configuration):
    """How a delivery proves its sender.

    ``hmac``: `header` holds `prefix` and the keyed hash of `template`, whose fields are ``{body}``, ``{timestamp}``, ``{id}``,
    ``{url}`` and ``{method}``. ``standard-webhooks``: standardwebhooks.com, v1 and v1a. ``bearer``: the secret is a token in
    ``Authorization``. ``header``: `header` holds the secret itself. ``path``: only the hook's address is secret.
    """

    kind: Literal["hmac", "standard-webhooks", "bearer", "header", "path"]
    header: HeaderName | None = None
    digest: Literal["sha1", "sha256", "sha384", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    template: str = "{body}"
    timestamp_header: HeaderName | None = None
    id_header: HeaderName | None = None
    window_s: float = Field(default=300.0, gt=0, le=86_400)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind in ("hmac", "header") and self.header is None:
            raise ValueError(f"the kind {self.kind} needs header: the name of the header to look at")
        if self.kind == "hmac" and "{body}" not in self.template:
            raise ValueError("the template lacks {body}: it would prove nothing about what was sent")
        for name, needed in (("{timestamp}", self.timestamp_header), ("{id}", self.id_header)):
            if name in self.template and needed is None:
                raise ValueError(f"the template has {name}, so {name[1:-1]}_header is needed")
        return self


class Read(Configuration):
    """How an object is read. `url` has ``{ref}`` (percent-encoded whole) or ``{path}`` (slashes kept); alone, ``{ref}`` is the
    URL itself.

    `version` is an expression on a JSON answer, `version_header` names a header (an ETag, say); without either, or where the
    answer lacks it, the version is a hash of the content. `text` and `title` are expressions on a JSON answer.
    """

    url: Template
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    version_header: HeaderName | None = "ETag"
    version: Expression | None = None
    text: Expression | None = None
    title: Expression | None = None
    media_type: str | None = None


class Inline(Configuration):
    """The content is in the payload: expressions on the item give its text and title."""

    text: Expression
    title: Expression | None = None
    media_type: str = "text/plain"


class Listing(Configuration):
    """How all objects are listed, for reconciling: pages of JSON. `next` gives the next page's URL, null at the end."""

    url: Template
    items: Expression = "@"
    ref: Expression
    version: Expression | None = None
    next: Expression | None = None


class WebhookSettings(Configuration):
    """A source of the connector ``webhook``. Expressions see the item; `items` picks one or many from the payload."""

    proof: Proof
    handshake: Handshake = Handshake()
    items: Expression = "@"
    ref: Expression
    kind: Expression | None = None
    kinds: dict[str, Literal["created", "updated", "deleted", "scan", "ignore"]] = Field(default_factory=dict)
    version: Expression | None = None
    order: Expression | None = None
    delivery_id: Expression | None = None
    delivery_header: HeaderName | None = None
    read: Read | None = None
    inline: Inline | None = None
    list: Listing | None = None

    @model_validator(mode="after")
    def _one_way_to_read(self) -> Self:
        if self.read is not None and not ("{ref}" in self.read.url or "{path}" in self.read.url):
            raise ValueError("read.url names no object: put {ref} or {path} in it")
        if (self.read is None) == (self.inline is None):
            raise ValueError("give either read (how to get an object) or inline (its content is in the payload)")
        if self.inline is not None and self.list is not None:
            raise ValueError("list goes with read: objects that come in payloads are listed from what came")
        return self


class CloudEventsSettings(WebhookSettings):
    """A source of the connector ``cloudevents``: the same, for items that are CloudEvents in their structured form."""

    ref: Expression = "subject || id"
    kind: Expression | None = "type"
    allowed_origins: frozenset[str] = frozenset()
    """Origins that may ask, by OPTIONS, whether they may deliver here; ``*`` for any."""
    allowed_rate: int = Field(default=600, ge=1)
    """Deliveries per minute that are granted to one that asks."""
