"""Names in files that others made reach the terminal as text, never as its commands."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from rich.table import Table
from rich.text import Text

from edge_lsla import console
from edge_lsla.console import SafeConsole, visible
from edge_lsla.errors import GraphError

HOSTILE = "Frob\x1b[31m\x1b]0;title\x07\x9b2J\r\u202e"
SHOWN = r"Frob\x1b[31m\x1b]0;title\x07\x9b2J\r\u202e"


def written(*renderables: Any, **options: Any) -> str:
    """What a console writes of these, on a terminal 200 columns wide."""
    out = io.StringIO()
    made = SafeConsole(file=out, width=200, highlight=False, markup=False, color_system=None, **options)
    for one in renderables:
        made.print(one)
    return out.getvalue()


def test_a_name_is_one_line_of_printable_text() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible(Path("a\nb\tc")) == r"a\nb\tc"
    assert visible("Käfer 甲虫 \\x1b") == "Käfer 甲虫 \\x1b"


@pytest.mark.parametrize("make", [str, Text, lambda name: f"left alone: {name}: why"], ids=["str", "text", "line"])
def test_the_console_escapes_whatever_it_prints(make: Any) -> None:
    table = Table(title=make(HOSTILE))
    table.add_column(make(HOSTILE))
    table.add_row(make(HOSTILE))
    for text in (written(make(HOSTILE)), written(table)):
        assert not set(text) & set("\x1b\x07\x9b\r\u202e")
        assert r"Frob\x1b[31m\x1b]0;title" in text


def test_colours_and_line_breaks_of_our_own_stay() -> None:
    assert written("one\ntwo") == "one\ntwo\n"
    out = io.StringIO()
    SafeConsole(file=out, force_terminal=True, color_system="standard").print("x", style="red")
    assert out.getvalue() == "\x1b[31mx\x1b[0m\n"


def test_progress_shows_names_that_look_like_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(
        console, "error_console", SafeConsole(file=out, force_terminal=True, width=120, color_system=None)
    )
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with console.progress("building") as step:
        step(1, 2, "[/red]\x1b]0;title")
    assert r"building [/red]\x1b]0;title" in out.getvalue()
    assert "\x1b]0;title" not in out.getvalue()


def test_an_error_is_one_line_and_its_place_is_written_out() -> None:
    line = console._one_line(GraphError("no\ngraph", "a\nerror: b.onnx", "export\n it"))
    assert line == r"no graph: a\nerror: b.onnx; export it"
    assert console._one_line(GraphError("no\ngraph")) == "no graph"
    assert console._one_line(GraphError("no graph", "x")) == "no graph: x"


def test_a_hostile_graph_is_refused_in_plain_text(command, tmp_path: Path) -> None:
    node = helper.make_node(HOSTILE, ["images"], ["logits"], name=HOSTILE)
    border = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("images", "logits")]
    model = helper.make_model(helper.make_graph([node], "g", border[:1], border[1:]))
    path = tmp_path / "two\nlines\x1b.onnx"
    path.write_bytes(model.SerializeToString())
    for flag in ((), ("--debug",)):
        refused = command("build-engine", path, "-o", tmp_path / "x.lsla", *flag, "--json")
        assert refused.code == 2
        assert not set(refused.err) & set("\x1b\x07\x9b\r")
        assert refused.err.splitlines()[-1].startswith("error: ")
        assert r"two\nlines\x1b.onnx" in refused.err
        assert "\x1b" not in refused.out  # JSON has escapes of its own
        assert str(path) in refused.json["error"]


def test_tables_of_a_hostile_bundle_are_plain_text(command, bundle: Path, tmp_path: Path) -> None:
    from edge_lsla.bundle import GoldenSet, NewArtifact, Passport, open_bundle, write_bundle

    with open_bundle(bundle) as opened:
        manifest = opened.manifest
        (first, *_) = manifest.artifacts
        model = onnx.load_from_string(opened.read(first))
        golden = GoldenSet(
            opened.golden_inputs(),
            {(first.backend, first.precision): opened.golden_logits(first)},
            {first.precision: manifest.golden.tolerance[first.precision]},
        )
    for node in model.graph.node:
        node.name = f"{node.name}{HOSTILE}"
    model.graph.node.append(helper.make_node(HOSTILE, [model.graph.node[0].output[0]], ["x"], domain=HOSTILE))
    values = {name: getattr(manifest, name) for name in Passport.__dataclass_fields__}
    path = tmp_path / "hostile\x1b\n.lsla"
    write_bundle(
        path,
        Passport(**values | {"precisions": {}}),
        [NewArtifact(model.SerializeToString(), first.backend, first.precision)],
        golden,
    )
    for options in (("--layers",), ("--layers", "--json")):
        shown = command("inspect", path, *options)
        assert shown.code == 0, shown.err
        assert not set(shown.out + shown.err) & set("\x1b\x07\x9b\r\u202e")
        assert r"\x1b" in shown.out + shown.err
    assert json.loads(shown.out.splitlines()[-1])["bundle"] == str(path)
