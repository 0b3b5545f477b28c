"""What all forms of a declaration have in common: strict values, and faults of form with file and line.

What belongs here: the base of the forms, and the wording of their faults. What does not: the values of a form
(``declaration`` has those of ``dataset.yaml``, ``query`` and ``chart`` those of a query's header).
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict

from ecom_assets.dataset.document import Document, Fault, Key


class Form(BaseModel):
    """Values by name; an unknown name is a fault."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


def fault(document: Document, error: Any, key: Key) -> Fault:
    """Pydantic's error in the words of a fault, at its place in the file.

    Args:
        document: The file.
        error: The error.
        key: Names and positions that lead to the value.
    """
    match error["type"]:
        case "extra_forbidden":
            return document.fault(
                key, "expected a value that a declaration has, got another", "look for a typing error"
            )
        case "missing":
            return document.fault(key, "expected a value, got none")
        case "string_type":
            quote = "put it in quotes" if not isinstance(error["input"], (dict, list, type(None))) else ""
            return document.fault(key, f"expected text, got {error['input']!r}", quote)
        case "union_tag_invalid":
            at = (*key, error["ctx"]["discriminator"].strip("'"))
            return document.fault(at, f"expected {error['ctx']['expected_tags']}, got {error['ctx']['tag']!r}")
        case "union_tag_not_found":
            return document.fault((*key, error["ctx"]["discriminator"].strip("'")), "expected a value, got none")
    message = re.sub(r"^\w+ should ", "", error["msg"])
    return document.fault(key, f"expected it to {message}, got {error['input']!r}")
