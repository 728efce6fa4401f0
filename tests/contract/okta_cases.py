"""What Okta's tools do for somebody who may, and how they are refused to somebody who may not."""

from __future__ import annotations

from typing import Any

from pilothouse_testing.contract import Cases, World

CASES = Cases("okta")
_NO_TOKEN = "a-token-that-was-never-given-out"


def _report(world: World) -> str:
    return world.place.facts["report"]


async def _status(world: World, user: str) -> Any:
    return (await world.call("user.get", "manager", user=user))["status"]


@CASES.allowed("user.me")
async def me(world: World) -> None:
    for who in ("employee", "manager", "contractor"):
        assert (await world.call("user.me", who))["email"] == world.place.emails[who]


@CASES.allowed("user.get", "user.search")
async def people(world: World) -> None:
    user = await world.call("user.get", user=world.place.emails["manager"])
    assert user["email"] == world.place.emails["manager"]
    assert (await world.call("user.get", user=user["id"]))["login"] == user["login"]
    for text in (user["email"], user["name"]):
        assert user["id"] in [row["id"] for row in (await world.call("user.search", text=text))["users"]]
    found = await world.call("user.search", text=user["name"], department=user["department"], status="ACTIVE")
    assert user["id"] in [row["id"] for row in found["users"]]
    nobody = 'x" or id pr or profile.login eq "'
    assert (await world.call("user.search", text=nobody))["users"] == []


@CASES.allowed("user.search", "group.members")
async def lists_go_over_pages(world: World) -> None:
    everybody = await world.call("user.search", max_results=3)
    assert len(everybody["users"]) == 3
    assert everybody["more"] is True
    whole = await world.call("user.search", max_results=50)
    assert len(whole["users"]) > 3


@CASES.allowed("user.manager")
async def my_manager(world: World) -> None:
    chief = await world.call("user.manager")
    assert chief["email"] == world.place.emails["manager"]
    assert chief["of"] == world.place.emails["employee"]
    assert chief["name"]
    same = await world.call("user.manager", "manager", user=world.place.emails["employee"])
    assert same["id"] == chief["id"]


@CASES.allowed("user.unlock", "log.search")
async def unlock(world: World) -> None:
    user = world.place.facts["locked"]
    assert await world.found("user.unlock", "k", "manager", user=user) is None
    await world.call("user.unlock", "manager", user=user)
    assert await _status(world, user) == "ACTIVE"
    assert await world.found("user.unlock", "k", "manager", user=user) is not None
    log = await world.call("log.search", "manager", user=user, event_type="user.account.unlock", hours=1)
    assert log["events"][0]["actor"] == world.place.emails["manager"]
    assert log["events"][0]["outcome"] == "SUCCESS"
    assert "Cannot" not in log["events"][0]["message"]
    refusal = await world.refusal("user.unlock", "manager", user=user)
    assert "E0000032" in refusal


@CASES.allowed("user.suspend", "user.unsuspend")
async def suspend_and_back(world: World) -> None:
    user = _report(world)
    assert await world.found("user.suspend", "k", "manager", user=user) is None
    await world.call("user.suspend", "manager", user=user)
    assert await _status(world, user) == "SUSPENDED"
    assert await world.found("user.suspend", "k", "manager", user=user) is not None
    assert await world.found("user.unsuspend", "k", "manager", user=user) is None
    assert "not active" in await world.refusal("user.suspend", "manager", user=user)
    await world.call("user.unsuspend", "manager", user=user)
    assert await world.found("user.unsuspend", "k", "manager", user=user) is not None


@CASES.allowed("user.expire_password")
async def expire_password(world: World) -> None:
    user = _report(world)
    await world.call("user.expire_password", "manager", user=user)
    assert await world.found("user.expire_password", "k", "manager", user=user) is not None


