from pathlib import Path
from typing import Any

import bundle_parts as parts
import pytest

from edge_lsla.bundle import Manifest, open_bundle, write_bundle
from edge_lsla.bundle.strict_json import parse
from edge_lsla.errors import BundleError

KNOWN = {"threshold": 0.62, "right": 0.951, "coverage": 0.88, "images": 420}


def test_a_threshold_travels_with_the_bundle(tmp_path: Path) -> None:
    path = tmp_path / "a.lsla"
    write_bundle(path, parts.passport(abstention=KNOWN), parts.artifacts(), parts.golden())
    with open_bundle(path) as bundle:
        assert bundle.manifest.abstention == KNOWN
        assert bundle.manifest.threshold == 0.62
        assert Manifest.from_dict(parse(bundle.manifest.text())).sha256() == bundle.manifest.sha256()


def test_bundles_without_one_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.lsla"
    parts.write(path)
    with open_bundle(path) as bundle:
        assert (bundle.manifest.abstention, bundle.manifest.threshold) == (None, 0.0)
        assert b"abstention" not in bundle.manifest.text()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, "abstention"),
        ([], "abstention"),
        ({}, "abstention.threshold"),
        (KNOWN | {"threshold": 1.5}, "abstention.threshold"),
        (KNOWN | {"right": -1}, "abstention.right"),
        (KNOWN | {"coverage": "all"}, "abstention.coverage"),
        (KNOWN | {"images": 0}, "abstention.images"),
    ],
)
def test_a_threshold_that_cannot_be_used_is_named(tmp_path: Path, value: Any, named: str) -> None:
    path = tmp_path / "a.lsla"
    parts.write(path)
    with open_bundle(path) as bundle:
        values = bundle.manifest.to_dict() | {"abstention": value}
    with pytest.raises(BundleError) as caught:
        Manifest.from_dict(values)
    assert caught.value.where == named
