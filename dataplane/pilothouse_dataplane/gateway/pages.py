"""The pages in ``page/``, each with the Content-Security-Policy that allows its own inline parts and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class Page:
    """A page and its policy (CSP level 3, §8.3: script and style are allowed by their hashes)."""

    html: bytes
    policy: str

    @classmethod
    def of(cls, text: str) -> Page:
        """The page with this text."""
        script, style = (_hashes(text, tag) for tag in ("script", "style"))
        policy = (
            f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return cls(text.encode(), policy)


def load_page(name: str) -> Page:
    """Read a page of the package."""
    return Page.of(resources.files("pilothouse_dataplane.gateway").joinpath(f"page/{name}").read_text("utf-8"))


def _hashes(text: str, tag: str) -> str:
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
