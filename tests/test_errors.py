from __future__ import annotations

import re

import pytest

from edge_lsla import errors


def classes() -> list[type[errors.EdgeLslaError]]:
    return [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.EdgeLslaError)]


def test_every_class_stands_in_the_tree_of_the_docstring_with_its_exit_code() -> None:
    tree = (errors.__doc__ or "").split("\n\n", 1)[1].splitlines()
    drawn = {re.findall(r"[A-Z]\w+", line)[0]: line for line in tree if line}
    assert set(drawn) == {c.__name__ for c in classes()}
    for one in classes():
        if "exit" in drawn[one.__name__]:
            assert f"exit {one.exit_code} " in drawn[one.__name__]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.EdgeLslaError("broken"), "broken"),
        (errors.EdgeLslaError("broken", "a.jpg"), "broken: a.jpg"),
        (errors.EdgeLslaError("broken", "a.jpg", "replace it"), "broken: a.jpg; replace it"),
        (errors.EdgeLslaError("broken", remedy="replace it"), "broken; replace it"),
    ],
)
def test_messages_say_what_where_and_what_to_do(error: errors.EdgeLslaError, text: str) -> None:
    assert str(error) == text