@CASES.allowed("user.reset_password")
async def reset_password(world: World) -> None:
    user = _report(world)
    assert await world.found("user.reset_password", "k", "manager", user=user) is None
    changed = await world.call("user.reset_password", "manager", user=user)
    assert "reset_password" not in str(changed)  # the link is a secret
    assert await world.found("user.reset_password", "k", "manager", user=user) is not None


@CASES.allowed("user.deactivate")
async def deactivate(world: World) -> None:
    user = world.place.facts["leaver"]
    assert await world.found("user.deactivate", "k", "manager", user=user) is None
    await world.call("user.deactivate", "manager", user=user)
    assert await world.found("user.deactivate", "k", "manager", user=user) is not None


@CASES.allowed("group.search", "group.members", "group.add_user", "group.remove_user")
async def membership(world: World) -> None:
    group, user = world.place.facts["group"], _report(world)
    found = await world.call("group.search", text=group[:3])
    assert group in [row["name"] for row in found["groups"]]

    async def members() -> list[str]:
        return [row["email"] for row in (await world.call("group.members", "manager", group=group))["members"]]

    assert user not in await members()
    assert await world.found("group.add_user", "k", "manager", group=group, user=user) is None
    for _ in range(2):  # as often as one likes
        await world.call("group.add_user", "manager", group=group, user=user)
    assert (await members()).count(user) == 1
    assert await world.found("group.add_user", "k", "manager", group=group, user=user) is not None
    assert await world.found("group.remove_user", "k", "manager", group=group, user=user) is None
    for _ in range(2):
        await world.call("group.remove_user", "manager", group=group, user=user)
    assert user not in await members()
    assert await world.found("group.remove_user", "k", "manager", group=group, user=user) is not None


@CASES.allowed("factor.list", "factor.reset")
async def my_own_token(world: World) -> None:
    before = await world.call("factor.list")
    assert before["user"] == world.place.emails["employee"]
    kind = world.place.facts["factor"]
    assert kind in [factor["type"] for factor in before["factors"]]
    assert await world.found("factor.reset", "k", type=kind) is None
    done = await world.call("factor.reset", type=kind)
    assert done["factor_id"] in [factor["id"] for factor in before["factors"]]
    left = await world.call("factor.list")
    assert kind not in [factor["type"] for factor in left["factors"]]
    assert await world.found("factor.reset", "k", type=kind) is not None
    assert await world.found("factor.reset", "k", factor_id=done["factor_id"]) is not None
    assert "no factor of the type" in await world.refusal("factor.reset", "employee", type=kind)
    assert "E0000007" in await world.refusal("factor.reset", "employee", factor_id=done["factor_id"])


@CASES.allowed("factor.reset_all")
async def all_tokens_of_a_report(world: World) -> None:
    user = _report(world)
    assert await world.found("factor.reset_all", "k", "manager", user=user) is None
    await world.call("factor.reset_all", "manager", user=user)
    assert (await world.call("factor.list", "manager", user=user))["factors"] == []
    assert await world.found("factor.reset_all", "k", "manager", user=user) is not None


@CASES.allowed("app.search", "app.assign", "app.unassign")
async def assignment(world: World) -> None:
    app, user = world.place.facts["app"], _report(world)
    found = await world.call("app.search", text=app[:4])
    assert app in [row["name"] for row in found["apps"]]
    assert await world.found("app.assign", "k", "manager", app=app, user=user) is None
    await world.call("app.assign", "manager", app=app, user=user)
    assert await world.found("app.assign", "k", "manager", app=app, user=user) is not None
    assert await world.found("app.unassign", "k", "manager", app=app, user=user) is None
    await world.call("app.unassign", "manager", app=app, user=user)
    assert await world.found("app.unassign", "k", "manager", app=app, user=user) is not None


@CASES.denied("user.me")
async def a_token_that_is_not_good(world: World) -> None:
    refusal = await world.refusal("user.me", token=_NO_TOKEN)
    assert "no longer accepts your linked account" in refusal
    assert "E0000011" in refusal
    assert _NO_TOKEN not in refusal


