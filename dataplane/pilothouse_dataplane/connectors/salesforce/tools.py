"""What the Salesforce connector offers to models. The parameters are a contract: planners name them.

How a write whose outcome is not known is settled:

- a creation is an upsert by ``Pilothouse_Key__c`` where the object has this field (see ``keys.py``), and is looked up
  by it: AUTHORITATIVE. Where the field is missing, the look-up fails and says so, and the user is told of the doubt;
- an update and an upsert by an external id set the same fields to the same values again: idempotent. That the record
  has these values is proof, other values are none: EVENTUAL;
- a deleted record is answered as deleted for 15 days: AUTHORITATIVE; one that is just not found proves nothing;
- a composite request can be told by none of these: NONE.
"""

from __future__ import annotations

from typing import Any

from pilothouse_dataplane.connectors.salesforce.composite import MOST
from pilothouse_dataplane.connectors.shape import a_count, a_text, parameters, result
from pilothouse_dataplane.core.messages import Effect, Lookup, Tool

_OBJECT = a_text("API name, e.g. Account, Case, Invoice__c", 80, 1)
_IDS = (r"\b(?:00[1-9A-Z]|500|701|801|a[0-9A-Za-z]{2})[0-9A-Za-z]{12}(?:[0-9A-Za-z]{3})?\b",)
"""Record ids: the prefix of the object, then 12 characters, and 3 that guard against wrong case."""
_ID = a_text("Record id, 15 or 18 characters", 18, 15)
_FIELDS = {"type": "object", "description": "API names of fields and their values", "minProperties": 1}
_NAMES = {"type": "array", "items": {"type": "string", "maxLength": 80}, "maxItems": 100}
_KEY_BY = "external id"
_RECORD = result("object", "id", "url")


def _listed(name: str, **kinds: str) -> dict[str, Any]:
    schema = result(**{name: "array"}, **kinds)
    schema["properties"][name] = {"type": "array", "items": {"type": "object"}}
    return schema | {"required": [name]}


def _described(items: dict[str, Any], description: str) -> dict[str, Any]:
    return items | {"description": description}


