"""Which settings of mirroring are sound, what they cost, and what becomes of them when a target goes."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from easel_contracts.errors import Conflict, InvalidInput
from easel_contracts.spec import CANDIDATE, Comparison, Mirroring
from easel_control.decide.mirroring import (
    CompareAsked,
    MirrorAsked,
    mirrored,
    settings_of,
    told,
    unmirrored,
    warnings,
    without_target,
)
from easel_control.decide.rollout import begun
from easel_control.model import RolloutRow, ServiceRow
from tests.unit.control.rows import NOW, SPEC, row

ECHO, TAGGER = row(name="echo"), row(name="tagger")
OTHERS = {"echo": ECHO, "tagger": TAGGER}
SURE = CompareAsked(no_side_effects=True)


def settings(*targets: str, percent: float = 10, others: dict[str, ServiceRow] = OTHERS, **compare: Any) -> Mirroring:
    asked = CompareAsked(**({"no_side_effects": True} | compare)) if compare else None
    return settings_of("ocr", MirrorAsked(targets=targets, percent=percent, compare=asked), others)


def errors(asked: MirrorAsked, others: dict[str, ServiceRow] = OTHERS) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInput) as caught:
        settings_of("ocr", asked, others)
    return [(f.path, f.code) for f in caught.value.fields]


def rolling() -> RolloutRow:
    rollout: RolloutRow = begun(SPEC, row().rolling, NOW, interrupt=False, forgiven=())
    return rollout


def test_settings() -> None:
    assert settings("echo", "tagger", CANDIDATE, percent=0.1) == Mirroring(
        targets=("echo", "tagger", CANDIDATE), percent=0.1
    )
    assert settings("echo", percent=0).percent == 0


def test_a_comparison_takes_usual_values_for_what_is_zero() -> None:
    assert settings("echo", no_side_effects=True).compare == Comparison()
    given = settings("echo", samples_per_s=2, twice_percent=50, body_kib=64, tolerance=0.01, text_similarity=0.9,
                     ignore=("meta.took_ms", "boxes[].id", "meta.took_ms"))  # fmt: skip
    assert given.compare == Comparison(samples_per_s=2, twice_percent=50, body_kib=64, tolerance=0.01,
                                       text_similarity=0.9, ignore=("meta.took_ms", "boxes[].id"))  # fmt: skip


def test_everything_wrong_at_once() -> None:
    """Each with its field."""
    compare = CompareAsked(samples_per_s=1000, twice_percent=-1, body_kib=5000, tolerance=2, ignore=("ok", "boxes[3]"),
                           text_similarity=float("nan"))  # fmt: skip
    asked = MirrorAsked(targets=("ocr", "nope", "NO NAME", "echo", "echo"), percent=float("nan"), compare=compare)

    assert errors(asked) == [
        ("targets", "OUT_OF_RANGE"), ("targets", "CONFLICT"), ("targets[0]", "CONFLICT"), ("targets[1]", "NOT_FOUND"),
        ("targets[2]", "NOT_FOUND"), ("percent", "OUT_OF_RANGE"), ("compare.no_side_effects", "MISSING"),
        ("compare.samples_per_s", "OUT_OF_RANGE"), ("compare.twice_percent", "OUT_OF_RANGE"),
        ("compare.body_kib", "OUT_OF_RANGE"), ("compare.tolerance", "OUT_OF_RANGE"),
        ("compare.text_similarity", "OUT_OF_RANGE"), ("compare.ignore[1]", "OUT_OF_RANGE"),
    ]  # fmt: skip


def test_no_target_and_the_same_twice() -> None:
    assert errors(MirrorAsked(targets=(), percent=10)) == [("targets", "MISSING")]
    assert errors(MirrorAsked(targets=("echo", "echo"), percent=10)) == [("targets[1]", "CONFLICT")]


@pytest.mark.parametrize("percent", [-0.1, 100.1, float("inf")])
def test_percent(percent: float) -> None:
    assert errors(MirrorAsked(targets=("echo",), percent=percent)) == [("percent", "OUT_OF_RANGE")]


def test_two_do_not_mirror_each_other() -> None:
    """Also while the other's setting is off: it may be turned on again."""
    back = {"echo": replace(ECHO, mirroring=Mirroring(targets=("tagger", "ocr"), percent=0))}

    assert errors(MirrorAsked(targets=("echo",), percent=10), back) == [("targets[0]", "CONFLICT")]
    away = {"echo": replace(ECHO, mirroring=Mirroring(targets=("tagger",), percent=10))}
    assert settings("echo", others=away).targets == ("echo",)