@CASES.denied("user.get", "user.search", "user.manager", "factor.list")
async def nobody_else_is_seen(world: World) -> None:
    other = world.place.emails["employee"]
    for tool, arguments in (
        ("user.get", {"user": other}),
        ("user.manager", {"user": other}),
        ("factor.list", {"user": other}),
        ("user.search", {"text": other}),
    ):
        refusal = await world.refusal(tool, **arguments)
        assert "okta.users.read" in refusal, refusal
        assert "You do not have permission" in refusal, refusal


@CASES.denied(
    "user.unlock",
    "user.suspend",
    "user.unsuspend",
    "user.expire_password",
    "user.reset_password",
    "user.deactivate",
    "factor.reset",
    "factor.reset_all",
)
async def nobody_is_changed(world: World) -> None:
    """Neither by one who sees nobody, nor by one who sees the directory and may change nobody else."""
    user = _report(world)
    before = await world.call("user.get", "manager", user=user)
    factors = await world.call("factor.list", "manager", user=user)
    for who in ("contractor", "employee"):
        for tool, needs, more in (
            ("user.unlock", "okta.users.lifecycle.unlock", {}),
            ("user.suspend", "okta.users.lifecycle.suspend", {}),
            ("user.unsuspend", "okta.users.lifecycle.unsuspend", {}),
            ("user.expire_password", "okta.users.credentials.expirePassword", {}),
            ("user.reset_password", "okta.users.credentials.resetPassword", {}),
            ("user.deactivate", "okta.users.lifecycle.deactivate", {}),
            ("factor.reset", "okta.users.credentials.resetFactors", {"type": factors["factors"][0]["type"]}),
            ("factor.reset", "okta.users.credentials.resetFactors", {"factor_id": factors["factors"][0]["id"]}),
            ("factor.reset_all", "okta.users.credentials.resetFactors", {}),
        ):
            refusal = await world.refusal(tool, who, user=user, **more)
            assert f"“{needs}”; ask an Okta administrator" in refusal, refusal
            assert "You do not have permission" in refusal, refusal
    assert await world.call("user.get", "manager", user=user) == before
    assert await world.call("factor.list", "manager", user=user) == factors


@CASES.denied("group.search", "group.members", "group.add_user", "group.remove_user")
async def no_groups(world: World) -> None:
    group, user = world.place.facts["group"], world.place.emails["contractor"]
    for tool, needs, arguments in (
        ("group.search", "okta.groups.read", {}),
        ("group.members", "okta.groups.read", {"group": group}),
        ("group.add_user", "okta.groups.members.manage", {"group": group, "user": user}),
        ("group.remove_user", "okta.groups.members.manage", {"group": group, "user": user}),
    ):
        refusal = await world.refusal(tool, **arguments)
        assert f"“{needs}”; ask an Okta administrator" in refusal, refusal
    assert "okta.groups.members.manage" in await world.refusal("group.add_user", "employee", group=group, user="me")


@CASES.denied("app.search", "app.assign", "app.unassign")
async def no_apps(world: World) -> None:
    app, user = world.place.facts["app"], world.place.emails["contractor"]
    for tool, needs, arguments in (
        ("app.search", "okta.apps.read", {}),
        ("app.assign", "okta.users.appAssignment.manage", {"app": app, "user": user}),
        ("app.unassign", "okta.users.appAssignment.manage", {"app": app, "user": user}),
    ):
        refusal = await world.refusal(tool, **arguments)
        assert f"“{needs}”; ask an Okta administrator" in refusal, refusal
    assert "appAssignment.manage" in await world.refusal("app.assign", "employee", app=app, user="me")


@CASES.denied("log.search")
async def no_log(world: World) -> None:
    for who in ("contractor", "employee"):
        refusal = await world.refusal("log.search", who)
        assert "“okta.logs.read”; ask an Okta administrator" in refusal
