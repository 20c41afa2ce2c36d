"""What anybody may have written is read as what it should be, or refused with the place where it isn't."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest

from lampe.errors import InputError
from lampe.files import Count, Size, Words, append_line, checked, decoded, method_of, read_lines
from lampe.methods import METHODS, Constant, Curve, ScaledSigmoid


@dataclass(frozen=True)
class Row:
    length: Size
    name: Words = ""
    loss: float | None = None
    curve: Curve | None = None
    found: bool = False
    needles: Count = 0

    def __post_init__(self):
        if self.length == 13:
            raise ValueError("no row has 13 tokens")


class RefusedError(InputError):
    pass


def read(path, **how):
    return read_lines(path, partial(checked, Row), "row of a test", RefusedError, **how)


def test_rows_come_back_with_the_object_of_their_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    written = [{"length": 5, "loss": 1, "other": "é\u2028"}, {"length": 10**8, "curve": 700, "found": True}]
    for one in written:
        append_line(path, one)
    assert read(path) == [(Row(5, loss=1.0), written[0]), (Row(10**8, curve=Constant(700), found=True), written[1])]
    path.write_bytes(b"")
    assert read(path) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json", "JSON is malformed"),
        ("", "truncated"),
        ('{"length": 160', "truncated"),
        ('{"length": ' + "[" * 100_000, "recursion"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "missing required field `length`"),
        ('{"length": true}', "Expected `int`, got `bool` - at `$.length`"),
        ('{"length": "5"}', "Expected `int`, got `str` - at `$.length`"),
        ('{"length": 5.5}', "Expected `int`, got `float` - at `$.length`"),
        ('{"length": 0}', "Expected `int` >= 1 - at `$.length`"),
        ('{"length": 1000000000000}', "Expected `int` <= 100000000 - at `$.length`"),
        ('{"length": 13}', "no row has 13 tokens"),
        ('{"length": 5, "needles": -1}', "Expected `int` >= 0 - at `$.needles`"),
        ('{"length": 5, "loss": NaN}', "JSON is malformed"),
        ('{"length": 5, "loss": 1e999}', "out of range"),
        ('{"length": 5, "loss": "low"}', "Expected `float | null`, got `str` - at `$.loss`"),
        ('{"length": 5, "curve": {"maximum": 3}}', "missing required field `slope`"),
        ('{"length": 5, "curve": 0}', "Expected `int` >= 1"),
        ('{"length": 5, "name": "' + "x" * 1001 + '"}', "length <= 1000 - at `$.name`"),
    ],
)
def test_a_line_that_is_no_row_is_named_with_the_reason(tmp_path, line, words):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"length": 5}}\n{line}\n{{"length": 5}}\n', encoding="utf-8")
    with pytest.raises(RefusedError) as refused:
        read(path)
    assert str(refused.value).startswith("Line 2 of rows.jsonl is no row of a test (")
    assert words in str(refused.value)


def test_a_line_that_others_would_be_appended_to_must_end(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"length": 5}', encoding="utf-8")
    with pytest.raises(RefusedError, match="ends before its end"):
        read(path)
    assert len(read(path, whole=False)) == 1


def test_what_isnt_text_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xff\x00")
    with pytest.raises(RefusedError, match="isn't text in UTF-8"):
        read(path)


def test_curves_and_methods_are_read_by_what_they_are():
    sigmoid = ScaledSigmoid(48, 0.02, -1.0, 200, 30)
    assert checked(Row, {"length": 5, "curve": sigmoid.settings()}).curve == sigmoid
    method = METHODS["selfextend"].for_window(8192)
    assert method_of({"method": method.key, "settings": method.settings()}) == method
    with pytest.raises(KeyError, match="settings"):
        method_of(decoded(b'{"method": "rope"}'))
