"""Words of a request and of a tool, brought to one form: small, plain, and the same for both sides. Pure."""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Za-z][a-z]+|[A-Z]+(?![a-z])|[A-Za-z]+|\d+")
_CLAUSE = re.compile(
    r"[.;:!?\n]+|,(?=\s)|\b(?:and then|and also|and|then|also|plus|after that)\b",
    re.IGNORECASE,
)

_STOP_WORDS = (
    "a about all also am an and any are as at be been but by can could did do does for from give had has have he her "
    "hers hi hello him his how i if im in into is it its just let like me mine my need no not of on one or our out "
    "please pls she should so some something than thank thanks that the their them then there these they thing this "
    "those to up us want was we were what when where which who whom whose will with would you your yours via using "
    "use used return returns user users id ids name"
)
STOP = frozenset(_STOP_WORDS.split())
"""Words that say nothing of what is wanted, in requests and in descriptions."""

_SAME: dict[str, str] = {}
for _group in (
    "create open file raise log submit new add make start register",
    "search find look lookup list show browse see display query which what's",
    "get read fetch view detail details status check",
    "update edit change modify set rename adjust",
    "delete remove erase drop purge trash discard",
    "comment note reply remark",
    "assign reassign allocate hand",
    "close resolve finish complete done solve",
    "approve accept confirm",
    "reject decline deny",
    "ticket incident",
    "issue bug task story",
    "employee person people colleague coworker member staff",
    "manager boss supervisor lead",
    "customer account client company",
    "deal opportunity",
    "laptop computer notebook machine device",
    "article knowledge kb guide howto documentation doc docs instruction instructions",
    "factor mfa 2fa token authenticator otp yubikey",
    "password passphrase pwd",
    "app application software",
    "order buy purchase",
    "attachment attach upload file_",
    "group team distribution",
    "unlock unblock lockout locked",
    "suspend disable deactivate freeze block",
    "grant give access permission",
    "send email mail message",
    "invoice bill",
    "meeting event appointment calendar",
    "schedule book reserve",
    "cancel abort revoke",
    "report dashboard analytics",
    "refund reimburse",
):
    for _word in _group.split():
        _SAME.setdefault(_word, _group.split()[0])


def stem(word: str) -> str:
    """A word's plain form: plurals and -ing, -ed endings go, synonyms become one."""
    if word in _SAME:
        return _SAME[word]
    plain = word
    if len(plain) > 4 and plain.endswith("ies"):
        plain = plain[:-3] + "y"
    elif len(plain) > 4 and plain.endswith(("sses", "xes", "ches", "shes")):
        plain = plain[:-2]
    elif len(plain) > 3 and plain.endswith("s") and not plain.endswith(("ss", "us", "is")):
        plain = plain[:-1]
    elif len(plain) > 5 and plain.endswith("ing"):
        plain = plain[:-3]
        if len(plain) > 3 and plain[-1] == plain[-2] and plain[-1] not in "sl":
            plain = plain[:-1]
    elif len(plain) > 4 and plain.endswith("ed"):
        plain = plain[:-2]
        if len(plain) > 3 and plain[-1] == plain[-2] and plain[-1] not in "sl":
            plain = plain[:-1]
    if plain in _SAME:
        return _SAME[plain]
    if plain + "e" in _SAME:  # clos(ed) → close
        return _SAME[plain + "e"]
    return plain.removesuffix("e") if len(plain) > 4 else plain


def tokens(text: str) -> list[str]:
    """The plain words of a text; ``camelCase``, ``snake_case`` and ``dotted.names`` come apart."""
    return [stem(word.lower()) for word in _WORD.findall(text)]


def clauses(text: str) -> list[str]:
    """The parts of a request that may each be a wish of its own."""
    parts = [part.strip() for part in _CLAUSE.split(text)]
    return [part for part in parts if len(part) > 2][:8] or [text]
