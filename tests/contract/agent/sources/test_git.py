"""Git mounts, from real servers."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from dulwich.objects import ObjectID, Tag, Tree

from easel_agent.sources import CannotFetch, SourceLimits
from easel_agent.sources.git_client import Remote
from easel_agent.sources.threads import Stop
from easel_contracts.spec import GitSource, Mount
from easel_kit.testing import eventually, free_port
from tests.contract.agent.sources.git_server import PASSWORD, USER, Files, GitServer, commit, git_server
from tests.contract.agent.sources.rig import GitLogin, Node, content, last_used, small_disk, turn

GIT = pytest.param("git", marks=pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"))


@pytest.fixture(params=["dulwich", GIT])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GitServer]:
    """A git server without repositories."""
    (tmp_path / "repos").mkdir()
    with git_server(tmp_path / "repos", request.param) as found:
        yield found


async def test_the_tip_of_a_branch(server: GitServer, tmp_path: Path) -> None:
    """Files as in the commit, no .git, only readable; the commit is the pin, and a second replica downloads nothing."""
    repo = server.make("code")
    commit(repo, {"old.py": b"old"})
    tip = commit(repo, {"main.py": b"print(1)", "bin/run": (0o100755, b"#!/bin/sh\n"), "link": (0o120000, b"bin/run")})
    commit(repo, {"other.py": b"other"}, branch="other")
    node = Node(tmp_path)
    source = GitSource(repo=server.address("code"), branch="main")

    first = await node.fetch(source)
    downloads = server.downloads
    second = await node.fetch(source, replica="r-2")

    tree = first.paths["/mnt/0"]
    assert content(tree) == {"main.py": b"print(1)", "bin/run": b"#!/bin/sh\n", "link": b"#!/bin/sh\n"}
    assert os.readlink(tree / "link") == "bin/run"
    assert [(tree / name).stat().st_mode & 0o777 for name in ("main.py", "bin/run")] == [0o444, 0o555]
    assert first.pins == {"storage[0].git": tip}
    assert (second, server.downloads) == (first, downloads)


async def test_only_one_commit_is_fetched(server: GitServer, tmp_path: Path) -> None:
    """A clone of a branch's tip holds no history."""
    repo = server.make("code")
    before = commit(repo, {"a": b"1"})
    tip = commit(repo, {"a": b"2"})

    clone = Remote(server.address("code"), None, Stop(60), 1 << 30).fetch(tip, "main", tmp_path)

    assert ObjectID(tip.encode()) in clone.object_store
    assert ObjectID(before.encode()) not in clone.object_store


async def test_a_pin_and_a_given_commit_are_obeyed(server: GitServer, tmp_path: Path) -> None:
    """Also where the branch has gone on, and the commit is in its history; the pin comes before the commit given."""
    repo = server.make("code")
    first = commit(repo, {"a": b"1"})
    second = commit(repo, {"a": b"2"})
    commit(repo, {"a": b"3"})
    node = Node(tmp_path)
    address = server.address("code")

    pinned = await node.fetch(GitSource(repo=address, branch="main"), pins={"storage[0].git": first})
    given = await node.fetch(GitSource(repo=address, commit=second))
    both = await node.fetch(GitSource(repo=address, commit=second), pins={"storage[0].git": first})

    assert [content(found.paths["/mnt/0"]) for found in (pinned, given, both)] == [
        {"a": b"1"},
        {"a": b"2"},
        {"a": b"1"},
    ]
    assert (pinned.pins, given.pins) == ({"storage[0].git": first}, {"storage[0].git": second})


async def test_the_beginning_of_a_commit(server: GitServer, tmp_path: Path) -> None:
    """Is enough, in the branch's history and at its tip; the pin is the whole id."""
    repo = server.make("code")
    first, second = commit(repo, {"a": b"1"}), commit(repo, {"a": b"2"})
    node = Node(tmp_path)

    found = [await node.fetch(GitSource(repo=server.address("code"), commit=one[:9])) for one in (first, second)]

    assert [one.pins["storage[0].git"] for one in found] == [first, second]
    assert [content(one.paths["/mnt/0"]) for one in found] == [{"a": b"1"}, {"a": b"2"}]
    assert list((node.home / "git").glob(".looking-*")) == []


