"""The dictionary: tables, which of them extends which, and their fields, as in an instance's base system.

Only the fields that integrations use are there. Every value is stored as a string, as the platform's API shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Field:
    """A dictionary entry; ``kind`` is the platform's internal type."""

    name: str
    label: str
    kind: str = "string"
    reference: str = ""
    """Table that a reference or a list points to."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Value → label."""
    max_length: int = 255
    default: str = ""
    read_only: bool = False


@dataclass(frozen=True)
class Table:
    """A table; ``fields`` are its own, ``prefix`` begins its numbers, ``display`` is what a reference to it shows."""

    name: str
    label: str
    extends: str = ""
    fields: tuple[Field, ...] = ()
    prefix: str = ""
    display: str = "number"


def _text(name: str, label: str, size: int = 255) -> Field:
    return Field(name, label, max_length=size)


def _choice(name: str, label: str, choices: Mapping[str, str], default: str = "") -> Field:
    kind = "integer" if all(value.lstrip("-").isdigit() for value in choices) else "choice"
    return Field(name, label, kind, choices=choices, default=default)


def _ref(name: str, label: str, table: str) -> Field:
    return Field(name, label, "reference", reference=table)


def _bool(name: str, label: str, default: str = "false") -> Field:
    return Field(name, label, "boolean", default=default)


def _date(name: str, label: str, *, read_only: bool = False) -> Field:
    return Field(name, label, "glide_date_time", read_only=read_only)


SYSTEM_FIELDS = (
    Field("sys_id", "Sys ID", "GUID", max_length=32, read_only=True),
    Field("sys_class_name", "Class", "sys_class_name", max_length=80, read_only=True),
    Field("sys_created_on", "Created", "glide_date_time", read_only=True),
    Field("sys_created_by", "Created by", max_length=40, read_only=True),
    Field("sys_updated_on", "Updated", "glide_date_time", read_only=True),
    Field("sys_updated_by", "Updated by", max_length=40, read_only=True),
    Field("sys_mod_count", "Updates", "integer", read_only=True),
)
_LEVELS = {"1": "1 - High", "2": "2 - Medium", "3": "3 - Low"}
_PRIORITIES = {"1": "1 - Critical", "2": "2 - High", "3": "3 - Moderate", "4": "4 - Low", "5": "5 - Planning"}
_APPROVALS = {
    "not requested": "Not Yet Requested", "requested": "Requested", "approved": "Approved", "rejected": "Rejected",
}  # fmt: skip
INCIDENT_STATES = {
    "1": "New", "2": "In Progress", "3": "On Hold", "6": "Resolved", "7": "Closed", "8": "Canceled",
}  # fmt: skip
CHANGE_STATES = {
    "-5": "New", "-4": "Assess", "-3": "Authorize", "-2": "Scheduled", "-1": "Implement", "0": "Review",
    "3": "Closed", "4": "Canceled",
}  # fmt: skip
CLOSE_CODES = (
    "Duplicate", "Known error", "No resolution provided", "Resolved by caller", "Resolved by change",
    "Resolved by problem", "Resolved by request", "Solution provided", "Workaround provided", "User error",
)  # fmt: skip

