"""Objects and their fields, as describe tells them. Only what integrations use is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_SOAP = {
    "id": "tns:ID", "reference": "tns:ID", "boolean": "xsd:boolean", "double": "xsd:double", "currency": "xsd:double",
    "percent": "xsd:double", "int": "xsd:int", "date": "xsd:date", "datetime": "xsd:dateTime",
}  # fmt: skip
_NUMBERS = {"double", "currency", "percent", "int"}
_TEXTS = {"string", "textarea", "picklist", "email", "phone", "url"}


@dataclass(frozen=True)
class Field:
    """A field; ``kind`` is describe's type, ``refers`` the object that a reference points to."""

    name: str
    label: str
    kind: str = "string"
    length: int = 0
    required: bool = False
    createable: bool = True
    updateable: bool = True
    external_id: bool = False
    refers: str = ""
    values: tuple[str, ...] = ()
    """Of a picklist; ``restricted`` ones take no other."""
    restricted: bool = False
    default: Any = None

    @property
    def relationship(self) -> str:
        """The name of the way to the record that a reference points to: Owner for OwnerId; "" where there is none."""
        if not self.refers:
            return ""
        return self.name[:-1] + "r" if self.name.endswith("__c") else self.name.removesuffix("Id")

    @property
    def filterable(self) -> bool:
        """Long texts can't be compared in a query."""
        return self.kind != "textarea"

    def describe(self, *, createable: bool, updateable: bool) -> dict[str, Any]:
        """The field as sObject describe shows it to a user with these rights."""
        return {
            "name": self.name,
            "label": self.label,
            "type": self.kind,
            "soapType": _SOAP.get(self.kind, "xsd:string"),
            "length": self.length if self.kind in _TEXTS else 18 if self.kind in ("id", "reference") else 0,
            "precision": 18 if self.kind in _NUMBERS else 0,
            "scale": 2 if self.kind in ("currency", "double", "percent") else 0,
            "nillable": not self.required and self.kind not in ("id", "boolean"),
            "createable": createable,
            "updateable": updateable,
            "custom": self.name.endswith("__c"),
            "externalId": self.external_id,
            "unique": self.external_id,
            "idLookup": self.external_id or self.kind == "id",
            "filterable": self.filterable,
            "sortable": self.filterable,
            "defaultedOnCreate": self.default is not None or self.kind == "boolean" or self.name == "OwnerId",
            "defaultValue": self.default,
            "calculated": False,
            "autoNumber": self.name == "CaseNumber",
            "nameField": self.name in ("Name", "CaseNumber", "Title") and not self.createable,
            "restrictedPicklist": self.restricted,
            "picklistValues": [
                {
                    "active": True,
                    "defaultValue": value == self.default,
                    "label": value,
                    "validFor": None,
                    "value": value,
                }
                for value in self.values
            ],
            "referenceTo": [self.refers] if self.refers else [],
            "relationshipName": self.relationship or None,
        }


@dataclass(frozen=True)
class SObject:
    """An object; ``children`` maps a child relationship to (object, field). ``sharing``: private, read or write (its
    organization-wide default), or ``parent:Field``."""

    name: str
    label: str
    plural: str
    prefix: str
    fields: tuple[Field, ...]
    children: dict[str, tuple[str, str]] = field(default_factory=dict)
    sharing: str = "private"
    search: tuple[str, ...] = ()
    """Fields that a search looks into; none: the object is not searchable."""
    name_field: str = "Name"

    def field_named(self, name: str) -> Field | None:
        """The field of that name, in whatever case."""
        return _BY_NAME[self.name].get(name.lower())

    def relationship_named(self, name: str) -> Field | None:
        """The reference whose relationship has that name, in whatever case."""
        return next((f for f in self.fields if f.relationship and f.relationship.lower() == name.lower()), None)


def _text(name: str, label: str, length: int = 255, **more: Any) -> Field:
    return Field(name, label, "string", length, **more)


def _pick(name: str, label: str, values: tuple[str, ...], default: str | None = None, **more: Any) -> Field:
    return Field(name, label, "picklist", 255, values=values, default=default, **more)


def _ref(name: str, label: str, refers: str, **more: Any) -> Field:
    return Field(name, label, "reference", refers=refers, **more)


def _system(name: str, label: str, kind: str, refers: str = "") -> Field:
    return Field(name, label, kind, refers=refers, createable=False, updateable=False)


