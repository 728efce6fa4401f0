"""Who may see the fleet and act on it: Kubernetes decides, by TokenReview (audience ``pilothouse-fleet``) and
SubjectAccessReview. To see takes ``get fleets.pilothouse.dev``, in the tenant's namespace where one tenant is asked
for; each action takes a verb and a resource of its own, in the tenant's namespace."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pilothouse_api import names
from pilothouse_dataplane.gateway.kube import KubeError

_CACHE_SECONDS = 30.0
_CACHE_ENTRIES = 1_000
_PARALLEL = 8
_RESOURCE = f"fleets.{names.GROUP}"
_SEE = ("get", "fleets")


class Unauthenticated(Exception):
    """The caller must present a (new) token."""


class Denied(Exception):
    """An administrator of the cluster must grant the role that the message names."""


class Unavailable(Exception):
    """The API server does not answer; the caller may try again."""


class KubeRequests(Protocol):
    """The part of the Kubernetes client that reviews need."""

    async def request(self, method: str, path: str, *, body: object = None) -> dict[str, Any]:
        """One JSON request."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as Kubernetes knows them."""

    name: str
    uid: str
    groups: tuple[str, ...]
    extra: tuple[tuple[str, tuple[str, ...]], ...]


class Authorizer:
    """Reviews with a cache of 30 s (allowed and denied alike), keyed by the token's hash."""

    def __init__(self, kube: KubeRequests) -> None:
        self._kube = kube
        self._users: OrderedDict[str, tuple[float, Caller | None]] = OrderedDict()
        self._rights: OrderedDict[tuple[str, str], tuple[float, bool]] = OrderedDict()
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def visible(self, token: str | None, tenant: str, tenants: Mapping[str, str]) -> frozenset[str] | None:
        """The tenants that the caller may see; None means all, of now and later.

        ``tenant``: the one asked for, or empty; ``tenants``: name → namespace of all. Raises :class:`Unauthenticated`,
        :class:`Denied` or :class:`Unavailable`.
        """
        user, key = await self._user(token)
        if tenant:
            namespace = tenants.get(tenant)
            if namespace is not None and await self._may(user, key, namespace):
                return frozenset({tenant})
            raise Denied(
                f"{user.name} may not see tenant {tenant}, or there is none. It needs `get {_RESOURCE}` in its "
                f"namespace: bind a role that allows it there, or the cluster role of {names.SRE_SERVICE_ACCOUNT}."
            )
        if await self._may(user, key, ""):
            return None
        rights = await asyncio.gather(*(self._may(user, key, namespace) for namespace in tenants.values()))
        allowed = frozenset(name for name, may in zip(tenants, rights, strict=True) if may)
        if not allowed:
            raise Denied(
                f"{user.name} may not see any tenant. It needs `get {_RESOURCE}`: bind the cluster role of "
                f"{names.SRE_SERVICE_ACCOUNT}, or a role that allows it in the namespaces it should see."
            )
        return allowed

    async def permit(
        self, token: str | None, verb: str, resource: str, tenant: str, tenants: Mapping[str, str]
    ) -> Caller:
        """Who acts on this tenant, where they may: ``verb`` on ``resource`` (plural) in the tenant's namespace.

        Asked anew each time: a right that was taken away must not act for another 30 s. Raises like :meth:`visible`.
        """
        user, _ = await self._user(token)
        namespace = tenants.get(tenant)
        if namespace is None or not await self._review_right(user, (verb, resource), namespace):
            raise Denied(
                f"{user.name} may not do this to tenant {tenant}, or there is none. Nothing was done. It needs "
                f"`{verb} {resource}.{names.GROUP}` in its namespace: bind a role that allows it there, or the cluster "
                f"role of {names.SRE_SERVICE_ACCOUNT}."
            )
        return user

    async def _user(self, token: str | None) -> tuple[Caller, str]:
        if not token:
            raise Unauthenticated(
                f"No token came. Send `authorization: Bearer <token>` with a token of audience {names.FLEET_AUDIENCE}."
            )
        key = hashlib.sha256(token.encode()).hexdigest()
        cached = self._users.get(key)
        if cached is None or cached[0] < time.monotonic():
            review = await self._review(
                "/apis/authentication.k8s.io/v1/tokenreviews",
                {
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenReview",
                    "spec": {"token": token, "audiences": [names.FLEET_AUDIENCE]},
                },
            )
            cached = (time.monotonic() + _CACHE_SECONDS, _user_of(review))
            _remember(self._users, key, cached)
        if cached[1] is None:
            raise Unauthenticated(
                "The token is not valid for this cluster, has expired, or is not of audience "
                f"{names.FLEET_AUDIENCE}. Make a new one: kubectl create token {names.SRE_SERVICE_ACCOUNT} "
                f"-n {names.SYSTEM_NAMESPACE} --audience {names.FLEET_AUDIENCE}."
            )
        return cached[1], key

    async def _may(self, user: Caller, token_key: str, namespace: str) -> bool:
        key = (token_key, namespace)
        cached = self._rights.get(key)
        if cached is None or cached[0] < time.monotonic():
            may = await self._review_right(user, _SEE, namespace)
            cached = (time.monotonic() + _CACHE_SECONDS, may)
            _remember(self._rights, key, cached)
        return cached[1]

    async def _review_right(self, user: Caller, right: tuple[str, str], namespace: str) -> bool:
        verb, resource = right
        async with self._slots:
            review = await self._review(
                "/apis/authorization.k8s.io/v1/subjectaccessreviews",
                {
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SubjectAccessReview",
                    "spec": {
                        "user": user.name,
                        "uid": user.uid,
                        "groups": list(user.groups),
                        "extra": {name: list(values) for name, values in user.extra},
                        "resourceAttributes": {
                            "verb": verb,
                            "group": names.GROUP,
                            "resource": resource,
                            **({"namespace": namespace} if namespace else {}),
                        },
                    },
                },
            )
        return review.get("status", {}).get("allowed") is True

    async def _review(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._kube.request("POST", path, body=body)
        except KubeError as error:
            raise Unavailable(
                f"Who may see the fleet could not be checked ({error}). Try again in a moment."
            ) from error


def _user_of(review: Mapping[str, Any]) -> Caller | None:
    status = review.get("status", {})
    # A server that knows no audiences leaves them out: then the token was not checked for ours, and is refused.
    if status.get("authenticated") is not True or names.FLEET_AUDIENCE not in (status.get("audiences") or ()):
        return None
    user = status.get("user", {})
    return Caller(
        name=user.get("username", ""),
        uid=user.get("uid", ""),
        groups=tuple(user.get("groups") or ()),
        extra=tuple((name, tuple(values)) for name, values in (user.get("extra") or {}).items()),
    )


def _remember(cache: OrderedDict[Any, Any], key: object, value: object) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > _CACHE_ENTRIES:
        cache.popitem(last=False)
