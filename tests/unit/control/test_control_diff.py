"""What differs between revisions, and what a switch makes of the configuration."""

from __future__ import annotations

from typing import Any

from easel_contracts.spec import SourceDigest
from easel_control.decide.diff import Difference, Side, differences
from easel_control.decide.merge import laid_over, with_values
from easel_control.decide.secrets import EnvValue, GitLogin, RevisionSecrets
from easel_control.sources import changed_sources

CONFIG: dict[str, Any] = {
    "metadata": {"name": "ocr", "instance": 1, "cpu": 1, "rpc": {"keepalive": 5000}},
    "containers": [
        {"command": "run", "env": [{"name": "A"}, {"name": "B"}, {"name": "D", "secretRef": {"name": "db"}}]}
    ],
    "labels": {"team.name": "x"},
}


def secrets(values: dict[str, str], **more: Any) -> RevisionSecrets:
    env = (*(EnvValue(name=n, value=v) for n, v in values.items()), EnvValue(name="S", secret="db"))
    return RevisionSecrets(env=env, **more)


def side(config: dict[str, Any] = CONFIG, env: dict[str, str] | None = None, *digests: str) -> Side:
    found = secrets(env if env is not None else {"A": "1", "B": "2"})
    sources = tuple(SourceDigest(source=f"storage[{i}]", digest=d) for i, d in enumerate(digests))
    return Side(config=config, secrets=found, sources=sources)


def told(base: Side, other: Side) -> list[tuple[str, str, str]]:
    return [(d.path, d.before, d.after) for d in differences(base, other)]


def test_the_same_does_not_differ() -> None:
    assert differences(side(), side()) == []


def test_keys_that_changed_came_and_went() -> None:
    other = {**CONFIG, "metadata": {"name": "ocr", "cpu": 1.0, "memory": 512, "rpc": {"keepalive": 9000}}}

    assert told(side(), side(other)) == [
        ("metadata.rpc.keepalive", "5000", "9000"),
        ("metadata.memory", "", "512"),
    ]
    assert told(side(other), side()) == [
        ("metadata.memory", "512", ""),
        ("metadata.rpc.keepalive", "9000", "5000"),
    ]


def test_what_belongs_to_no_revision_is_left_out() -> None:
    other = {**CONFIG, "metadata": {**CONFIG["metadata"], "instance": 9, "rolling_strategy": {"max_surge": 2}},
             "labels": {}, "autoscaler": {"min": 0}, "rollout": {"waves": [100]}}  # fmt: skip

    assert differences(side(), side(other)) == []


def test_environment_values_differ_without_being_shown() -> None:
    container = {"command": "run", "env": [{"name": "A"}, {"name": "C"}, {"name": "D"}]}
    env = {"A": "secret-1", "C": "secret-2", "D": "secret-3"}
    got = told(side(), side({**CONFIG, "containers": [container]}, env))

    assert got == [
        ("containers[0].env[D].secretRef.name", '"db"', ""),
        ("containers[0].env[A].value", '"(not shown)"', '"(not shown)"'),
        ("containers[0].env[B].value", '"(not shown)"', ""),
        ("containers[0].env[C].value", "", '"(not shown)"'),
        ("containers[0].env[D].value", "", '"(not shown)"'),
    ]
    assert "secret-" not in repr((got, side()))


def test_sidecars_and_git_logins_differ_without_being_shown() -> None:
    container = {"image": "a", "env": [{"name": "A"}]}
    mount = {"mount_path": "/code", "git": {"repo": "https://git.example.com/a", "username": "me"}}
    config = {"metadata": {"name": "ocr"}, "containers": [container, container], "storage": [mount]}

    def of(value: str, password: str) -> Side:
        found = RevisionSecrets(
            sidecars=((EnvValue(name="A", value=value),),), logins={0: GitLogin(username="me", password=password)}
        )
        return Side(config=config, secrets=found, sources=())

    assert differences(of("hush-1", "hush-2"), of("hush-1", "hush-2")) == []
    assert told(of("hush-1", "hush-2"), of("hush-3", "hush-4")) == [
        ("containers[1].env[A].value", '"(not shown)"', '"(not shown)"'),
        ("storage[0].git.password", '"(not shown)"', '"(not shown)"'),
    ]


def test_sources_differ_by_content() -> None:
    assert differences(side(CONFIG, {}, "sha256:a", "mutable"), side(CONFIG, {}, "sha256:b", "mutable")) == [
        Difference(path="storage[0]", before='"sha256:a"', after='"sha256:b"')
    ]
    assert told(side(CONFIG, {}, "sha256:a"), side(CONFIG, {})) == [("storage[0]", '"sha256:a"', "")]


def test_a_configuration_of_before_keeps_what_is_not_of_its_revision() -> None:
    now = {"metadata": {"name": "ocr", "instance": 7, "cpu": 4, "workspace_id": "w"},
           "containers": [{"command": "new"}], "autoscaler": {"min": 1}, "rollout": {"waves": [100]}}  # fmt: skip
    got = laid_over(with_values(CONFIG, secrets({"A": "1"})), now)

    assert got["metadata"] == {"name": "ocr", "cpu": 1, "rpc": {"keepalive": 5000}, "instance": 7, "workspace_id": "w"}
    assert got["containers"][0]["env"][0] == {"name": "A", "value": "1"}
    assert got["containers"][0]["env"][2] == {"name": "D", "secretRef": {"name": "db"}}
    assert (got["autoscaler"], got["rollout"], "labels" in got) == ({"min": 1}, {"waves": [100]}, False)
    assert CONFIG["containers"][0]["env"][0] == {"name": "A"}


def test_the_login_for_registries_is_of_no_revision() -> None:
    """Also passwords of git repositories come back with their revision."""
    shown = {"metadata": {"name": "ocr"}, "containers": [{"image": "a"}],
             "storage": [{"mount_path": "/a", "git": {"repo": "https://x/y", "username": "me"}}]}  # fmt: skip
    old = with_values(shown, RevisionSecrets(logins={0: GitLogin(username="me", password="p1")}))
    got = laid_over(old | {"dockerAuth": "old"}, {"metadata": {"name": "ocr"}, "dockerAuth": "new"})

    assert got["dockerAuth"] == "new"
    assert got["storage"][0]["git"]["password"] == "p1"
    assert "dockerAuth" not in laid_over(old | {"dockerAuth": "old"}, {"metadata": {"name": "ocr"}})


def test_sources_that_changed_are_named() -> None:
    before = tuple(SourceDigest(source=s, digest=d) for s, d in (("a", "x"), ("b", "x"), ("c", "mutable"), ("d", "x")))
    now = tuple(SourceDigest(source=s, digest=d) for s, d in (("a", "x"), ("b", "y"), ("c", "z"), ("d", "mutable")))
    got = changed_sources(3, before, now)

    assert [text.split()[0] for text in got] == ["b", "c", "d"]
    assert got[0] == "b is no longer what revision 3 was admitted with: x then, y now"
    assert "is not known" in got[1]
