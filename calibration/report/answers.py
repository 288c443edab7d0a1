"""Sections about answers: accuracy, classes, pictures that flipped; each is None where its data is absent."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from calibration.report import plots
from calibration.report.data import ClassChange, Flip, Form, ReportData, worst_first
from calibration.report.elements import Child, folded, section, table, tag
from calibration.report.pictures import data_uri
from calibration.report.wording import (
    ABSENT,
    count,
    cut,
    cut_apart,
    megabytes,
    milliseconds,
    number,
    percent,
    plain,
    signed,
    span,
    title,
)

FLIPS_SHOWN = 24
CLASSES_DRAWN = 24
FLIPS_LISTED = 500
LABEL = 40  # columns of a class name below a picture


def accuracy(data: ReportData) -> Element | None:
    """Lay out every form in a table, and what each loses as a drawing."""
    if not any(form.top1 is not None for form in data.forms):
        return None
    head = ("form", "right answers", "95 % between", "points lost", "95 % between", "same answer", "size", "time")
    rows = [
        (
            title(form.name) + (" (ships)" if form is data.shipped else ""),
            percent(form.top1),
            span(form.interval, 1),
            ABSENT if form.drop is None else number(form.drop, 2),
            span(form.drop_interval),
            percent(form.agreement),
            megabytes(form.size),
            milliseconds(form.latency_ms),
        )
        for form in data.forms
    ]
    losers = [form for form in data.forms if form.drop is not None]
    return section(
        "accuracy",
        "Accuracy of each form",
        "The same pictures were shown to each form of the model. “Right answers” is top-1: how often the first guess "
        "is the truth. “Points lost” compares a form with the reference, picture by picture; a negative number is a "
        "gain. “95 % between” holds the true value with 95 % confidence; the fewer the pictures, the wider it is. "
        "“Same answer” counts how often a form names the same class as the reference, right or wrong.",
        table(head, rows, _measured(data), "cards"),
        _losses(losers, data.verdict.budget) if losers else None,
    )


def classes(data: ReportData) -> Element | None:
    """Show which classes won or lost pictures."""
    if not data.classes:
        return None
    before, after = map(title, data.compared)
    changed = sorted(data.classes, key=lambda entry: (entry.after - entry.before, entry.label))
    changed = [entry for entry in changed if entry.after != entry.before]
    drawn = _ends(changed, CLASSES_DRAWN)
    rest = f" The {len(drawn)} largest changes are drawn." if len(drawn) < len(changed) else ""
    rows = [
        (
            entry.label,
            str(entry.before),
            str(entry.after),
            signed(entry.after - entry.before, 0),
            str(entry.images),
        )
        for entry in sorted(data.classes, key=lambda entry: (entry.after - entry.before, entry.label))
    ]
    head = ("class", before, after, "change", "of")
    every = table(head, rows, f"pictures named rightly, {_measured(data)}")
    return section(
        "classes",
        "Changes by class",
        f"A small loss overall can hide a large one in a single class. From {before} to {after}, "
        f"{len(changed)} of {count(len(data.classes), 'class', 'classes')} changed.{rest}",
        tag(
            "div",
            tag("div", plots.class_changes(drawn)) if drawn else None,
            every if len(rows) <= CLASSES_DRAWN else folded("All classes", every),
            class_="beside",
        ),
    )


def flips(data: ReportData) -> Element | None:
    """Show the pictures whose answer changed, worst first."""
    if not data.flips:
        return None
    before, after = map(title, data.compared)
    ordered = worst_first(data.flips)
    shown, rest = ordered[:FLIPS_SHOWN], ordered[FLIPS_SHOWN:]
    headings = {
        "lost": f"Lost: right in {before}, wrong in {after}",
        "moved": "Wrong in both, in another way",
        "won": f"Won: wrong in {before}, right in {after}",
    }
    parts: list[Child] = []
    for kind, heading in headings.items():
        cards = [_flip_card(flip, before, after) for flip in shown if flip.kind == kind]
        total = sum(flip.kind == kind for flip in ordered)
        if cards:
            parts += [tag("h3", f"{heading} ({total:,})"), tag("div", *cards, class_="flips")]
    if rest:
        listed = rest[:FLIPS_LISTED]
        rows = [(f.name, f.truth, f"{f.before} {_probability(f.before_p)}", f"{f.after} {_probability(f.after_p)}")
                for f in listed]  # fmt: skip
        left = f", the first {len(listed)} are listed" if len(listed) < len(rest) else ""
        parts.append(
            folded(
                f"And {count(len(rest), 'more picture')} whose answer changed{left}",
                table(("picture", "truth", before, after), rows, "worst first", "cards"),
            )
        )
    return section(
        "flips",
        "Pictures whose answer changed",
        f"{'This' if len(ordered) == 1 else 'These'} {count(len(ordered), 'picture')} got another answer in {after} "
        f"than in {before}. The percentage is how "
        "sure the model was. Answers that were close to a tie tip over easily, in both directions; a sure answer that "
        "is lost deserves a look.",
        *parts,
    )


def _losses(forms: Sequence[Form], budget: float | None) -> Element:
    """Draw what each form loses, with the words to read it."""
    text = "A dot is the loss that was measured; the true one lies within the bar behind it with 95 % confidence."
    if budget is not None:
        text += f" The dashed line is the budget: a form may lose {number(budget, 2)} points."
    return tag("div", tag("div", plots.drops(forms, budget)), tag("p", text, class_="muted"), class_="beside")


def _flip_card(flip: Flip, before: str, after: str) -> Element:
    picture = (
        tag("img", src=data_uri(flip.picture), alt=f"a picture of {flip.truth}")
        if flip.picture
        else tag("div", class_="blank")
    )
    names = (flip.truth, flip.before, flip.after)
    short = dict(zip(names, cut_apart(names, LABEL)))
    answers = [
        tag(
            "div",
            f"{form}: ",
            tag("span", f"{'✓' if label == flip.truth else '✗'} {short[label]} {_probability(p)}",
                class_="good" if label == flip.truth else "bad"),
        )
        for form, label, p in ((before, flip.before, flip.before_p), (after, flip.after, flip.after_p))
    ]  # fmt: skip
    truth = tag("div", "truth: ", tag("b", short[flip.truth]))
    return tag(
        "figure", picture, tag("figcaption", truth, *answers, tag("div", cut(flip.name, 2 * LABEL), class_="name"))
    )


def _ends(ordered: Sequence[ClassChange], most: int) -> list[ClassChange]:
    """Take the largest changes of both signs, in the same order."""
    kept = sorted(ordered, key=lambda entry: -abs(entry.after - entry.before))[:most]
    return [entry for entry in ordered if entry in kept]


def _measured(data: ReportData) -> str:
    return f"measured on {plain(data.measured_on)}" if data.measured_on else "measured on the evaluation pictures"


def _probability(share: float) -> str:
    return percent(100 * share, 0)
