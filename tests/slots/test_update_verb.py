"""The verb as an operator uses it, alone and beside a running service."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import slot_parts
import typer
from slot_parts import QUICK, Feed, Opener, Told, until
from typer.testing import CliRunner

from edge_lsla.bundle import open_bundle
from edge_lsla.console import verb
from edge_lsla.slots.slots import Slots
from edge_lsla.slots.switching import SwitchingModel
from edge_lsla.verbs.update import update

app = typer.Typer()
app.callback()(lambda: None)  # else the only verb would have no name
verb(app, "update")(update)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def run(*arguments: object) -> tuple[int, dict[str, Any], str]:
    result = CliRunner().invoke(app, ["update", *(str(one) for one in arguments), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, json.loads(result.stdout.splitlines()[-1]), result.stderr


def test_the_first_model_and_the_next(data: Path, first: Path, second: Path) -> None:
    code, answer, text = run(first, "--data", data)
    assert (code, answer["waits"], answer["active"]["name"]) == (0, False, "first")
    assert "self-test in fp32: 2 images" in text
    assert "active model" in text
    code, answer, text = run(second, "--data", data)
    assert (code, answer["waits"], answer["candidate"]["name"]) == (0, True, "second")
    code, answer, text = run("--status", "--data", data)
    assert code == 0
    assert (answer["active"]["slot"], answer["candidate"]["slot"], answer["previous"]) == ("a", "b", None)
    assert [entry["what"] for entry in answer["history"]] == ["installed", "installed"]
    with open_bundle(second) as bundle:
        artifact = bundle.artifact("onnxruntime", "fp32").sha256
    about = f"file {hashlib.sha256(second.read_bytes()).hexdigest()[:12]}, artifact {artifact[:12]}, fp32"
    assert f"candidate: second ({about}) in slot b, waits for the service to try it" in text
    assert f"installed: second ({about}): it waits to be tried" in text
    assert (answer["phase"], answer["candidate"]["artifact_sha256"]) == ("waits", artifact)
    assert [entry["precision"] for entry in answer["history"]] == ["fp32", "fp32"]
    code, answer, _ = run("--rollback", "--data", data)
    assert (code, answer["candidate"]) == (0, None)
    code, answer, _ = run("--rollback", "--data", data)
    assert (code, "no model to go back to" in answer["error"]) == (4, True)


def test_refusals_have_their_exit_codes(data: Path, tmp_path: Path, first: Path, second: Path, failing: Path) -> None:
    run(first, "--data", data)
    before = Slots(data / "models").state()
    damaged = tmp_path / "damaged.lsla"
    damaged.write_bytes(second.read_bytes()[:-1] + b"x")
    other = slot_parts.write(tmp_path / "other.lsla", "other", labels=("ant", "bee", "wasp"))
    for bundle, expected, words in (
        (damaged, 2, "damaged.lsla"),
        (tmp_path / "absent.lsla", 2, "cannot be read"),
        (failing, 4, "logits differ by 3"),
        (other, 4, "other classes"),
    ):
        code, answer, _ = run(bundle, "--data", data)
        assert (code, answer["ok"]) == (expected, False)
        assert words in answer["error"]
        assert bundle.name in answer["error"]
    for arguments in ((), (second, "--status"), ("--status", "--wait"), ("--status", "--rollback")):
        assert run(*arguments, "--data", data)[0] == 2
    assert run(second)[0] == run("--status", "--data", data / "absent")[0] == 2
    assert Slots(data / "models").state() == before


def test_the_status_tells_the_phase_and_that_there_is_more(data: Path, first: Path, second: Path) -> None:
    run(first, "--data", data)
    slots = Slots(data / "models")
    for _ in range(3):
        digest = run(second, "--data", data)[1]["digest"]
        slots.begin_shadow(digest)
        slots.refuse(digest, "it is bad")
    slots.begin_shadow(run(second, "--data", data)[1]["digest"])
    _, answer, text = run("--status", "--data", data)
    assert "in slot b, in shadow\n" in text
    assert "3 older entries: --json shows them" in text
    assert len(answer["history"]) == 8
    slots.begin_trial(digest)
    _, answer, text = run("--status", "--data", data)
    assert "in slot b, on probation\n" in text
    assert answer["phase"] == "probation"


def test_what_the_service_would_not_heed_is_refused(data: Path, tmp_path: Path, first: Path, second: Path) -> None:
    config = tmp_path / "field.toml"
    for model in ("", '\n[model]\nprecision = "fp32"\nbackend = "onnxruntime"\n'):
        text = f'data = "{data}"\n[[cameras]]\nname = "one"\nsource = "synthetic"\n{model}'
        config.write_text(text)
        for option, other in (("precision", "int8"), ("backend", "tensorrt")):
            code, answer, _ = run(second, "--config", config, f"--{option}", other)
            assert code == 2
            assert f"the service runs the {option} of its configuration" in answer["error"]
            assert f"set model.{option} there" in answer["error"]
    code, answer, text = run(first, "--config", config, "--precision", "fp32", "--backend", "onnxruntime")
    assert (code, "of its configuration" in text) == (0, False)
    code, answer, text = run(second, "--data", data, "--precision", "fp32")  # whose configuration is not known
    assert (code, "the service runs the precision of its configuration: set model.precision there" in text) == (0, True)


class Service:
    """What the service does with the slots, with load on it."""

    def __init__(self, data: Path, opener: Opener) -> None:
        self.model = SwitchingModel(Slots(data / "models", QUICK), opener, Told())
        self._feed = Feed(self.model.answer)

    def __enter__(self) -> Service:
        self.model.start()
        self._feed.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.__exit__()
        self.model.stop()
        assert self._feed.errors == []


def test_waiting_for_a_good_model(data: Path, first: Path, second: Path) -> None:
    run(first, "--data", data)
    with Service(data, Opener()) as service:
        code, answer, text = run(second, "--data", data, "--wait", "--timeout", 60)
        assert service.model.name == "second"
        assert (code, answer["outcome"], answer["active"]["name"]) == (0, "promoted", "second")
        assert "waiting at most 60 s" in text
        assert "switched: it passed" in text
        assert run("--rollback", "--data", data)[0] == 0
        until(lambda: service.model.name == "first")


def test_waiting_for_a_bad_model(data: Path, first: Path, second: Path) -> None:
    def breaks(model: slot_parts.Opened) -> None:
        model.raises = RuntimeError("no kernel image")

    run(first, "--data", data)
    with Service(data, Opener(second=breaks)) as service:
        code, answer, _ = run(second, "--data", data, "--wait", "--timeout", 60)
        assert service.model.name == "first"
    assert code == 4
    assert "refused" in answer["error"]
    assert "no kernel image" in answer["error"]
    assert answer["active"]["name"] == "first"


def test_waiting_without_a_service_ends(data: Path, first: Path, second: Path) -> None:
    run(first, "--data", data)
    code, answer, _ = run(second, "--data", data, "--wait", "--timeout", 1)
    assert (code, "did not decide within 1 s" in answer["error"]) == (1, True)
