"""Go templates: what is spoken, and what is said of what is not. buildx's own answers are in tests/golden/imagetools."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiplap.errors import UsageError
from shiplap.images.gotemplate import Moment, Record, render

DATA = Record(
    {
        "Name": "n",
        "List": ["a", "b"],
        "Map": {"y": 2, "x": 1},
        "Empty": [],
        "Number": 7,
        "Late": lambda: "late",
        "At": Moment("2026-01-02T03:04:05+02:00"),
    },
    {"name": "n"},
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", ""),
        ("plain {text}", "plain {text}"),
        ("{{.Name}}", "n"),
        ("{{ .Late }}{{.At}}", "late2026-01-02 03:04:05 +0200 +0200"),
        ("{{range .List}}{{.}},{{end}}", "a,b,"),
        ("{{range $k, $v := .Map}}{{$k}}={{$v}} {{end}}", "x=1 y=2 "),
        ("{{range $v := .List}}{{$v}}{{end}}{{range .Empty}}x{{else}}none{{end}}", "abnone"),
        ("{{range .List}}{{$.Name}}{{.}}{{end}}", "nanb"),
        ("{{if .Empty}}a{{else if .Number}}b{{else}}c{{end}}", "b"),
        ("{{with .Name}}{{.}}{{end}}{{with .Empty}}x{{else}}y{{end}}", "ny"),
        ('{{$x := .Name}}{{$x | printf "%s-%d" .Name 3 | len}}', None),
        ('{{printf "%5d|%-4s|%q|%x|%%" 3 "a" "b" 255}}', '    3|a   |"b"|ff|%'),
        ('{{len .List}}{{index .List 1}}{{index .Map "x"}}{{.Map.x}}', "2b11"),
        ('{{.Map.none}}{{index .Map "none"}}', "<no value><no value>"),
        (
            "{{eq .Number 1 7}} {{ne 1 1}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 1 2}}",
            "true false true true false false",
        ),
        ('{{(index .List 0)}}{{`raw "x"`}}{{"esc\\n\\""}}', 'araw "x"esc\n"'),
        ("{{json .Map}}", '{\n  "x": 1,\n  "y": 2\n}'),
        ('{{json .}}{{json "<&>"}}', '{\n  "name": "n"\n}"\\u003c\\u0026\\u003e"'),
        (" a {{- .Name -}} b ", " anb "),
        ("{{/* {{ a comment */}}x", "x"),
        ('{{and 1 0 2}}{{or 0 "" "z"}}{{not 0}}{{true}}{{print .List}}{{.Map}}', "0ztruetrue[a b]map[x:1 y:2]"),
        ('{{"}}"}}', "}}"),
    ],
)
def test_what_is_spoken(template: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(UsageError):
            render(template + "{{$undefined}}", DATA)
    else:
        assert render(template, DATA) == expected


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{", "unclosed action"),
        ("{{.Name", "unclosed action"),
        ("{{if}}x{{end}}", "missing value"),
        ("{{if .Name}}", "without {{end}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{if 1}}{{else}}{{else}}{{end}}", "without {{end}}"),
        ("{{.Nothing}}", "no field Nothing here; there is Name, List"),
        ("{{.Name.X}}", "can't evaluate field X"),
        ('{{template "x"}}', '"template" is not spoken by shiplap'),
        ("{{break}}", "is not spoken"),
        ("{{upper .Name}}", '"upper" is not defined'),
        ("{{.}}", "ask for a field"),
        ("{{range .Number}}{{end}}", "can't iterate"),
        ("{{index .List 9}}", "no element 9"),
        ('{{lt 1 "a"}}', "error calling lt"),
        ("{{len 3}}", "error calling len"),
        ("{{.Name 3}}", "can't give arguments"),
        ("{{(1}}", "unclosed ("),
        ("{{1)}}", "unexpected"),
        ("{{$x}}", "undefined variable"),
        ("{{range $x := .List}}{{end}}{{$x}}", "undefined variable"),
        ("{{€}}", "cannot read"),
        ("{{if 1}}" * 200, "nested more than"),
        ("{{" + "(" * 200 + "1" + ")" * 200 + "}}", "nested more than"),
    ],
)
def test_what_is_not(template: str, why: str) -> None:
    with pytest.raises(UsageError) as raised:
        render(template, DATA)
    assert raised.value.code == "bad-template"
    assert why in str(raised.value)


WORDS = st.sampled_from(
    [
        "{{",
        "}}",
        "if ",
        "range ",
        "end",
        "else",
        ".Name",
        ".List",
        "$x",
        ":=",
        "|",
        "(",
        ")",
        "json ",
        "x",
        '"',
        "`",
        "-",
        " ",
        "/*",
        "*/",
        "1",
    ]
)


@given(st.lists(WORDS, max_size=14).map("".join))
def test_any_text_is_filled_or_refused(template: str) -> None:
    try:
        result: Any = render(template, DATA)
    except UsageError as error:
        assert error.code == "bad-template"
    else:
        assert isinstance(result, str)
