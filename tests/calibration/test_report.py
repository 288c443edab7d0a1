"""The calibration report: what it holds, what it leaves out, and that no name can break it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_parts import HOSTILE, exact_point, full_report, without

from calibration.report.data import (
    ClassChange,
    Curve,
    CurvePoint,
    Flip,
    Form,
    LayerDamage,
    LayerHistogram,
    Making,
    ReportData,
    SearchStep,
    Verdict,
    worst_first,
)
from calibration.report.layers import choose_histograms
from calibration.report.page import render
from calibration.report.pictures import SIDE, data_uri, thumbnail
from calibration.report.wording import cut, cut_apart, number, plain, short, small_share
from calibration.report.write import check_report, pending_report, read_report, to_json, write_report
from edge_lsla.errors import EdgeLslaError, UsageError

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "accuracy": "forms",
    "classes": "classes",
    "flips": "flips",
    "sensitivity": "damages",
    "histograms": "histograms",
    "curve": "curves",
    "search": "search",
    "costs": "forms",
    "making": "making",
    "warnings": "making",
}
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Reads a page strictly: every element that opens is closed, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts).replace("\N{NO-BREAK SPACE}", " ")

    def sections(self) -> set[str]:
        return {str(attrs["id"]) for tag, attrs in self.tags if tag == "section" and "id" in attrs}


@pytest.fixture(scope="module")
def html() -> str:
    return render(full_report())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_has_every_section_and_says_the_verdict_first(page: Page) -> None:
    assert page.sections() == set(SECTIONS)
    headline = page.text.index("INT8 ships, says ant.")
    assert headline < page.text.index("Read with care") < page.text.index("Accuracy of each form")
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links == [f"#{name}" for name in SECTIONS if name != "warnings"]


def test_figures_are_told_as_they_are(page: Page) -> None:
    for text in (
        "79.10 %",
        "75.0 to 82.7",
        "\N{MINUS SIGN}0.50 to 1.00",
        "98.60 %",
        "1.27 MB",
        "1.98 ms",
        "28 %",
        "1.08\N{MULTIPLICATION SIGN}",
    ):
        assert text in page.text


@pytest.mark.parametrize("field", sorted(set(SECTIONS.values())))
def test_a_section_without_data_is_left_out(field: str) -> None:
    gone = {section for section, source in SECTIONS.items() if source == field}
    assert Page(render(without(field))).sections() == set(SECTIONS) - gone


def test_a_report_may_hold_nothing_but_a_verdict() -> None:
    page = Page(render(ReportData("m", Verdict(("Nothing was measured.",)))))
    assert page.sections() == set()
    assert "Nothing was measured." in page.text
    assert "nothing ships" in page.text
    assert not any(tag in ("table", "nav", "details") for tag, _ in page.tags)


def test_a_forced_build_is_marked() -> None:
    page = Page(render(ReportData("m", Verdict(("Forced.",), "int8", 0.5, forced=True))))
    assert "forced past the gate" in page.text


def test_nothing_can_be_loaded_from_outside(html: str, page: Page) -> None:
    policies = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert not {"script", "link", "iframe", "object", "base", "foreignobject"} & {tag for tag, _ in page.tags}
    for _, attrs in page.tags:
        for name, value in attrs.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in ("src", "href"):
                assert str(value).startswith(("data:image/jpeg;base64,", "#"))
    assert "http:" not in html
    assert "https:" not in html


def test_identifiers_are_unique(page: Page) -> None:
    found = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(found) == len(set(found)) > len(SECTIONS)


def test_drawings_use_the_colours_of_the_page(html: str, page: Page) -> None:
    drawings = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(drawings) == 1 + 1 + 1 + 2 + 12 + 2 + 2 + 2  # three of them for both widths
    assert all(attrs["aria-label"] for attrs in drawings)
    assert "var(--int8)" in html
    assert "#00000" not in html  # every placeholder of a colour was replaced


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_stay_text(name: str, page: Page) -> None:
    html = render(full_report((name, f"{name}2")))
    usual, page = page, Page(html)
    shown = plain(name)
    assert page.text.count(shown) > 10
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in usual.tags}
    assert not {"\x00", "\x1b", "\ud800", "\u202e", "\ufffe"} & set(html)


def test_the_same_data_gives_the_same_bytes(html: str) -> None:
    code = (
        "import sys, hashlib; sys.path.insert(0, 'tests/calibration'); from report_parts import full_report;"
        "from calibration.report.page import render; print(hashlib.sha256(render(full_report()).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": "."}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.stdout.strip() == hashlib.sha256(html.encode()).hexdigest(), run.stderr


def test_drawing_ignores_and_keeps_the_users_matplotlib_style(html: str) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 33, "axes.facecolor": "red"}):
        assert render(full_report()) == html
        assert matplotlib.rcParams["font.size"] == 33
    assert "matplotlib.pyplot" not in sys.modules


def test_importing_the_report_loads_no_plotting_library() -> None:
    code = "import sys, calibration.report.write; print('matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_write_report_writes_both_files_whole(tmp_path: Path, html: str) -> None:
    data = full_report()
    write_report(data, tmp_path / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html
    assert read_report(tmp_path / "report.json") == data


@pytest.mark.parametrize("name", HOSTILE[:4], ids=range(4))
def test_json_keeps_hostile_names(name: str, tmp_path: Path) -> None:
    data = full_report((name,))
    (tmp_path / "report.json").write_text(to_json(data), encoding="ascii")
    assert read_report(tmp_path / "report.json") == data


def test_a_pending_report_comes_with_what_is_done_meanwhile_or_not_at_all(tmp_path: Path) -> None:
    data = ReportData("m", Verdict(("Yes.",)))
    with pytest.raises(KeyError), pending_report(data, tmp_path / "r.html"):
        raise KeyError("the bundle")
    assert list(tmp_path.iterdir()) == []
    with pending_report(data, tmp_path / "r.html"):
        assert not (tmp_path / "r.html").exists()
    assert read_report(tmp_path / "r.json") == data
    check_report(tmp_path / "r.html")  # its own may be replaced
    (tmp_path / "r.json").write_text('{"mine": 1}')
    with pytest.raises(UsageError, match=r"would overwrite another file: .*r\.json"):
        check_report(tmp_path / "r.html")


@pytest.mark.parametrize(("path", "message"), [("r.json", "ends in .html"), ("none/r.html", "no such folder")])
def test_write_report_refuses_a_wrong_path(path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        write_report(ReportData("m", Verdict(("Yes.",))), tmp_path / path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(model=3), "ReportData.model"),
        (lambda r: r.update(extra=1), "ReportData.extra"),
        (lambda r: r.pop("verdict"), "ReportData.verdict"),
        (lambda r: r["forms"][0].update(top1=101.0), "Form.top1"),
        (lambda r: r["forms"][1].update(drop_interval=[1]), "Form.drop_interval"),
        (lambda r: r["forms"][1].update(size=1.5), "Form.size"),
        (lambda r: r["forms"][1].update(size=True), "Form.size"),
        (lambda r: r["flips"][0].update(picture={"base64": "*"}), "Flip.picture"),
        (lambda r: r["flips"][0].update(picture="text"), "Flip.picture"),
        (lambda r: r["search"].append(3), r"ReportData.search\[4\]"),
        (lambda r: r["verdict"].update(sentences=[]), "Verdict.sentences"),
        (lambda r: r["curves"][0]["points"].pop(), "ReportData.curves"),
    ],
)
def test_a_damaged_report_is_refused_and_the_field_named(change, message: str, tmp_path: Path) -> None:
    fields = json.loads(to_json(full_report()))
    change(fields["report"])
    path = tmp_path / "report.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(UsageError, match=message):
        read_report(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "edge-lsla calibration report", "version": 2}'])
def test_another_file_is_no_report(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="report"):
        read_report(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e400, "3", None])
def test_numbers_must_be_numbers(value: object) -> None:
    with pytest.raises(UsageError, match=r"SearchStep\.drop"):
        SearchStep(0.5, value, True)  # type: ignore[arg-type]


def test_numbers_of_numpy_become_pythons() -> None:
    step = SearchStep(np.float32(0.5), np.float64(1), bool(np.True_), (np.int64(0), 1))  # type: ignore[arg-type]
    assert step == SearchStep(0.5, 1.0, True, (0.0, 1.0))
    assert type(step.int8_share) is float


def test_more_right_answers_than_pictures_are_refused() -> None:
    with pytest.raises(UsageError, match="more right answers than 3"):
        ClassChange("ant", 4, 3, 3)


def test_flips_are_ordered_worst_first() -> None:
    def flip(name: str, before: str, after: str, p: float) -> Flip:
        return Flip(name, "t", before, p, after, p)

    lost, sure = flip("a", "t", "x", 0.5), flip("b", "t", "x", 0.9)
    moved, won = flip("c", "x", "y", 1.0), flip("d", "x", "t", 1.0)
    assert worst_first([won, moved, lost, sure]) == (sure, lost, moved, won)


def test_only_the_worst_flips_are_pictured_and_the_rest_counted(page: Page) -> None:
    cards = sum(tag == "figcaption" for tag, _ in page.tags) - 12  # those of the histograms
    assert cards == 24
    assert "And 6 more pictures whose answer changed" in page.text


def test_infinite_ratios_mean_that_nothing_differs() -> None:
    data = dataclasses.replace(full_report(), curves=(Curve("fp16", (exact_point(), CurvePoint("next", 61.0))),))
    assert exact_point().sqnr_db is None
    page = Page(render(data))
    assert "no difference" in page.text
    assert "the largest error is at layer 2, next" in page.text
    assert LayerDamage("a", "fp32", float("inf"), 0).snr_db is None


def test_a_histogram_is_cut_to_its_values_and_merged() -> None:
    counts = np.zeros(2048, np.int64)
    counts[1000:1400] = 5
    found = LayerHistogram.of("layer", "tensor", counts, -8.0, 8.0, (-1.0, 1.0))
    assert len(found.counts) <= 128
    assert sum(found.counts) == 2000
    assert found.low == pytest.approx(-8 + 1000 / 128)
    assert found.high >= -8 + 1400 / 128
    # Bins from 1000 to 1151 lie below 1.0; the other 248 of 400 lie beyond it.
    assert found.outside == pytest.approx(248 / 400)


def test_no_value_is_outside_a_range_from_end_to_end() -> None:
    counts = [0] * 64
    counts[3], counts[40] = 5, 7  # from -7.25 to -7, of which -7.05 is the least; from 2 to 2.25, 2.01 the largest
    options = ("layer", "tensor", counts, -8.0, 8.0)
    assert LayerHistogram.of(*options, (-7.05, 2.01), extremes=(-7.05, 2.01)).outside == 0
    assert LayerHistogram.of(*options, (-7.05, 1.9), extremes=(-7.05, 2.01)).outside == pytest.approx(7 / 12)
    assert LayerHistogram.of(*options, (-7.05, 2.01)).outside > 0


def test_an_empty_histogram_can_be_drawn() -> None:
    found = LayerHistogram.of("layer", "tensor", [0] * 16, 0.0, 0.0, (0.0, 0.0))
    assert Page(render(ReportData("m", Verdict(("Yes.",)), histograms=(found,)))).sections() == {"histograms"}


def test_histograms_are_chosen_by_damage_and_by_what_is_cut_off() -> None:
    def one(name: str, outside: float) -> LayerHistogram:
        return LayerHistogram(name, name, (1,), 0.0, 1.0, 0.0, 1.0, outside)

    found = [one("calm", 0.0), one("clipped", 0.2), one("little", 0.01), one("damaging", 0.0)]
    damages = [LayerDamage("damaging", "fp32", 3.0), LayerDamage("calm", "int8", 50.0)]
    assert [entry.layer for entry in choose_histograms(found, damages, 2)] == ["clipped", "damaging"]
    assert choose_histograms(found, [], 9) == tuple(sorted(found, key=found.index))


@pytest.mark.parametrize(
    "data",
    [
        {"forms": (Form("fp32", 50.0), Form("int8", 50.0, drop=0.0))},
        {"forms": (Form("fp32", size=3), Form("int8", latency_ms=0.0))},
        {"classes": (ClassChange("ant", 1, 1, 2),)},
        {"classes": tuple(ClassChange(f"class {n}", 2, 3 if n % 2 else 1, 4) for n in range(102))},
        {"damages": (LayerDamage("a", "int8", flips=3), LayerDamage("b", "odd", flips=0))},
        {"damages": (LayerDamage("a", "int8", -40.0), LayerDamage("b", "int8"))},
        {"curves": (Curve("int8", (CurvePoint("only", -5.0),)),)},
        {"curves": tuple(Curve(f"form {n}", (CurvePoint("only", 5.0 * n),)) for n in range(7))},
        {"search": (SearchStep(1.0, 0.0, True),)},
        {"making": Making(warnings=("Only a warning.",))},
    ],
    ids=lambda data: next(iter(data)),
)
def test_odd_but_possible_data_is_drawn_without_warnings(data: dict[str, object]) -> None:
    page = Page(render(ReportData("m", Verdict(("Yes.",), budget=0.0), **data)))  # type: ignore[arg-type]
    assert page.sections()


@pytest.mark.parametrize("kind", ["array", "bytes", "path"])
def test_thumbnails_are_small_and_tell_nothing_else(kind: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (400, 600, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", exif=exif, comment=b"a secret place")
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded.getvalue())
    made = thumbnail({"array": pixels, "bytes": encoded.getvalue(), "path": path}[kind])
    with Image.open(io.BytesIO(made)) as image:
        assert image.size == (SIDE, round(SIDE * 400 / 600))
    assert b"secret" not in made
    assert data_uri(made).startswith("data:image/jpeg;base64,/9j/")


def test_only_pictures_become_data_uris() -> None:
    with pytest.raises(UsageError, match=r"neither JPEG nor PNG: Flip\.picture"):
        data_uri(b"<svg onload='alert(1)'/>")


def test_a_missing_plotting_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EdgeLslaError, match="matplotlib is missing"):
        render(full_report())


def test_words() -> None:
    assert number(-0.001, 2) == "0.00"
    assert number(-1234.5, 1) == "\N{MINUS SIGN}1,234.5"
    assert [short(value) for value in (1, 100, 1e4, 1e6, 2e9)] == ["1", "100", "10k", "1M", "2G"]
    assert [small_share(value).replace("\N{NO-BREAK SPACE}", " ") for value in (0, 1e-6, 3e-5, 0.02, 0.25, 1)] == [
        "0 %", "below 0.001 %", "0.003 %", "2.00 %", "25.0 %", "100 %",
    ]  # fmt: skip
    assert cut("stages.2.3.mlp.fc1", 10) == "stag…p.fc1"
    assert cut("漢" * 20, 9) == "漢漢…漢漢"
    common = "stages.2.3.mlp.fc"
    assert cut_apart([f"{common}1.one.more", "head", f"{common}2.one.more"], 12) == [
        "…1.one.more", "head", "…2.one.more",
    ]  # fmt: skip
    assert cut_apart(["a" * 40, "a" * 40], 9) == ["aaaa…aaaa"] * 2
