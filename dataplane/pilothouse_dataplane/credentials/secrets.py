"""Reading one secret of a connector, with the sentence for a user where it can't be had."""

from __future__ import annotations

from pilothouse_api.workerconfig import SecretValue
from pilothouse_dataplane.connectors.base import SecretText
from pilothouse_dataplane.credentials.advice import Advice
from pilothouse_dataplane.credentials.base import SecretStore, StoreUnavailable
from pilothouse_dataplane.credentials.tokens import Client


def secret_of(secrets: SecretStore, value: SecretValue, advice: Advice) -> SecretText:
    """As last read. Raises CredentialUnavailable where it is not there, or its store was never reached."""
    try:
        text = secrets.get(value.secret, value.key)
    except KeyError:
        raise advice.no_secret(value.secret, value.key) from None
    except StoreUnavailable:
        raise advice.secrets_away() from None
    if not text.reveal().strip():
        raise advice.no_secret(value.secret, value.key, "is empty")
    return text


def client_of(secrets: SecretStore, id: SecretValue, secret: SecretValue | None, advice: Advice) -> Client:
    """The application's registration, as last read. Raises CredentialUnavailable."""
    name = secret_of(secrets, id, advice).reveal().strip()
    if secret is None:
        return Client(name)
    return Client(name, SecretText(secret_of(secrets, secret, advice).reveal().strip()))
