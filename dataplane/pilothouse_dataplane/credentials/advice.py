"""What a user reads where she has no usable credential: what happened, that nothing was done, what to do now. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pilothouse_dataplane.connectors.base import AccountNotLinked, CredentialUnavailable


@dataclass(frozen=True, slots=True)
class Advice:
    """The sentences of one connector."""

    system: str
    self_service: bool = False
    """The user can link the account herself."""

    def _where(self, verb: str) -> str:
        if not self.self_service:
            return f"Ask your administrator to {verb} it, then ask again."
        return f"{verb[:1].upper()}{verb[1:]} it on your accounts page, then ask again."

    def not_linked(self) -> AccountNotLinked:
        """There is none."""
        message = f"Your {self.system} account is not linked, so nothing was done there. {self._where('link')}"
        return AccountNotLinked(message, asked=False)

    def no_longer(self, why: str = "") -> AccountNotLinked:
        """There was one."""
        said = f" (“{why}”)" if why else ""
        again = self._where("link").replace("ink it", "ink it again", 1)  # “Link it …”, “… to link it”
        message = f"{self.system} no longer accepts your linked account{said}, so nothing was done there. {again}"
        return AccountNotLinked(message, asked=False)

    def not_renewed(self, why: str) -> AccountNotLinked:
        """The authorization server said no, and not whether to the user or to the application."""
        again = self._where("link").replace("ink it", "ink it again", 1)
        message = (
            f"{self.system} did not renew your linked account (“{why}”), so nothing was done there. {again} If that "
            "does not help, an administrator must correct the connector's client id or secret."
        )
        return AccountNotLinked(message, asked=False)

    def sign_in_again(self, why: str = "") -> AccountNotLinked:
        """The user's own sign-in is what gives the token."""
        said = f" (“{why}”)" if why else ""
        message = (
            f"{self.system} needs your sign-in of now{said}, and it is not at hand any more, so nothing was done "
            "there. Sign in again and ask again."
        )
        return AccountNotLinked(message, asked=False)

    def store_away(self) -> CredentialUnavailable:
        """Where linked accounts are kept can't be asked."""
        return CredentialUnavailable(
            f"Your {self.system} account can't be looked up at the moment, so nothing was sent. Ask again in a minute.",
            may_have_acted=False,
        )

    def no_secret(self, secret: str, key: str, why: str = "is not there") -> CredentialUnavailable:
        """What the connector itself needs is missing or can't be used."""
        return CredentialUnavailable(
            f"{self.system} was not asked: the connector's secret {secret} (key {key}) {why}. Trying again won't help; "
            "an administrator must correct it.",
            may_have_acted=False,
            lasting=True,
        )

    def secrets_away(self) -> CredentialUnavailable:
        """The secrets' store has not been reached since this worker began."""
        return CredentialUnavailable(
            f"{self.system} was not asked: the store of the connector's secrets can't be reached. Ask again in a "
            "minute.",
            may_have_acted=False,
        )
