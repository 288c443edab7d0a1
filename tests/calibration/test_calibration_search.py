"""Evaluations, ranking and search: with layers whose harm is known, and with a real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hard_model import make_hard
from numpy.typing import NDArray

from calibration.costs import Cost, Costs, estimated_costs
from calibration.evaluations import Evaluations, compare_logits, expected_drop, margins
from calibration.points import find_layers
from calibration.ranges import collect_ranges
from calibration.search import Found, SearchSettings, search
from calibration.sensitivity import error_curve, rank_layers
from calibration.settings import CalibrationSettings, QdqSettings
from calibration.switches import SwitchedSession
from edge_lsla.errors import DatasetError, EdgeLslaError, UsageError

Logits = NDArray[np.float32]
NAMES = tuple(f"layer{i}" for i in range(12))
HARM = 0.002 * 1.7 ** np.array([5, 0, 9, 3, 1, 8, 2, 11, 4, 7, 10, 6])  # of layer i: its rank, from mild to bad
IMAGES = 300


class Bench:
    """A classifier whose layers add noise of known size to its logits; counts how often it runs."""

    def __init__(self, images: int = IMAGES) -> None:
        rng = np.random.default_rng(2)
        self.labels = rng.integers(0, 5, images)
        self.logits: Logits = rng.standard_normal((images, 5)).astype(np.float32)
        self.logits[np.arange(images), self.labels] += 1.5
        self.noise = rng.standard_normal((len(NAMES), images, 5)).astype(np.float32)
        self.runs = 0

    def __call__(self, mask: NDArray[np.bool_]) -> Logits:
        self.runs += 1
        return self.logits + np.tensordot((HARM * mask).astype(np.float32), self.noise, 1)  # type: ignore[no-any-return]


def costs(saving: float = 1.0) -> Costs:
    layers = {name: Cost(name, {"int8": 2.0, "fp16": 2 + saving, "fp32": 2 + saving}, 10, 4) for name in NAMES}
    return Costs(layers, "ms", "made up")


def evaluations(bench: Bench, **options: Any) -> Evaluations:
    return Evaluations(NAMES, bench, bench.labels, **options)


def find(budget: float, bench: Bench | None = None, **options: Any) -> Found:
    return search(evaluations(bench or Bench()), costs(), SearchSettings(budget), **options)


def test_expected_drop_is_the_mean_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    before = rng.standard_normal(60) + 1
    after = before + 0.3 * rng.standard_normal(60)
    pairs = before[:, None] + (after - before)[None, :]
    assert expected_drop(before, after) == pytest.approx(100 * ((before > 0).mean() - (pairs > 0).mean()))
    assert expected_drop(before, before) == 0


def test_expected_drop_is_finer_than_one_picture() -> None:
    bench = Bench()
    before = margins(bench.logits, bench.labels)
    noisy = [margins(bench.logits + s * bench.noise[0], bench.labels) for s in (0.05, 0.1, 0.2, 0.4, 0.8)]
    drops = [expected_drop(before, after) for after in noisy]
    assert drops == sorted(drops)
    assert 0 < drops[0] < 100 / IMAGES


def test_outcome_counts_what_changes() -> None:
    reference = np.array([[2, 0], [0, 2], [1, 0], [0, 3]], np.float32)
    found = np.array([[0, 2], [2, 0], [1, 0], [0, 3]], np.float32)
    outcome = compare_logits(reference, found, np.array([0, 0, 0, 1]))
    assert (outcome.flips, outcome.flips_to_wrong, outcome.flips_to_right, outcome.drop) == (2, 1, 1, 0)
    assert outcome.noise == pytest.approx(16 / 18)
    assert outcome.snr_db == pytest.approx(10 * np.log10(18 / 16))
    assert outcome.change == pytest.approx(1)
    assert compare_logits(reference, reference, np.zeros(4, int)).snr_db == np.inf


def test_ranking_finds_the_harm() -> None:
    ranking = rank_layers(evaluations(Bench()))
    assert [damage.layer for damage in ranking] == [NAMES[i] for i in np.argsort(-HARM)]
    assert [damage.snr_db for damage in ranking] == sorted(damage.snr_db for damage in ranking)
    assert ranking[0].flips > ranking[-1].flips
    json.dumps([damage.to_dict() for damage in ranking])


def test_error_builds_up_in_the_order_of_the_graph() -> None:
    curve = error_curve(evaluations(Bench()))
    assert [damage.layer for damage in curve] == list(NAMES)
    # noises of the layers are independent: their powers add up, within what 1500 numbers scatter
    power = np.cumsum(HARM**2) / np.square(Bench().logits).mean()
    np.testing.assert_allclose([damage.noise for damage in curve], power, rtol=0.15)


def test_larger_budgets_give_more_int8_and_none_is_exceeded() -> None:
    shares, before = [], set[str]()
    for budget in (0, 0.2, 0.5, 2.0, 10.0, 100.0):
        found = find(budget)
        assert found.outcome.drop <= budget
        assert found.outcome.expected_drop <= budget / 2
        assert found.share_int8 == pytest.approx(len(found.int8) / len(NAMES))
        assert found.cost == pytest.approx(3 * len(NAMES) - len(found.int8))
        assert before <= set(found.int8)
        shares.append(found.share_int8)
        before = set(found.int8)
    assert shares == sorted(shares)
    assert shares[1] < shares[2] < shares[3] < shares[-1] == 1
    assert set(find(2.0).kept) >= {NAMES[i] for i in np.argsort(-HARM)[:2]}


def test_start_is_kept_where_it_is_within_the_budget() -> None:
    worst, second = NAMES[7], NAMES[10]
    assert second not in find(10).int8
    assert second in find(10, start=(second,)).int8
    assert worst not in find(10, start=(worst,)).int8


def test_same_input_same_result() -> None:
    assert json.dumps(find(0.5).to_dict()) == json.dumps(find(0.5).to_dict())


def test_a_layer_that_saves_nothing_stays_in_float() -> None:
    priced = costs()
    priced.layers[NAMES[1]].of["int8"] = 9.0
    found = search(evaluations(Bench()), priced, SearchSettings(100))
    assert found.kept == (NAMES[1],)
    assert any("INT8 saves nothing in layer1" in note for note in found.notes)
    nothing = search(evaluations(Bench()), costs(saving=0.0), SearchSettings(100))
    assert nothing.refusal is not None
    assert "saves nothing in any layer" in nothing.refusal


def test_what_is_expensive_in_float_is_preferred() -> None:
    priced = costs()
    worst = NAMES[7]
    priced.layers[worst].of["fp32"] = 1e9
    assert worst not in find(20).int8
    assert worst in search(evaluations(Bench()), priced, SearchSettings(20)).int8


def test_float_precisions_are_named() -> None:
    found = search(evaluations(Bench()), costs(), SearchSettings(0.5, "fp16"), floats={NAMES[7]: "fp32"})
    assert found.assignment[NAMES[7]] == "fp32"
    assert set(found.assignment.values()) == {"int8", "fp16", "fp32"}
    assert tuple(found.assignment) == NAMES


def test_a_budget_that_no_layer_meets_is_said() -> None:
    bench = Bench()
    bench.noise[:] *= 100
    found = find(0.5, bench)
    assert found.int8 == ()
    assert found.cost == found.cost_float
    assert found.refusal is not None
    assert "no layer can run in INT8 within 0.5 points of top-1: even layer1 alone loses" in found.refusal
    assert "all stays in fp32" in found.refusal


def test_a_budget_below_one_picture_is_said() -> None:
    assert any(
        "one of 300 search pictures is 0.33 points, more than the budget of 0.2" in n for n in find(0.2).warnings
    )
    assert not find(0.5).warnings


def test_without_labels_every_flip_is_a_loss() -> None:
    bench = Bench()
    outcome = Evaluations(NAMES, bench).measure(NAMES)
    assert outcome.flips == outcome.flips_to_wrong > 0
    assert outcome.flips_to_right == 0


def test_interrupted_search_goes_on(tmp_path: Path) -> None:
    state, key = tmp_path / "state.json", {"model": "a", "data": "b"}
    bench = Bench()

    def stop(done: int, of: int, what: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(evaluations(bench, state=state, key=key), costs(), SearchSettings(0.5), stop)
    first = bench.runs
    resumed = evaluations(bench, state=state, key=key)
    assert resumed.notice is None
    told: list[tuple[int, int, str]] = []
    found = search(resumed, costs(), SearchSettings(0.5), lambda *step: told.append(step))
    assert [done for done, _, _ in told] == list(range(1, len(told) + 1))
    assert told[-1][0] == told[-1][1]
    assert found.to_dict() == find(0.5).to_dict()
    again = bench.runs - first
    assert again == 1 + len(json.loads(state.read_text())["evaluations"]) - 5  # float, and what was not known
    runs = bench.runs
    search(evaluations(bench, state=state, key=key), costs(), SearchSettings(0.5))
    assert bench.runs == runs + 1


def test_stale_and_damaged_state_is_ignored_with_a_sentence(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    key = {"model": "a", "data": "b"}
    rank_layers(evaluations(Bench(), state=state, key=key))
    stale = evaluations(Bench(), state=state, key={"model": "a", "data": "c"})
    assert stale.notice is not None
    assert "is ignored and written anew: it was made with other data" in stale.notice
    assert not stale.known((NAMES[0],))
    assert Evaluations(NAMES[:5], lambda mask: Bench()(np.resize(mask, 12)), state=state, key=key).notice is not None
    for text in ("{", "[]", '{"format": "edge-lsla precision search", "version": 1}', "\xff"):
        state.write_text(text, "latin-1")
        damaged = evaluations(Bench(), state=state, key=key)
        assert damaged.notice is not None
        assert "is ignored" in damaged.notice
    damaged.measure(NAMES)
    whole = json.loads(state.read_text())
    for values in ({"images": 0}, {"images": "7"}, {"images": 1}, {"noise": -1.0}, {"flips": -3},
                   {"flips_to_wrong": 1e9}, {"noise": "x"}, {"change": None}, {"expected_drop": True},
                   {"more": 1}):  # fmt: skip
        fields = json.loads(json.dumps(whole))
        next(iter(fields["evaluations"].values())).update(values)
        state.write_text(json.dumps(fields))
        damaged = evaluations(Bench(), state=state, key=key)
        assert damaged.notice is not None, values
        assert not damaged.known(NAMES)
    damaged.measure(NAMES)
    assert evaluations(Bench(), state=state, key=key).known(NAMES)


def test_a_state_that_cannot_be_kept_does_not_stop_the_search(tmp_path: Path) -> None:
    bench = evaluations(Bench(), state=tmp_path / "absent" / "state.json")
    assert bench.notice is None
    outcome = bench.measure(NAMES)
    assert bench.notice is not None
    assert "results cannot be kept" in bench.notice
    bench.notice = None
    assert bench.measure(NAMES[:2]) != outcome
    assert bench.notice is None  # told once


def test_wrong_input_is_refused() -> None:
    bench = Bench()
    with pytest.raises(DatasetError, match="no picture"):
        Evaluations(NAMES, lambda mask: np.zeros((0, 5), np.float32))
    for labels in (bench.labels[:-1], bench.labels + 3, bench.labels - 9):
        with pytest.raises(UsageError, match="labels do not fit"):
            Evaluations(NAMES, bench, labels)
    with pytest.raises(UsageError, match="nowhere"):
        evaluations(bench).measure(["nowhere"])
    bench.noise[3, 7] = np.nan
    with pytest.raises(EdgeLslaError, match="NaN or infinity: INT8 in layer3"):
        Evaluations(NAMES, lambda mask: bench(mask) if mask.any() else bench.logits).measure([NAMES[3]])
    unpriced = costs()
    del unpriced.layers[NAMES[2]]
    with pytest.raises(UsageError, match="no cost in int8 and fp32: layer2"):
        search(evaluations(Bench()), unpriced, SearchSettings(1))


@pytest.mark.parametrize("fields", [{"max_drop": -1}, {"max_drop": float("nan")}, {"max_drop": 1, "reserve": 2},
                                    {"max_drop": 1, "fallback": "int8"}])  # fmt: skip
def test_settings_name_the_field(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=list(fields)[-1]):
        SearchSettings(**fields)


def test_mixed_precision_rescues_a_model_that_plain_int8_ruins(
    fused: onnx.ModelProto, images: NDArray[np.float32]
) -> None:
    """Hidden channels 800 times as large as the others, behind two GELUs: only what reads them must stay in float."""
    hard = make_hard(fused, factor=800, place="gelu", only=[0, 1])
    ranges = collect_ranges(hard, [images], CalibrationSettings())
    session = SwitchedSession(hard, ranges, QdqSettings("onnxruntime"), threads=1)
    pictures = np.random.default_rng(8).standard_normal((200, 3, 32, 32), dtype=np.float32)
    tested = Evaluations(session.names, lambda mask: session.logits(pictures, mask))
    # Without labels each flip is a loss, and a random model decides nothing clearly: 4 % stands for a wide budget.
    settings = SearchSettings(4.0)
    plain = tested.measure(session.names)
    assert not settings.accept(plain)
    found = search(tested, estimated_costs(hard, "onnxruntime"), settings)
    assert settings.accept(found.outcome)
    harmed = {layer.name for layer in find_layers(hard) if layer.activation in ("gelu", "gelu_1")}
    assert len(harmed) == 2
    assert harmed <= set(found.kept)
    assert len(found.int8) >= 5
    assert found.outcome.flips < plain.flips / 2
