"""How fast a bundle is here."""

from __future__ import annotations

from pathlib import Path


def test_precisions_are_measured_side_by_side(command, bundle: Path) -> None:
    result = command("benchmark", bundle, "--batch", "1,3", "--repeats", 10, "--json")
    assert result.code == 0, result.err
    rows = result.json["results"]
    assert [(row["precision"], row["batch"]) for row in rows] == [("int8", 1), ("fp32", 1), ("int8", 3), ("fp32", 3)]
    for row in rows:
        assert 0 < row["median_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert abs(row["images_per_second"] - 1000 * row["batch"] / row["median_ms"]) < 0.1
    assert result.json["device"]["backend"] == "onnxruntime"
    one = command("benchmark", bundle, "--precision", "fp32", "--repeats", 10, "--json")
    assert [row["precision"] for row in one.json["results"]] == ["fp32"]


def test_what_cannot_be_measured_is_a_sentence(command, bundle: Path) -> None:
    for arguments, words in (
        (("--batch", "1,x"), "batch sizes are numbers from 1 to 4096"),
        (("--batch", "0"), "batch sizes are numbers from 1 to 4096"),
        (("--precision", "fp32,fp64"), "unknown precision 'fp64'"),
    ):
        result = command("benchmark", bundle, *arguments)
        assert (result.code, words in result.err, result.err.count("\n")) == (2, True, 1), result.err
