"""What botocore's exceptions mean: the codes of S3 and SQS, and of the servers that imitate them.

Sources: Amazon S3 API Reference, "Error responses"; Amazon SQS API Reference, "Common errors"; MinIO's ``api-errors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
)

from sourcebus.connectors.http import retry_after_ms
from sourcebus.errors import ConnectorError, NeedsAuth, SourceUnavailable, Throttled

THROTTLED = frozenset(
    {
        *("SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "BandwidthLimitExceeded"),
        *("RequestLimitExceeded", "TooManyRequests", "TooManyRequestsException", "LimitExceededException", "OverLimit"),
        *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException"),
        *("ProvisionedThroughputExceededException", "PriorRequestNotComplete", "KmsThrottled", "KMS.ThrottlingException"),
    }
)
_REFUSED = frozenset(
    {
        *("AccessDenied", "AccessDeniedException", "AllAccessDisabled", "AccountProblem", "NotSignedUp", "InvalidSecurity"),
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed", "IncompleteSignature"),
        *("ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidClientTokenId", "TokenRefreshRequired"),
        *("MissingAuthenticationToken", "UnrecognizedClientException", "OptInRequired", "InvalidTokenId"),
    }
)
_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound, SSOError)
_HINTS = {
    "RequestTimeTooSkewed": ": this machine's clock is wrong",
    "PermanentRedirect": ": set the bucket's own region",
    "AuthorizationHeaderMalformed": ": is the region the bucket's own?",
    "NoSuchBucket": ": is its name right, and the endpoint?",
}


def code_of(error: ClientError) -> str:
    """The provider's word for it; for an answer without a body (HEAD) the status in digits."""
    return str(cast("dict[str, Any]", error.response).get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status, 0 where there was none."""
    return int(_metadata(error).get("HTTPStatusCode", 0))


def headers_of(error: ClientError) -> Mapping[str, str]:
    """The answer's headers, names in lower case."""
    return cast("Mapping[str, str]", _metadata(error).get("HTTPHeaders", {}))


def meaning(error: ClientError | BotoCoreError, asked: str) -> ConnectorError:
    """What a failure means for the whole source. `asked` says for people what was asked, without any secret.

    That one object is refused or absent is for `bucket` to find out: it depends on what was asked.
    """
    if isinstance(error, _CREDENTIALS):
        return NeedsAuth(f"{asked}: {error}")
    if isinstance(error, BotoCoreError):
        return SourceUnavailable(f"{asked}: {type(error).__name__}: {error}")
    code, status, headers = code_of(error), status_of(error), headers_of(error)
    said = f"{asked}: {code or 'HTTP ' + str(status)}{_HINTS.get(code, '')}"
    if code in THROTTLED or status == 429 or (status == 503 and _by_the_service(headers)):
        return Throttled(said, retry_after_ms(headers))
    if code in _REFUSED or status in (401, 403):
        return NeedsAuth(said)
    return SourceUnavailable(said)


def _by_the_service(headers: Mapping[str, str]) -> bool:
    """A 503 of S3 itself asks to slow down, also where it has no body to say so (HEAD); a proxy's means an outage."""
    return "x-amz-request-id" in headers or "retry-after" in headers


def _metadata(error: ClientError) -> Mapping[str, Any]:
    return cast("dict[str, Any]", error.response).get("ResponseMetadata", {})