async def test_the_default_branch_and_a_tag(server: GitServer, tmp_path: Path) -> None:
    """Without a branch: the repository's own; a branch may be a tag, and its commit is the pin."""
    repo = server.make("code")
    tagged = commit(repo, {"a": b"1"})
    tag = Tag()
    tag.name, tag.message, tag.tagger = b"v1", b"one", b"Easel tests <tests@example.invalid>"
    tag.tag_time, tag.tag_timezone = 1_700_000_000, 0
    tag.object = (type(repo[ObjectID(tagged.encode())]), ObjectID(tagged.encode()))  # type: ignore[assignment, unused-ignore]
    repo.object_store.add_object(tag)
    repo.refs[b"refs/tags/v1"] = tag.id  # type: ignore[index, unused-ignore]
    tip = commit(repo, {"a": b"2"})
    node = Node(tmp_path)

    default = await node.fetch(GitSource(repo=server.address("code")))
    by_tag = await node.fetch(GitSource(repo=server.address("code"), branch="v1"))

    assert (default.pins["storage[0].git"], content(default.paths["/mnt/0"])) == (tip, {"a": b"2"})
    assert (by_tag.pins["storage[0].git"], content(by_tag.paths["/mnt/0"])) == (tagged, {"a": b"1"})


async def test_a_login(server: GitServer, tmp_path: Path) -> None:
    """Accepted with it, refused without and with a wrong one; the cached tree is not given to who has none."""
    commit(server.make("code"), {"a": b"1"})
    server.login_needed = True
    node = Node(tmp_path)
    source = GitSource(repo=server.address("code"), login=True)

    found = await node.fetch(source, logins={0: GitLogin(USER, PASSWORD)})
    with pytest.raises(CannotFetch) as wrong:
        await node.fetch(source, logins={0: GitLogin(USER, "wrong-pass")})
    with pytest.raises(CannotFetch) as none:
        await node.fetch(source, pins=found.pins)

    assert content(found.paths["/mnt/0"]) == {"a": b"1"}
    assert "storage[0].git: " in wrong.value.message
    assert "refuses the user name and password" in wrong.value.message
    assert "asks for a user name and password" in none.value.message
    said = "\n".join([*node.events, wrong.value.message, none.value.message, *_names(node.home)])
    assert PASSWORD not in said
    assert "wrong-pass" not in said


@pytest.mark.parametrize(
    ("change", "said", "temporary"),
    [
        ({"branch": "nope"}, "no branch or tag 'nope'", False),
        ({"commit": "1" * 40}, "the commit is not there", False),
        ({"commit": "1" * 7}, "the commit is not there", False),
        ({"commit": "main"}, "at least 7 digits", False),
        ({"repo": "missing"}, "no such repository", False),
        ({"repo": "page"}, "not git", False),
        ({"repo": "empty"}, "no commit yet", False),
    ],
)
async def test_refusals(server: GitServer, tmp_path: Path, change: dict[str, str], said: str, temporary: bool) -> None:
    """Each names the mount and what was wrong; nothing is left."""
    commit(server.make("code"), {"a": b"1"})
    server.make("empty")
    asked = {"repo": "code", **change}
    node = Node(tmp_path)

    with pytest.raises(CannotFetch) as refused:
        await node.fetch(GitSource(**{**asked, "repo": server.address(asked["repo"])}))  # type: ignore[arg-type]

    assert refused.value.message.startswith("storage[0].git: ")
    assert said in refused.value.message
    assert (refused.value.cause, refused.value.temporary) == ("mount", temporary)
    assert _names(node.home / "git") == [".key"]


@pytest.mark.parametrize(
    ("repo", "said"),
    [
        ("ssh://git@127.0.0.1/code.git", "https://"),
        ("git@127.0.0.1:code.git", "https://"),
        ("file:///etc", "https://"),
        ("/etc", "https://"),
        ("https://me:secret-word@127.0.0.1/code.git", "must not hold a login"),
    ],
)
async def test_only_http(tmp_path: Path, repo: str, said: str) -> None:
    """No other protocol, no path of the node, no login in the address (nor in the message)."""
    with pytest.raises(CannotFetch, match=said) as refused:
        await Node(tmp_path).fetch(GitSource(repo=repo))

    assert "secret-word" not in refused.value.message


