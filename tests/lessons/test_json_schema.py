"""The published schema is that of the types, and a file that they do not take it does not take."""

from __future__ import annotations

import json

import jsonschema
import pytest

from loopviz.lessons.json_schema import json_schema
from loopviz.paths import PACKAGE
from tests.lessons.test_faults import MISTAKES
from tests.lessons.toy import toy

PUBLISHED = PACKAGE.parent / "docs" / "lesson.schema.json"
OF_TYPES = ("missing", "not_a_field", "kind", "one_of")


def test_the_published_schema_is_the_one_of_the_types() -> None:
    """Else: python -m loopviz lesson schema > docs/lesson.schema.json"""
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == json_schema()


def test_it_takes_the_toy() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(toy(), json_schema())


@pytest.mark.parametrize("name", ["a field is missing", "one language is missing", "a field that is none", "another type",
                                  "a kind of prediction that is none", "a measurement that is none", "a format of tomorrow"])  # fmt: skip
def test_it_refuses_what_types_refuse(name: str) -> None:
    change, _, rule = MISTAKES[name]
    assert rule in OF_TYPES
    lesson = toy()
    change(lesson)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(lesson, json_schema())