_SYSTEM = (
    Field("Id", "Record ID", "id", createable=False, updateable=False),
    _system("IsDeleted", "Deleted", "boolean"),
    _system("CreatedDate", "Created Date", "datetime"),
    _system("CreatedById", "Created By ID", "reference", "User"),
    _system("LastModifiedDate", "Last Modified Date", "datetime"),
    _system("LastModifiedById", "Last Modified By ID", "reference", "User"),
    _system("SystemModstamp", "System Modstamp", "datetime"),
)
_OWNER = _ref("OwnerId", "Owner ID", "User")
_KEY = _text("Pilothouse_Key__c", "Pilothouse Key", 80, external_id=True)
CASE_STATUS = ("New", "Working", "Escalated", "Closed")
STAGES = ("Prospecting", "Qualification", "Proposal/Price Quote", "Negotiation/Review", "Closed Won", "Closed Lost")


def _person(required_company: bool = False) -> tuple[Field, ...]:
    company = (_text("Company", "Company", 255, required=True),) if required_company else ()
    return (
        _text("FirstName", "First Name", 40),
        _text("LastName", "Last Name", 80, required=True),
        Field("Name", "Full Name", "string", 121, createable=False, updateable=False),
        _text("Title", "Title", 128),
        Field("Email", "Email", "email", 80),
        Field("Phone", "Phone", "phone", 40),
        *company,
    )