def test_a_target_on_its_way_out() -> None:
    gone = {"echo": replace(ECHO, wanted="deleted")}
    assert errors(MirrorAsked(targets=("echo",), percent=10), gone) == [("targets[0]", "CONFLICT")]


def test_a_comparison_has_to_be_confirmed() -> None:
    with pytest.raises(InvalidInput, match="executed again; confirm that this has no side effects"):
        settings("echo", no_side_effects=False)


@pytest.mark.parametrize(
    "path", ["a", "meta.took_ms", "boxes[].id", "[].id", '["a.b"].c', "a[][].b", "größe", 'x["y"]']
)
def test_paths(path: str) -> None:
    assert settings("echo", ignore=(path,)).compare == Comparison(ignore=(path,))


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a b", "a[0]", "a[", 'a["b]', 'a["\\x"]', "a" * 257])
def test_no_paths(path: str) -> None:
    asked = MirrorAsked(targets=("echo",), percent=1, compare=replace(SURE, ignore=(path,)))
    assert errors(asked) == [("compare.ignore[0]", "OUT_OF_RANGE")]


def test_the_row_of_a_mirrored_service() -> None:
    """Another generation, no revision; the same settings again change nothing."""
    mirroring = settings("echo")

    change = mirrored(row(), mirroring, NOW)

    assert change is not None
    assert (change.row.generation, change.row.revision, change.row.mirroring) == (2, SPEC, mirroring)
    assert (change.verb, change.message) == ("updated", "10 % of the requests are copied to echo")
    assert mirrored(change.row, mirroring, NOW) is None
    back = unmirrored(change.row, NOW)
    assert back is not None
    assert (back.row.generation, back.row.mirroring) == (3, None)
    assert unmirrored(row(), NOW) is None
    with pytest.raises(Conflict):
        mirrored(row(wanted="deleted"), mirroring, NOW)


def test_a_target_that_goes() -> None:
    """The others stay; with the last one the setting goes. The generation is nobody's wish, so it stays."""
    before = row(mirroring=settings("echo", "tagger"))

    one = without_target(before, "echo", NOW)
    assert one is not None
    assert one.row.mirroring == settings("tagger")
    assert (one.row.generation, one.row.row_version) == (1, 2)
    assert one.message == "echo is deleted: copies still go to tagger"
    none = without_target(one.row, "tagger", NOW)
    assert none is not None
    assert none.row.mirroring is None
    assert none.message == "tagger is deleted: requests are no longer copied"
    assert without_target(none.row, "tagger", NOW) is None
    assert without_target(before, "other", NOW) is None


def test_the_load_in_numbers() -> None:
    def first(mirroring: Mirroring, **changes: Any) -> str:
        return warnings(row(**changes), mirroring, OTHERS)[0]

    assert first(settings("echo")) == "10 % of the requests of ocr are executed by echo too"
    assert first(settings("echo", "tagger")) == "10 % of the requests of ocr are executed by echo and tagger too"
    assert first(settings("echo", no_side_effects=True)) == (
        "10 % of the requests of ocr, at most 5 a second, are executed by echo and, again, by ocr; "
        "20 % of these twice (at most 6 more a second for ocr)"
    )
    assert first(settings(CANDIDATE, percent=2.5, samples_per_s=1, twice_percent=50), rollout=rolling()) == (
        "2.5 % of the requests of ocr, at most 1 a second, are executed by ocr's new revision and, again, by its "
        "stable one; 50 % of these twice (at most 1.5 more a second for its stable one)"
    )
    assert first(settings("echo", percent=0)) == "it is off: percent is 0"
    assert told(settings("echo", percent=0)) == "mirroring to echo is off (0 %)"


def test_copies_that_go_nowhere() -> None:
    """A candidate without a rollout, a stopped target, a path that reports write otherwise."""
    assert warnings(row(), settings(CANDIDATE), {})[1:] == (
        "no rollout of ocr is on: copies go nowhere until one is",
    )  # fmt: skip
    assert warnings(row(rollout=rolling()), settings(CANDIDATE), {})[1:] == ()
    stopped = {"echo": replace(ECHO, wanted="stopped")}
    assert warnings(row(), settings("echo"), stopped)[1:] == (
        "echo is stopped: it gets no copies until it is started",
    )  # fmt: skip
    named = warnings(row(), settings("echo", ignore=("body.took_ms", "body_size")), OTHERS)[1:]
    assert [text.split()[0] for text in named] == ["body.took_ms"]