async def test_nobody_there(tmp_path: Path) -> None:
    """A refused connection and an unknown name are told apart, and are worth another try."""
    node = Node(tmp_path)

    with pytest.raises(CannotFetch, match="nobody accepts connections") as refused:
        await node.fetch(GitSource(repo=f"http://127.0.0.1:{free_port()}/code"))
    with pytest.raises(CannotFetch, match="host's name is not known") as unknown:
        await node.fetch(GitSource(repo="http://nowhere.invalid/code"))

    assert refused.value.temporary
    assert unknown.value.temporary


async def test_a_hostile_tree_writes_nothing_outside(server: GitServer, tmp_path: Path) -> None:
    """`..`, `.git`, and a link and a directory of one name (a tree that git itself would not make)."""
    repo = server.make("code")
    outside = tmp_path / "outside"
    outside.mkdir()
    node = Node(tmp_path)
    inner = Tree()
    inner.add(b"x", 0o100644, _blob(repo, b"written"))
    repo.object_store.add_object(inner)
    for name in (b"..", b".git"):
        tree = Tree()
        tree.add(name, 0o040000, inner.id)
        with pytest.raises(CannotFetch, match="no name that a file may have"):
            await node.fetch(GitSource(repo=server.address("code"), commit=_commit_of(repo, tree)))
    double = Tree()
    double.add(b"way", 0o120000, _blob(repo, str(outside).encode()))
    raw = double.as_raw_string() + b"40000 way\0" + bytes.fromhex(inner.id.decode())
    found = await node.fetch(GitSource(repo=server.address("code"), commit=_commit_of(repo, Tree.from_string(raw))))

    assert content(found.paths["/mnt/0"]) == {"way/x": b"written"}
    assert list(outside.iterdir()) == []


async def test_links_that_lead_out_are_left_out(server: GitServer, tmp_path: Path) -> None:
    """Directly, and by way of another link; those inside stay."""
    files: Files = {
        "good": (0o120000, b"sub/file"), "sub/file": b"1", "bad": (0o120000, b"/etc/passwd"),
        "a/b/up": (0o120000, b"../../top"), "top/x": b"2", "round": (0o120000, b"a/b/up/../../../etc"),
    }  # fmt: skip
    repo = server.make("code")
    commit(repo, files)
    node = Node(tmp_path)

    found = await node.fetch(GitSource(repo=server.address("code")))

    tree = found.paths["/mnt/0"]
    assert sorted(path.name for path in tree.rglob("*") if path.is_symlink()) == ["good", "up"]
    assert any("2 links that lead out" in event for event in node.events)


async def test_submodules_and_large_files_are_told(server: GitServer, tmp_path: Path) -> None:
    """They are not fetched, and the replica's log says so."""
    repo = server.make("code")
    commit(repo, {"lib": (0o160000, b"1" * 40), ".gitmodules": b"[submodule]", ".gitattributes": b"*.bin filter=lfs"})
    node = Node(tmp_path)

    found = await node.fetch(GitSource(repo=server.address("code")))

    assert content(found.paths["/mnt/0"])["lib/"] is None
    assert [any(text in event for event in node.events) for text in ("1 submodules", "git-lfs")] == [True, True]


async def test_two_replicas_share_one_download(server: GitServer, tmp_path: Path) -> None:
    """Both hear of it; one that is cancelled does not end it for the other."""
    commit(server.make("code"), {"a": b"1"})
    server.gate = threading.Event()
    node = Node(tmp_path)
    source = GitSource(repo=server.address("code"))
    tasks = [asyncio.create_task(node.fetch(source, replica=f"r-{number}")) for number in range(3)]
    await eventually(lambda: server.downloads == 1)

    tasks[0].cancel()
    server.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1] == found[2]
    assert server.downloads == 1


