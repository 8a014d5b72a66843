"""A tag moves while replicas start: whatever comes in which order, the replicas of a revision end up with one image."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from easel_contracts.runtime import ReplicaReport, RuntimePhase
from easel_scheduler.decide.fold import fold
from easel_scheduler.decide.pins import Kept, settled
from easel_scheduler.decide.world import Replica
from tests.unit.scheduler.build import at, replica

SOURCES = ("containers[0].image", "storage[0].git")


class Revision:
    """Agents that look up what is not pinned yet, and a scheduler that writes one report a transaction."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.tags = dict.fromkeys(SOURCES, 0)
        """What the registry and the repository have."""
        self.kept: dict[str, Kept] = {}
        self.rows: dict[str, Replica] = {}
        self.told: dict[str, dict[str, str]] = {}
        """Replica → pins in its RunSpec."""
        self.reports: dict[str, ReplicaReport] = {}
        """The newest of each, not folded yet perhaps."""
        self.replaced = 0
        self._ids = count()

    def start(self) -> None:
        name = f"r{next(self._ids)}"
        self.rows[name] = replica(name, "placed", placed_at=at(self.now_s))
        self.told[name] = {path: kept.value for path, kept in self.kept.items()}

    def look_up(self, number: int, path: str) -> None:
        """An agent finds out what a source is, or was told; it reports all that it knows by now."""
        name = self._name(number)
        before = self.reports.get(name)
        pins = before.pins if before else self.told[name]
        if path not in pins:
            pins = {**pins, path: f"v{self.tags[path]}"}
        phase: RuntimePhase = "running" if set(pins) == set(SOURCES) else "fetching"
        self.reports[name] = ReplicaReport(
            replica=name, service="ocr", revision=1, sequence=before.sequence + 1 if before else 0, phase=phase,
            agent_run_id="run-1", ready=phase == "running", pins=pins,
        )  # fmt: skip

    def take(self, number: int) -> None:
        """The newest report of a replica reaches the scheduler, perhaps again."""
        name = self._name(number)
        if name not in self.reports:
            return
        before = self.rows[name]
        after = fold(before, self.reports[name], at(self.now_s))
        if after is None:
            return
        if after.pins != before.pins:
            for path, value in after.pins.items():
                self.kept.setdefault(path, Kept(value=value, replica=name, at=at(self.now_s)))
            after = settled(after, self.kept, at(self.now_s))
        self.rows[name] = replace(after, row_version=before.row_version + 1)
        if not after.live:
            assert (after.state, after.cause) == ("lost", "SourceMoved")
            self.replaced += 1
            self.start()

    def live(self) -> list[Replica]:
        return [r for r in self.rows.values() if r.live]

    def _name(self, number: int) -> str:
        live = self.live()
        return live[number % len(live)].id


moves = st.lists(
    st.one_of(
        st.tuples(st.just("look up"), st.integers(0, 5), st.sampled_from(SOURCES)),
        st.tuples(st.just("take"), st.integers(0, 5)),
        st.tuples(st.just("tag moves"), st.sampled_from(SOURCES)),
        st.tuples(st.just("start")),
        st.tuples(st.just("time"), st.sampled_from([0.1, 5.0, 60.0])),
    ),
    max_size=60,
)


@given(st.integers(1, 5), moves)
def test_all_replicas_of_a_revision_end_with_the_same_pins(replicas: int, moved: list[tuple[object, ...]]) -> None:
    """And no more are replaced than were started before the first answer was known."""
    world = Revision()
    for _ in range(replicas):
        world.start()
    for move in moved:
        match move:
            case ("look up", int(number), str(path)):
                world.look_up(number, path)
            case ("take", int(number)):
                world.take(number)
            case ("tag moves", str(path)):
                world.tags[path] += 1
            case ("start",):
                world.start()
            case ("time", float(seconds)):
                world.now_s += seconds
    settle(world)

    assert {tuple(sorted(r.pins.items())) for r in world.live()} == {
        tuple(sorted((path, kept.value) for path, kept in world.kept.items()))
    }
    assert all(r.state == "ready" for r in world.live())
    assert world.replaced <= sum(set(told) != set(SOURCES) for told in world.told.values())


def settle(world: Revision) -> None:
    """Everyone does his work; the tags go on moving."""
    for _ in range(20):
        for number in range(len(world.live())):
            for path in SOURCES:
                world.tags[path] += 1
                world.look_up(number, path)
        for number in range(len(world.live())):
            world.take(number)