_TASK = (
    Field("number", "Number", max_length=40, read_only=True),
    Field("short_description", "Short description", max_length=160),
    Field("description", "Description", max_length=4000),
    _bool("active", "Active", "true"),
    _choice("state", "State", {"1": "Open", "2": "Work in Progress", "3": "Closed Complete"}, "1"),
    _choice("priority", "Priority", _PRIORITIES, "4"),
    _choice("impact", "Impact", _LEVELS, "3"),
    _choice("urgency", "Urgency", _LEVELS, "3"),
    _ref("assigned_to", "Assigned to", "sys_user"),
    _ref("assignment_group", "Assignment group", "sys_user_group"),
    _ref("opened_by", "Opened by", "sys_user"),
    _date("opened_at", "Opened"),
    _ref("closed_by", "Closed by", "sys_user"),
    _date("closed_at", "Closed", read_only=True),
    _ref("cmdb_ci", "Configuration item", "cmdb_ci"),
    _ref("parent", "Parent", "task"),
    Field("watch_list", "Watch list", "glide_list", reference="sys_user", max_length=4000),
    Field("comments", "Additional comments", "journal_input", max_length=4000),
    Field("work_notes", "Work notes", "journal_input", max_length=4000),
    _choice("approval", "Approval", _APPROVALS, "not requested"),
    _choice("contact_type", "Contact type", {"email": "Email", "phone": "Phone", "self-service": "Self-service"}),
    _text("correlation_id", "Correlation ID", 100),
    _text("correlation_display", "Correlation display", 100),
    _text("close_notes", "Close notes", 4000),
    _date("due_date", "Due date"),
)
_CI = (
    _text("name", "Name"),
    _text("short_description", "Description", 1000),
    _choice(
        "operational_status", "Operational status", {"1": "Operational", "2": "Non-Operational", "6": "Retired"}, "1"
    ),
    _choice("install_status", "Status", {"1": "Installed", "3": "In Maintenance", "7": "Retired"}, "1"),
    _ref("assigned_to", "Assigned to", "sys_user"),
    _ref("owned_by", "Owned by", "sys_user"),
    _ref("managed_by", "Managed by", "sys_user"),
    _ref("support_group", "Support group", "sys_user_group"),
    _ref("location", "Location", "cmn_location"),
    _ref("company", "Company", "core_company"),
    _text("ip_address", "IP Address"),
    _text("fqdn", "Fully qualified domain name"),
    _text("asset_tag", "Asset tag", 40),
    _text("serial_number", "Serial number"),
    _text("category", "Category", 40),
    _text("environment", "Environment", 40),
)