async def test_cancelled_by_all_it_ends_and_leaves_nothing(server: GitServer, tmp_path: Path) -> None:
    """Nothing half is there, and the next fetch begins anew."""
    commit(server.make("code"), {"a": b"1"})
    server.gate = threading.Event()
    node = Node(tmp_path)
    source = GitSource(repo=server.address("code"))
    task = asyncio.create_task(node.fetch(source))
    await eventually(lambda: server.downloads == 1)

    task.cancel()
    await turn()  # until the download knows
    server.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert _names(node.home / "git") == [".key"]
    assert content((await node.fetch(source)).paths["/mnt/0"]) == {"a": b"1"}


async def test_limits_of_size_and_time(server: GitServer, tmp_path: Path) -> None:
    """Too large and too slow are refused with the setting to change."""
    commit(server.make("code"), {"a": os.urandom(2 << 20)})
    source = GitSource(repo=server.address("code"))

    with pytest.raises(CannotFetch, match=r"larger than 1 MiB.*EASEL_AGENT_GIT_MAX_MIB"):
        await Node(tmp_path / "size", SourceLimits(git_max_mib=1)).fetch(source)
    with pytest.raises(CannotFetch, match=r"longer than 0 s.*EASEL_AGENT_GIT_TIMEOUT_S") as slow:
        await Node(tmp_path / "time", SourceLimits(git_timeout_s=0.0)).fetch(source)

    assert slow.value.temporary


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
async def test_a_full_disk(server: GitServer, tmp_path: Path) -> None:
    """Said as such, and nothing of the tree is left on the disk."""
    commit(server.make("code"), {"a": os.urandom(2 << 20)})
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        node = Node(disk)
        with pytest.raises(CannotFetch, match="no space is left on the node"):
            await node.fetch(GitSource(repo=server.address("code")))

        assert _names(node.home / "git") == [".key"]


async def test_a_writable_mount_is_a_copy_of_its_own(server: GitServer, tmp_path: Path) -> None:
    """What a replica writes stays its own, and survives a restart of its program."""
    commit(server.make("code"), {"a": b"1", "d/b": b"2"})
    node = Node(tmp_path)
    source = GitSource(repo=server.address("code"))
    mount = Mount(mount_path="/code", source=source, read_only=False)

    own = (await node.fetch(mount)).paths["/code"]
    (own / "a").write_bytes(b"changed")
    again = (await node.fetch(mount)).paths["/code"]
    shared = (await node.fetch(source)).paths["/mnt/0"]

    assert own.is_relative_to(node.replicas / "r-1")
    assert [path.stat().st_mode & 0o777 for path in (own, own / "d", own / "a")] == [0o777, 0o777, 0o666]
    assert content(again) == {"a": b"changed", "d/b": b"2"}
    assert content(shared) == {"a": b"1", "d/b": b"2"}


async def test_pruning_spares_what_is_held(server: GitServer, tmp_path: Path) -> None:
    """Beyond the cap the least lately used goes, but not what a replica has."""
    repo = server.make("code")
    commits = [commit(repo, {"a": str(number).encode()}) for number in range(3)]
    node = Node(tmp_path, SourceLimits(git_trees_kept=1))
    found = [await node.fetch(GitSource(repo=server.address("code"), commit=one)) for one in commits]

    for number, one in enumerate(found):
        last_used(one, number)

    await node.sources.prune(set(found[0].held))

    assert [one.paths["/mnt/0"].exists() for one in found] == [True, False, True]


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*"))


def _blob(repo: object, data: bytes) -> ObjectID:
    from dulwich.objects import Blob
    from dulwich.repo import Repo

    assert isinstance(repo, Repo)
    blob = Blob.from_string(data)
    repo.object_store.add_object(blob)
    return blob.id


def _commit_of(repo: object, tree: Tree) -> str:
    from dulwich.objects import Commit
    from dulwich.repo import Repo

    assert isinstance(repo, Repo)
    repo.object_store.add_object(tree)
    made = Commit()
    made.tree, made.message = tree.id, b"hostile"
    made.author = made.committer = b"Easel tests <tests@example.invalid>"
    made.author_time = made.commit_time = 1_700_000_000
    made.author_timezone = made.commit_timezone = 0
    repo.object_store.add_object(made)
    repo.refs[b"refs/heads/hostile"] = made.id  # type: ignore[index, unused-ignore]
    return made.id.decode()
