"""No damaged bundle opens, whether or not the damage is followed by a repair of the digest and the CRCs."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import bundle_parts as parts
import pytest

from edge_lsla.bundle import open_bundle, strict_json
from edge_lsla.errors import BundleError, EdgeLslaError

Repair = Callable[[bytes], bytes]


def as_is(data: bytes) -> bytes:
    return data


def refusal_of(path: Path) -> EdgeLslaError | None:
    try:
        open_bundle(path).close()
    except EdgeLslaError as error:
        return error
    return None


@pytest.fixture
def refuses(tmp_path: Path) -> Iterator[Callable[[bytes, str], None]]:
    path = tmp_path / "damaged.lsla"
    file = path.open("wb", buffering=0)  # kept open: truncating a file anew thousands of times is slow on some disks

    def check(data: bytes, what: str) -> None:
        file.seek(0)
        file.write(data)
        file.truncate()
        error = refusal_of(path)
        assert isinstance(error, BundleError), what
        assert error.exit_code == 2
        text = str(error)
        assert str(path) in text, what
        assert ";" in text, what
        assert "\n" not in text, what

    yield check
    file.close()


def headers(data: bytes) -> Iterator[int]:
    """Every byte that belongs to no entry."""
    inside = {position for _, _, first, end, _ in parts.records(data) for position in range(first, end)}
    return (position for position in range(len(data)) if position not in inside)


def flipped(data: bytes, position: int, mask: int) -> bytes:
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


def mutations(data: bytes, count: int, seed: int) -> Iterator[tuple[bytes, str]]:
    """Seeded flips, cuts, insertions, doublings and exchanges of pieces, none of which changes nothing."""
    chance = random.Random(seed)
    made = 0
    while made < count:
        start, stop = sorted(chance.sample(range(len(data) + 1), 2))
        kind = chance.choice(("flip", "cut", "end", "insert", "double", "zero", "exchange"))
        before, piece, after = data[:start], data[start:stop], data[stop:]
        if kind == "flip":
            changed = flipped(data, start, chance.randrange(1, 256))
        elif kind == "cut":
            changed = before + after
        elif kind == "end":
            changed = before
        elif kind == "insert":
            changed = before + chance.randbytes(chance.randrange(1, 80)) + piece + after
        elif kind == "double":
            changed = before + piece + piece + after
        elif kind == "zero":
            changed = before + bytes(len(piece)) + after
        else:
            changed = before + after[: len(piece)] + piece + after[len(piece) :]
        if changed != data:
            made += 1
            yield changed, f"{kind} {start}..{stop} (seed {seed})"


def test_every_flipped_header_and_manifest_byte_is_refused(
    bundle_bytes: bytes, refuses: Callable[[bytes, str], None]
) -> None:
    chance = random.Random(1)
    manifest = parts.records(bundle_bytes)[0]
    for position in (*headers(bundle_bytes), *range(manifest[2], manifest[3])):
        refuses(flipped(bundle_bytes, position, chance.randrange(1, 256)), f"flip at {position}")


def test_every_header_bit_is_refused_when_the_digest_is_repaired(
    bundle_bytes: bytes, refuses: Callable[[bytes, str], None]
) -> None:
    for position in headers(bundle_bytes):
        if position < len(bundle_bytes) - 64:
            for bit in range(8):
                refuses(parts.reseal(flipped(bundle_bytes, position, 1 << bit)), f"flip of bit {bit} at {position}")


def test_every_manifest_byte_is_refused_when_the_digest_is_repaired(
    bundle_bytes: bytes, refuses: Callable[[bytes, str], None]
) -> None:
    chance = random.Random(2)
    manifest = parts.records(bundle_bytes)[0]
    for position in range(manifest[2], manifest[3]):
        refuses(parts.reseal(flipped(bundle_bytes, position, chance.randrange(1, 256))), f"flip at {position}")


@pytest.mark.parametrize("repair", [as_is, parts.reseal])
def test_random_damage_is_refused(bundle_bytes: bytes, refuses: Callable[[bytes, str], None], repair: Repair) -> None:
    tried = 0
    for data, what in mutations(bundle_bytes, 1000, seed=3):
        if (data := repair(data)) != bundle_bytes:  # damage to the digest alone is undone by the repair
            refuses(data, what)
            tried += 1
    assert tried > 900


def test_a_manifest_that_was_changed_and_repaired_throughout_is_refused_or_says_what_it_says(
    bundle_bytes: bytes, tmp_path: Path
) -> None:
    """Only a signature can notice a label exchanged for another; what opens must still be exactly what was written."""
    chance = random.Random(4)
    path = tmp_path / "changed.lsla"
    file = path.open("wb", buffering=0)
    manifest = parts.records(bundle_bytes)[0]
    refused = 0
    for position in range(manifest[2], manifest[3]):
        data = parts.fix_crcs(flipped(bundle_bytes, position, chance.choice((1, 2, 4, 8, 16, 32, 64, 128))))
        file.seek(0)
        file.write(data)
        file.truncate()
        error = refusal_of(path)
        if error is None:
            with open_bundle(path) as bundle:
                assert strict_json.dump(bundle.manifest.to_dict()) == data[manifest[2] : manifest[3]]
        else:
            assert error.exit_code in (2, 4)
            assert str(path) in str(error)
            refused += 1
    file.close()
    assert refused > (manifest[3] - manifest[2]) * 0.6


def test_an_entry_that_was_changed_and_repaired_is_refused(
    bundle_bytes: bytes, refuses: Callable[[bytes, str], None]
) -> None:
    chance = random.Random(5)
    for name, _, first, end, _ in parts.records(bundle_bytes)[1:]:
        for position in (first, end - 1, *chance.sample(range(first, end), 40)):
            data = parts.fix_crcs(flipped(bundle_bytes, position, chance.randrange(1, 256)))
            refuses(data, f"flip at {position} of {name}")


def test_every_length_is_refused(bundle_bytes: bytes, refuses: Callable[[bytes, str], None]) -> None:
    for length in range(0, len(bundle_bytes), 7):
        refuses(bundle_bytes[:length], f"cut to {length}")
        refuses(parts.reseal(bundle_bytes[:length] + b"0" * 64), f"cut to {length} and sealed")
    refuses(bundle_bytes + b"\0", "one byte more")
    refuses(b"\0" + bundle_bytes, "one byte before")
