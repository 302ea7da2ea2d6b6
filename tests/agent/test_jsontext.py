# SPDX-License-Identifier: GPL-2.0-or-later
"""The short way to JSON gives and takes what the json package does."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from harness import command
from harness.agent import jsontext
from harness.deadline import Deadline

ROOT = Path(__file__).parents[2]

VALUES = [
    {"a": [1, -2.5, 1e300, None, True, False, "ü\x1e\n\"\\", {"b": {}}], "": 1 << 80},
    [],
    "text",
    0,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_it_agrees_with_the_json_package(value: object) -> None:
    text = jsontext.dumps(value)
    assert text == json.dumps(value, separators=(",", ":"))
    assert jsontext.loads(f" {text}\r\n") == value == jsontext.loads(json.dumps(value, indent=1))


@pytest.mark.parametrize("text", ["", "  ", "{", "{} x", "[1,]", '{"a"}', '"open', "nope", "\x00", "{}{}"])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        jsontext.loads(text)


def test_it_rejects_the_same_without_the_json_package_loaded() -> None:
    script = (
        "from harness.agent.jsontext import loads\ntry: loads('{oops')\nexcept ValueError: print('refused')"
    )
    done = command.run([sys.executable, "-S", "-c", script], cwd=ROOT, deadline=Deadline.after(20, "JSON"))
    assert done.output == "refused"


def test_what_json_lacks_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="bytes"):
        jsontext.dumps({"a": b""})


def test_numbers_that_are_none_pass() -> None:
    assert math.isnan(jsontext.loads(jsontext.dumps(math.nan)))


@pytest.mark.parametrize("value", VALUES)
def test_an_interpreter_without_the_accelerator_will_do(value: object) -> None:
    dumps, loads = jsontext._standard()
    assert loads(dumps(value)) == value
    assert dumps(value) == jsontext.dumps(value)
