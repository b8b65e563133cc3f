"""JSON Schema (draft 2020-12) of the files, from the definitions that check them."""

from __future__ import annotations

from .forms import Schema, record_schema
from .profile import PROFILES
from .task import TASK

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def task_schema() -> Schema:
    """The schema of a task file."""
    schema: Schema = {"$schema": DRAFT, "title": "dstack task file"}
    return (
        schema
        | record_schema(TASK)
        | {
            "anyOf": [
                {"required": ["image"]},
                {"required": ["commands"], "properties": {"commands": {"minItems": 1}}},
            ],
            "not": {
                "anyOf": [
                    {"required": ["image", "python"]},
                    {"required": ["retry", "retry_policy"]},
                ]
            },
        }
    )


def profiles_schema() -> Schema:
    """The schema of a profiles file."""
    return {"$schema": DRAFT, "title": "dstack profiles"} | record_schema(PROFILES)
