"""Secrets at rest: encrypted with Fernet (AES-128-CBC and HMAC-SHA256), readable only with the installation's key."""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from sourcebus.errors import CatalogError, InvalidInput

_HOW_TO_MAKE = (
    'make one: python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
    " and set it as SOURCEBUS_SECRET_KEY"
)


class Vault:
    """Locks and unlocks secrets. `keys` is one Fernet key, or several with commas between: the first one encrypts, all
    of them decrypt, so a key is changed by putting the new one in front. None: nothing can be locked or unlocked."""

    def __init__(self, keys: str | None) -> None:
        names = [key.strip() for key in (keys or "").split(",") if key.strip()]
        try:
            self._fernet = MultiFernet([Fernet(key) for key in names]) if names else None
        except ValueError:
            raise InvalidInput("secret_key", "is not a Fernet key (32 bytes in URL-safe base64)", _HOW_TO_MAKE) from None

    def lock(self, secret: str | None, field: str = "secret") -> bytes | None:
        """The token to store. InvalidInput for `field` where there is a secret and no key."""
        if secret is None:
            return None
        if self._fernet is None:
            raise InvalidInput(field, "cannot be stored without a key to encrypt it with", _HOW_TO_MAKE)
        return self._fernet.encrypt(secret.encode("utf-8", "surrogatepass"))

    def seal(self, data: bytes) -> bytes | None:
        """`data` encrypted; None where there is no key to do it with."""
        return None if self._fernet is None else self._fernet.encrypt(data)

    def unseal(self, token: bytes | None) -> bytes | None:
        """What was sealed; None where nothing was, or no key that is set can open it."""
        try:
            return None if token is None or self._fernet is None else self._fernet.decrypt(bytes(token))
        except InvalidToken:
            return None

    def unlock(self, token: bytes | None, source_id: str) -> str | None:
        """The secret again. CatalogError where no key that is set can open it."""
        if token is None:
            return None
        try:
            if self._fernet is None:
                raise InvalidToken
            return self._fernet.decrypt(bytes(token)).decode("utf-8", "surrogatepass")
        except InvalidToken:
            raise CatalogError(
                f"the secret of source {source_id!r} cannot be decrypted: set SOURCEBUS_SECRET_KEY to the key that it was"
                " stored with (old keys go after the new one, separated by commas)"
            ) from None
