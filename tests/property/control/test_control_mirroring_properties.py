"""Whatever is asked of mirroring is either sound or refused, and paths mean the same to who compares."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from easel_contracts.errors import InvalidInput
from easel_contracts.spec import CANDIDATE, Mirroring
from easel_control.decide.mirroring import MAX_TARGETS, PATH, CompareAsked, MirrorAsked, settings_of, warnings
from easel_router.decide.compare.values import canonical
from tests.unit.control.rows import row

OTHERS = {
    "echo": row(name="echo"),
    "back": row(name="back", mirroring=Mirroring(targets=("ocr",), percent=1)),
    "gone": row(name="gone", wanted="deleted"),
}
names = st.sampled_from(["echo", "back", "gone", "ocr", "none", CANDIDATE]) | st.text(max_size=5)
targets = st.lists(names, max_size=6).map(tuple)
numbers = st.sampled_from([0.0, 0.5, 1.0, 5.0, 50.0]) | st.floats() | st.integers(-5, 5000)
compares = st.builds(
    CompareAsked, samples_per_s=numbers, twice_percent=numbers, body_kib=st.integers(-1, 2**31 - 1), tolerance=numbers,
    ignore=st.lists(st.sampled_from(["a.b", "a[].b", "x y"]) | st.text(max_size=6), max_size=3).map(tuple),
    text_similarity=numbers, no_side_effects=st.booleans(),
)  # fmt: skip


def settled(asked: MirrorAsked) -> Mirroring | InvalidInput:
    try:
        return settings_of("ocr", asked, OTHERS)
    except InvalidInput as error:
        return error


@given(st.builds(MirrorAsked, targets=targets, percent=numbers, compare=st.none() | compares))
def test_sound_or_refused(asked: MirrorAsked) -> None:
    made = settled(asked)
    if isinstance(made, InvalidInput):
        assert made.fields
        assert all(field.path and field.message for field in made.fields)
        return
    assert 1 <= len(made.targets) <= MAX_TARGETS
    assert len(set(made.targets)) == len(made.targets)
    assert set(made.targets) <= {"echo", CANDIDATE}
    assert 0 <= made.percent <= 100
    if (compare := made.compare) is not None:
        assert len(made.targets) == 1
        assert asked.compare is not None
        assert asked.compare.no_side_effects
        values = (compare.samples_per_s, compare.twice_percent, compare.body_kib, compare.text_similarity)
        assert all(math.isfinite(v) and v > 0 for v in values)
        assert 0 <= compare.tolerance <= 1
    assert warnings(replace(row(), mirroring=made), made, OTHERS)


@given(st.from_regex(PATH, fullmatch=True).filter(lambda path: len(path) <= 80))
def test_an_accepted_path_is_understood_as_a_whole(path: str) -> None:
    """By the router's comparison: it has one spelling there, and as many steps as were written."""
    compare = CompareAsked(no_side_effects=True, ignore=(path,))
    if isinstance(settled(MirrorAsked(targets=("echo",), percent=1, compare=compare)), InvalidInput):
        return  # a quoted name that is no JSON text
    assert canonical(canonical(path)) == canonical(path)
    assert canonical(path)