TABLES = {
    table.name: table
    for table in (
        Table("task", "Task", fields=_TASK, prefix="TASK"),
        Table(
            "incident",
            "Incident",
            "task",
            (
                _ref("caller_id", "Caller", "sys_user"),
                _choice("state", "State", INCIDENT_STATES, "1"),
                _choice("incident_state", "Incident state", INCIDENT_STATES, "1"),
                _choice("category", "Category", {"inquiry": "Inquiry / Help", "software": "Software",
                        "hardware": "Hardware", "network": "Network", "database": "Database"}, "inquiry"),
                _choice("subcategory", "Subcategory", {"antivirus": "Antivirus", "email": "Email", "vpn": "VPN",
                        "wireless": "Wireless", "dns": "DNS", "os": "Operating System"}),
                Field("severity", "Severity", "integer", choices=_LEVELS, default="3"),
                _choice("hold_reason", "On hold reason", {"1": "Awaiting Caller", "5": "Awaiting Change",
                        "3": "Awaiting Problem", "4": "Awaiting Vendor"}),
                _choice("close_code", "Resolution code", {code: code for code in CLOSE_CODES}),
                _ref("resolved_by", "Resolved by", "sys_user"),
                _date("resolved_at", "Resolved"),
                _ref("business_service", "Service", "cmdb_ci_service"),
                Field("reopen_count", "Reopen count", "integer", default="0", read_only=True),
            ),
            "INC",
        ),
        Table(
            "change_request",
            "Change Request",
            "task",
            (
                _choice("state", "State", CHANGE_STATES, "-5"),
                _choice("type", "Type", {"normal": "Normal", "standard": "Standard", "emergency": "Emergency"},
                        "normal"),
                _choice("risk", "Risk", {"2": "High", "3": "Moderate", "4": "Low"}, "3"),
                _choice("category", "Category", {"Hardware": "Hardware", "Software": "Software", "Network": "Network",
                        "Other": "Other"}, "Other"),
                _ref("requested_by", "Requested by", "sys_user"),
                _date("start_date", "Planned start date"),
                _date("end_date", "Planned end date"),
                _text("justification", "Justification", 4000),
                _text("implementation_plan", "Implementation plan", 4000),
                _text("backout_plan", "Backout plan", 4000),
                _text("test_plan", "Test plan", 4000),
                _choice("close_code", "Close code", {"successful": "Successful", "unsuccessful": "Unsuccessful",
                        "successful_issues": "Successful with issues"}),
            ),
            "CHG",
        ),
        Table(
            "sc_request",
            "Request",
            "task",
            (
                _ref("requested_for", "Requested for", "sys_user"),
                _choice("request_state", "Request state", {"requested": "Pending Approval", "in_process": "Approved",
                        "closed_complete": "Closed Complete", "closed_rejected": "Closed Rejected"}, "requested"),
                _choice("stage", "Stage", {"requested": "Requested", "closed_complete": "Completed"}, "requested"),
                _text("price", "Price", 20),
                _text("special_instructions", "Special instructions", 4000),
            ),
            "REQ",
        ),
        Table(
            "sc_req_item",
            "Requested Item",
            "task",
            (
                _ref("request", "Request", "sc_request"),
                _ref("cat_item", "Item", "sc_cat_item"),
                _ref("requested_for", "Requested for", "sys_user"),
                Field("quantity", "Quantity", "integer", default="1"),
                _choice("stage", "Stage", {"waiting_for_approval": "Waiting for Approval", "fulfillment": "Fulfillment",
                        "complete": "Completed", "request_cancelled": "Request Cancelled"}),
                _text("price", "Price", 20),
            ),
            "RITM",
        ),
        Table("cmdb_ci", "Configuration Item", fields=_CI, display="name"),
        Table("cmdb_ci_hardware", "Hardware", "cmdb_ci", (_ref("manufacturer", "Manufacturer", "core_company"),),
              display="name"),
        Table("cmdb_ci_computer", "Computer", "cmdb_ci_hardware",
              (_text("os", "Operating System"), _text("os_version", "OS Version"), _text("ram", "RAM (MB)", 20)),
              display="name"),
        Table("cmdb_ci_server", "Server", "cmdb_ci_computer", (_text("host_name", "Host name"),), display="name"),
        Table("cmdb_ci_linux_server", "Linux Server", "cmdb_ci_server", display="name"),
        Table("cmdb_ci_win_server", "Windows Server", "cmdb_ci_server", display="name"),
        Table("cmdb_ci_netgear", "Network Gear", "cmdb_ci_hardware", (_text("firmware_version", "Firmware version"),),
              display="name"),
        Table("cmdb_ci_appl", "Application", "cmdb_ci", (_text("version", "Version"),), display="name"),
        Table("cmdb_ci_service", "Service", "cmdb_ci",
              (_choice("busines_criticality", "Business criticality", {"1 - most critical": "1 - most critical",
               "2 - somewhat critical": "2 - somewhat critical"}),), display="name"),
        Table(
            "sys_user",
            "User",
            fields=(
                _text("user_name", "User ID", 40),
                _text("name", "Name", 151),
                _text("first_name", "First name", 50),
                _text("last_name", "Last name", 50),
                _text("email", "Email", 100),
                _text("title", "Title", 60),
                _text("phone", "Business phone", 40),
                _text("mobile_phone", "Mobile phone", 40),
                _text("employee_number", "Employee number", 40),
                _text("department", "Department", 100),
                _ref("manager", "Manager", "sys_user"),
                _ref("location", "Location", "cmn_location"),
                _bool("active", "Active", "true"),
                _bool("vip", "VIP"),
            ),
            display="name",
        ),
        Table("sys_user_group", "Group", fields=(_text("name", "Name", 80), _text("description", "Description", 1000),
              _ref("manager", "Manager", "sys_user"), _text("email", "Group email", 100),
              _bool("active", "Active", "true")), display="name"),
        Table("sys_user_grmember", "Group Member",
              fields=(_ref("user", "User", "sys_user"), _ref("group", "Group", "sys_user_group")), display="user"),
        Table("cmn_location", "Location", fields=(_text("name", "Name", 100), _text("city", "City", 40)),
              display="name"),
        Table("core_company", "Company", fields=(_text("name", "Name", 80), _bool("vendor", "Vendor")),
              display="name"),
        Table(
            "sysapproval_approver",
            "Approval",
            fields=(
                _ref("approver", "Approver", "sys_user"),
                _choice("state", "State", {"not requested": "Not Yet Requested", "requested": "Requested",
                        "approved": "Approved", "rejected": "Rejected", "cancelled": "Cancelled",
                        "not_required": "No Longer Required"}, "requested"),
                _ref("sysapproval", "Approval for", "task"),
                Field("document_id", "Approving", "document_id", max_length=32),
                _text("source_table", "Source table", 80),
                Field("comments", "Comments", "journal_input", max_length=4000),
                _date("due_date", "Due date"),
            ),
            display="state",
        ),
        Table("kb_knowledge_base", "Knowledge Base",
              fields=(_text("title", "Title", 100), _bool("active", "Active", "true")), display="title"),
        Table(
            "kb_knowledge",
            "Knowledge",
            fields=(
                Field("number", "Number", max_length=40, read_only=True),
                _text("short_description", "Short description", 100),
                Field("text", "Article body", "html", max_length=65536),
                _choice("workflow_state", "Workflow", {"draft": "Draft", "published": "Published",
                        "retired": "Retired"}, "draft"),
                _ref("kb_knowledge_base", "Knowledge base", "kb_knowledge_base"),
                _ref("author", "Author", "sys_user"),
                _text("topic", "Topic", 40),
                _text("meta", "Meta", 4000),
                Field("published", "Published", "glide_date"),
                Field("valid_to", "Valid to", "glide_date", default="2100-01-01"),
                _bool("active", "Active", "true"),
            ),
            prefix="KB",
        ),
        Table(
            "sys_journal_field",
            "Journal Entry",
            fields=(
                _text("name", "Table", 80),
                Field("element_id", "Element ID", "GUID", max_length=32),
                _text("element", "Element", 80),
                _text("value", "Value", 65536),
            ),
            display="sys_id",
        ),
        Table("sc_catalog", "Catalog", fields=(_text("title", "Title", 100), _bool("active", "Active", "true")),
              display="title"),
        Table("sc_category", "Category", fields=(_text("title", "Title", 100), _ref("sc_catalog", "Catalog",
              "sc_catalog")), display="title"),
        Table(
            "sc_cat_item",
            "Catalog Item",
            fields=(
                _text("name", "Name", 100),
                _text("short_description", "Short description", 200),
                Field("description", "Description", "html", max_length=8000),
                _text("price", "Price", 20),
                _ref("category", "Category", "sc_category"),
                _text("sc_catalogs", "Catalogs", 1024),
                _bool("active", "Active", "true"),
            ),
            display="name",
        ),
        Table(
            "sys_attachment",
            "Attachment",
            fields=(
                Field("file_name", "File name", max_length=255, read_only=True),
                Field("content_type", "Content type", max_length=255, read_only=True),
                Field("size_bytes", "Size bytes", "integer", read_only=True),
                Field("size_compressed", "Size compressed", "integer", read_only=True),
                Field("compressed", "Compressed", "boolean", read_only=True),
                Field("table_name", "Table name", max_length=80, read_only=True),
                Field("table_sys_id", "Table sys ID", max_length=40, read_only=True),
                Field("state", "State", max_length=40, read_only=True),
                Field("hash", "SHA256 Hash", max_length=64, read_only=True),
            ),
            display="file_name",
        ),
        Table(
            "sys_choice",
            "Choice",
            fields=(_text("name", "Table", 80), _text("element", "Element", 80), _text("value", "Value"),
                    _text("label", "Label"), Field("sequence", "Sequence", "integer"),
                    _bool("inactive", "Inactive")),
            display="label",
        ),
    )
}  # fmt: skip


def lineage(table: str) -> tuple[str, ...]:
    """The table and those that it extends, itself first."""
    names = [table]
    while TABLES[names[-1]].extends:
        names.append(TABLES[names[-1]].extends)
    return tuple(names)


def is_a(table: str, other: str) -> bool:
    """Whether ``table`` is ``other`` or extends it."""
    return table in TABLES and other in lineage(table)


def classes(table: str) -> tuple[str, ...]:
    """The table and all that extend it: where its records are."""
    return tuple(name for name in TABLES if is_a(name, table))


def _fields(table: str) -> dict[str, Field]:
    found = {entry.name: entry for entry in SYSTEM_FIELDS}
    for name in reversed(lineage(table)):
        found.update({entry.name: entry for entry in TABLES[name].fields})
    return found


_ALL_FIELDS = {name: _fields(name) for name in TABLES}


def fields_of(table: str) -> Mapping[str, Field]:
    """All fields of the table, those that it inherits too."""
    return _ALL_FIELDS[table]