_ALL = (
    SObject(
        "Account", "Account", "Accounts", "001",
        (
            *_SYSTEM, _OWNER,
            _text("Name", "Account Name", required=True),
            _pick("Type", "Account Type", ("Prospect", "Customer", "Partner", "Vendor")),
            _pick("Industry", "Industry", ("Technology", "Manufacturing", "Energy", "Other")),
            Field("Phone", "Account Phone", "phone", 40),
            Field("Website", "Website", "url", 255),
            _text("AccountNumber", "Account Number", 40),
            _text("BillingCity", "Billing City", 40),
            _text("BillingCountry", "Billing Country", 80),
            Field("AnnualRevenue", "Annual Revenue", "currency"),
            Field("NumberOfEmployees", "Employees", "int"),
            Field("Description", "Account Description", "textarea", 32000),
            _ref("ParentId", "Parent Account ID", "Account"),
        ),
        {"Contacts": ("Contact", "AccountId"), "Opportunities": ("Opportunity", "AccountId"),
         "Cases": ("Case", "AccountId")},
        "read", ("Name", "Phone", "Website", "AccountNumber", "Description"),
    ),
    SObject(
        "Contact", "Contact", "Contacts", "003",
        (*_SYSTEM, _OWNER, *_person(), _ref("AccountId", "Account ID", "Account"),
         _ref("ReportsToId", "Reports To ID", "Contact"), _text("Department", "Department", 80),
         Field("MobilePhone", "Mobile Phone", "phone", 40), Field("Description", "Description", "textarea", 32000)),
        {"Cases": ("Case", "ContactId")}, "parent:AccountId", ("Name", "Email", "Phone", "Title"),
    ),
    SObject(
        "Opportunity", "Opportunity", "Opportunities", "006",
        (*_SYSTEM, _OWNER, _text("Name", "Name", 120, required=True), _ref("AccountId", "Account ID", "Account"),
         _pick("StageName", "Stage", STAGES, required=True, restricted=True),
         Field("CloseDate", "Close Date", "date", required=True), Field("Amount", "Amount", "currency"),
         Field("Probability", "Probability (%)", "percent"), _text("NextStep", "Next Step"),
         _system("IsClosed", "Closed", "boolean"), _system("IsWon", "Won", "boolean"),
         Field("Description", "Description", "textarea", 32000)),
        {}, "private", ("Name", "Description"),
    ),
    SObject(
        "Case", "Case", "Cases", "500",
        (*_SYSTEM, _OWNER, Field("CaseNumber", "Case Number", "string", 30, createable=False, updateable=False),
         _text("Subject", "Subject"), Field("Description", "Description", "textarea", 32000),
         _pick("Status", "Status", CASE_STATUS, "New", restricted=True),
         _pick("Priority", "Priority", ("High", "Medium", "Low"), "Medium", restricted=True),
         _pick("Origin", "Case Origin", ("Phone", "Email", "Web")),
         _pick("Type", "Case Type", ("Question", "Problem", "Feature Request")), _pick("Reason", "Case Reason", ()),
         _ref("AccountId", "Account ID", "Account"), _ref("ContactId", "Contact ID", "Contact"),
         _system("IsClosed", "Closed", "boolean"), _system("ClosedDate", "Closed Date", "datetime"),
         _text("Resolution__c", "Resolution"), _KEY,
         _text("Ticket_Id__c", "Ticket ID", 40, external_id=True)),
        {"CaseComments": ("CaseComment", "ParentId"), "Tasks": ("Task", "WhatId")}, "private",
        ("CaseNumber", "Subject", "Description"), "CaseNumber",
    ),
    SObject(
        "CaseComment", "Case Comment", "Case Comments", "00a",
        (*_SYSTEM, _ref("ParentId", "Parent Case ID", "Case", required=True),
         Field("CommentBody", "Body", "textarea", 4000), Field("IsPublished", "Published", "boolean", default=False)),
        {}, "parent:ParentId", (), "Id",
    ),
    SObject(
        "Task", "Task", "Tasks", "00T",
        (*_SYSTEM, _OWNER, _text("Subject", "Subject"), Field("Description", "Comments", "textarea", 32000),
         _pick("Status", "Status", ("Not Started", "In Progress", "Completed", "Waiting on someone else", "Deferred"),
               "Not Started", restricted=True),
         _pick("Priority", "Priority", ("High", "Normal", "Low"), "Normal", restricted=True),
         Field("ActivityDate", "Due Date Only", "date"), _ref("WhoId", "Name ID", "Contact"),
         _ref("WhatId", "Related To ID", "Account"), _system("IsClosed", "Closed", "boolean")),
        {}, "private", ("Subject", "Description"), "Subject",
    ),
    SObject(
        "Lead", "Lead", "Leads", "00Q",
        (*_SYSTEM, _OWNER, *_person(required_company=True),
         _pick("Status", "Status", ("Open - Not Contacted", "Working - Contacted", "Closed - Converted"),
               "Open - Not Contacted", restricted=True),
         _pick("LeadSource", "Lead Source", ("Web", "Phone Inquiry", "Other"))),
        {}, "private", ("Name", "Company", "Email"),
    ),
    SObject(
        "User", "User", "Users", "005",
        (*_SYSTEM, *_person(), _text("Username", "Username", 80), _text("Department", "Department", 80),
         Field("IsActive", "Active", "boolean", default=True), _ref("ManagerId", "Manager ID", "User"),
         _text("EmployeeNumber", "Employee Number", 20)),
        {}, "read", ("Name", "Email", "Username"),
    ),
    SObject(
        "Knowledge__kav", "Knowledge", "Knowledge", "ka0",
        (*_SYSTEM, _OWNER, _text("Title", "Title", 255, required=True), _text("UrlName", "URL Name", required=True),
         _text("Summary", "Summary", 1000), _text("ArticleNumber", "Article Number", 30, createable=False,
                                                 updateable=False),
         _text("KnowledgeArticleId", "Knowledge Article ID", 18, createable=False, updateable=False),
         _pick("PublishStatus", "Publication Status", ("Draft", "Online", "Archived"), "Draft", createable=False,
               updateable=False),
         _text("Language", "Language", 10, default="en_US"), Field("Answer__c", "Answer", "textarea", 32000),
         _system("LastPublishedDate", "Last Published Date", "datetime")),
        {}, "read", ("Title", "Summary", "Answer__c"), "Title",
    ),
    SObject(
        "Report", "Report", "Reports", "00O",
        (*_SYSTEM, _OWNER, _text("Name", "Report Name", 40, createable=False, updateable=False),
         _text("DeveloperName", "Report Unique Name", 80, createable=False, updateable=False),
         _text("FolderName", "Folder Name", 255, createable=False, updateable=False),
         _text("Description", "Description", 255, createable=False, updateable=False),
         _text("Format", "Report Format", 40, createable=False, updateable=False),
         _system("LastRunDate", "Last Run", "datetime")),
        {}, "read", ("Name", "Description"),
    ),
    SObject(
        "Organization", "Organization", "Organization", "00D",
        (*_SYSTEM, _text("Name", "Name", 80), _text("InstanceName", "Instance Name", 5),
         Field("IsSandbox", "Is Sandbox", "boolean", createable=False, updateable=False)),
        {}, "read",
    ),
)  # fmt: skip

OBJECTS = {entry.name: entry for entry in _ALL}
_BY_NAME = {entry.name: {f.name.lower(): f for f in entry.fields} for entry in _ALL}
_OBJECT_NAMES = {entry.name.lower(): entry for entry in _ALL}
_PREFIXES = {entry.prefix: entry for entry in _ALL}


def object_named(name: str) -> SObject | None:
    """The object of that name, in whatever case."""
    return _OBJECT_NAMES.get(name.lower())


def object_of_id(record_id: str) -> SObject | None:
    """The object whose key prefix the id has."""
    return _PREFIXES.get(record_id[:3])


def long_id(record_id: str) -> str:
    """An id of 15 characters with its three check characters; one of 18 as it is."""
    if len(record_id) != 15:
        return record_id
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
    parts = (record_id[i : i + 5] for i in (0, 5, 10))
    return record_id + "".join(letters[sum((c.isupper()) << n for n, c in enumerate(part))] for part in parts)
