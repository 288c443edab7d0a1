from edge_lsla.events import Box
from edge_lsla.pipeline.regions import fit_to_expected, grouped, share_inside, square_around


def test_a_crop_is_square_padded_and_inside() -> None:
    assert square_around(Box(100, 100, 140, 120), 0.25, (640, 480)) == Box(90, 80, 150, 140)
    # At an edge it is moved, so that it stays as large as it is elsewhere.
    assert square_around(Box(0, 0, 40, 20), 0.25, (640, 480)) == Box(0, 0, 60, 60)
    assert square_around(Box(600, 470, 640, 480), 0.25, (640, 480)) == Box(580, 420, 640, 480)
    # Larger than the frame is high: clipped.
    assert square_around(Box(0, 0, 640, 480), 0.15, (640, 480)) == Box(0, 0, 640, 480)


def test_shares_and_groups() -> None:
    assert share_inside(Box(0, 0, 10, 10), Box(5, 0, 15, 10)) == 0.5
    assert share_inside(Box(0, 0, 10, 10), Box(20, 0, 30, 10)) == 0
    chain = [Box(0, 0, 10, 10), Box(30, 0, 40, 10), Box(12, 0, 28, 10)]
    assert grouped(chain, 2) == [[0, 1, 2]]
    assert grouped(chain, 1) == [[0], [1], [2]]


def test_a_blob_with_two_known_individuals_is_divided() -> None:
    left, right = Box(100, 100, 140, 140), Box(150, 100, 190, 140)
    blob = Box(98, 98, 192, 142)
    assert fit_to_expected([blob], [left, right]) == [left, right]
    assert fit_to_expected([blob], [left]) == [blob]  # who the rest is, nobody knows yet
    # One right before the other: there is one to see.
    assert fit_to_expected([Box(100, 100, 141, 141)], [left, Box(101, 101, 141, 141)]) == [Box(100, 100, 141, 141)]


def test_parts_of_one_known_individual_are_joined_and_others_are_not() -> None:
    known = Box(100, 100, 160, 140)
    head, body, far = Box(100, 105, 120, 135), Box(126, 100, 158, 140), Box(300, 100, 330, 140)
    assert sorted(fit_to_expected([head, body, far], [known]), key=lambda box: box.left) == [
        Box(100, 100, 158, 140),
        far,
    ]
    # What has come apart is two: a track that once held both must not hold them for ever.
    wide = Box(100, 100, 300, 140)
    assert len(fit_to_expected([Box(100, 100, 140, 140), Box(260, 100, 300, 140)], [wide])) == 2