def salesforce_tools(connector: str) -> tuple[Tool, ...]:
    """The tools of a connector of that name."""

    def read(
        name: str, sentence: str, schema: dict[str, Any], returns: dict[str, Any], keywords: tuple[str, ...]
    ) -> Tool:
        return Tool(
            f"{connector}.{name}",
            sentence,
            schema,
            Effect.READ,
            returns=returns,
            keywords=keywords,
            patterns=_IDS if "id" in schema["required"] else (),
        )

    def write(
        name: str,
        sentence: str,
        schema: dict[str, Any],
        returns: dict[str, Any],
        keywords: tuple[str, ...],
        *,
        effect: Effect = Effect.WRITE,
        lookup: Lookup = Lookup.NONE,
        idempotent: bool = False,
        key_by: str = "",
    ) -> Tool:
        return Tool(
            f"{connector}.{name}",
            sentence,
            schema,
            effect,
            lookup,
            returns=returns,
            idempotent=idempotent,
            key_by=key_by,
            keywords=keywords,
            patterns=_IDS if "id" in schema["required"] else (),
        )

    return (
        read(
            "query.run",
            "Run a SOQL query in Salesforce: one SELECT.",
            parameters({"query": a_text("SOQL, one SELECT", 8000, 1), "max_results": a_count(200, 50)}, "query"),
            _listed("records", total="integer", more="boolean"),
            (
                "soql",
                "report",
                "count",
                "how many",
                "top",
                "total",
                "list",
                "deals",
                "leads",
                "pipeline",
                "revenue",
                "accounts",
                "contacts",
            ),
        ),
        read(
            "search.run",
            "Find Salesforce records by words in any of their fields.",
            parameters(
                {
                    "text": a_text("Words", 200, 2),
                    "objects": _described(_NAMES, "API names of objects; default Account and Contact"),
                    "max_results": a_count(100, 20),
                },
                "text",
            ),
            _listed("records", more="boolean"),
            ("sosl", "look up", "customer", "contact", "phone", "company", "person", "mentions", "anywhere"),
        ),
        read(
            "object.list",
            "Which kinds of records Salesforce has, with their API names.",
            parameters({"text": a_text("Part of the name", 80), "max_results": a_count(200, 50)}),
            _listed("objects", more="boolean"),
            ("sobject", "schema", "table", "custom object"),
        ),
        read(
            "object.describe",
            "The fields of a kind of Salesforce record: API names, types, choices, which are required.",
            parameters({"object": _OBJECT, "text": a_text("Part of a field's name", 80)}, "object"),
            _listed("fields", object="string", label="string"),
            ("schema", "picklist", "columns", "metadata", "mandatory", "required", "stage", "values"),
        ),
        read(
            "record.get",
            "Read one Salesforce record by its id.",
            parameters(
                {"object": _OBJECT, "id": _ID, "fields": _described(_NAMES, "API names; default all")}, "object", "id"
            ),
            result("object", "id", "url", record="object"),
            ("open", "show", "details", "deal", "contact", "lead"),
        ),
        write(
            "record.create",
            "Create a Salesforce record as the user.",
            parameters({"object": _OBJECT, "fields": _FIELDS}, "object", "fields"),
            _RECORD,
            ("new", "add", "lead", "task", "contact", "deal", "contract", "account", "customer", "log a call"),
            lookup=Lookup.AUTHORITATIVE,
            key_by=_KEY_BY,
        ),
        write(
            "record.update",
            "Change fields of a Salesforce record.",
            parameters({"object": _OBJECT, "id": _ID, "fields": _FIELDS}, "object", "id", "fields"),
            _RECORD,
            (
                "edit",
                "set",
                "stage",
                "owner",
                "close date",
                "amount",
                "deal",
                "contact",
                "customer",
                "account",
                "phone",
                "address",
                "website",
            ),
            lookup=Lookup.EVENTUAL,
            idempotent=True,
        ),
        write(
            "record.upsert",
            "Create or change the Salesforce record that has this value in an external-id field.",
            parameters(
                {
                    "object": _OBJECT,
                    "external_field": a_text("API name of the external-id field", 80, 1),
                    "external_id": a_text("Its value", 255, 1),
                    "fields": _FIELDS,
                },
                "object",
                "external_field",
                "external_id",
                "fields",
            ),
            result("object", "id", "external_id", created="boolean"),
            ("sync", "import", "external id", "insert or update"),
            lookup=Lookup.EVENTUAL,
            idempotent=True,
            key_by=_KEY_BY,
        ),
        write(
            "record.delete",
            "Delete a Salesforce record.",
            parameters({"object": _OBJECT, "id": _ID}, "object", "id"),
            result("object", "id"),
            ("remove", "trash", "duplicate", "lead", "contact", "deal"),
            effect=Effect.DESTRUCTIVE,
            lookup=Lookup.AUTHORITATIVE,
        ),
        read(
            "account.search",
            "Find customers (accounts) in Salesforce by name, with owner and owner's e-mail.",
            parameters({"name": a_text("Part of the account's name", 200), "max_results": a_count(50, 10)}),
            _listed("accounts", more="boolean", owner="string", owner_email="string"),
            (
                "company",
                "client",
                "prospect",
                "account manager",
                "account executive",
                "responsible",
                "who owns",
                "sales rep",
            ),
        ),
        read(
            "account.get",
            "One Salesforce account: owner, phone, how many deals and cases are open.",
            parameters({"account": a_text("The account's whole name, or its id", 255, 1)}, "account"),
            result("id", "name", "owner", "owner_email", "url", phone="string"),
            ("company", "client", "customer", "account owner", "sales rep", "overview", "summary", "opportunities"),
        ),
        write(
            "case.create",
            "Open a customer case in Salesforce as the user.",
            parameters(
                {
                    "subject": a_text("One line", 255, 1),
                    "description": a_text("Plain text", 16_000),
                    "priority": a_text("Such as Low, Medium, High", 40),
                    "origin": a_text("Such as Phone, Email, Web", 40),
                    "type": a_text("One of the organization's case types", 40),
                    "account": a_text("Id of the account", 18),
                    "contact": a_text("Id of the contact", 18),
                },
                "subject",
            ),
            _RECORD,
            ("ticket", "support", "complaint", "complains", "customer problem"),
            lookup=Lookup.AUTHORITATIVE,
            key_by=_KEY_BY,
        ),
        write(
            "composite.run",
            "Do several Salesforce reads, creations and changes at once: all or none. A later step may use an earlier "
            "one's result as a whole value, such as @{ref.id}.",
            parameters(
                {
                    "steps": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": MOST,
                        "items": {
                            "type": "object",
                            "properties": {
                                "ref": a_text("The step's own name", 40, 1),
                                "action": a_text("What to do", 10, 1, enum=["get", "create", "update"]),
                                "object": _OBJECT,
                                "id": a_text("Record id, or a reference; not for create", 130),
                                "fields": _FIELDS,
                                "read": _described(_NAMES, "For get: API names of fields"),
                            },
                            "required": ["ref", "action", "object"],
                            "additionalProperties": False,
                        },
                    }
                },
                "steps",
            ),
            _listed("steps"),
            ("together", "transaction", "batch", "several", "all or nothing", "atomic"),
        ),
        read(
            "report.list",
            "The Salesforce reports that the user has viewed last.",
            parameters({"text": a_text("Part of the report's name", 100)}),
            _listed("reports"),
            ("dashboard", "analytics", "recent", "saved", "lately"),
        ),
        read(
            "report.run",
            "Run a Salesforce report and read its rows and totals.",
            parameters({"id": a_text("The report's id", 18, 15), "max_results": a_count(200, 100)}, "id"),
            result("id", "name", rows="array", totals="object", more="boolean"),
            ("analytics", "numbers", "figures", "pipeline", "forecast", "dashboard"),
        ),
        read(
            "knowledge.search",
            "Find published articles in Salesforce Knowledge.",
            parameters(
                {
                    "text": a_text("Words", 200, 2),
                    "language": a_text("Such as en_US, the default", 5),
                    "max_results": a_count(20, 5),
                },
                "text",
            ),
            _listed("articles"),
            ("how to", "article", "help", "faq", "policy", "customers ask"),
        ),
    )
