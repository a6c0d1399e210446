"""`--json`: one document for programs, in place of what people read."""

import json
from typing import Annotated, Any

import typer

from dr3_ray.trust.text import json_value

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def print_document(document: Any) -> None:
    """Print a document as JSON."""
    print(json.dumps(json_value(document), indent=1, allow_nan=False))
