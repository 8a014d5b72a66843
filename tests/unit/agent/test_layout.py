"""What a replica sees: the plan of mounts, on a machine made of a table."""

from __future__ import annotations

from collections.abc import Sequence

from easel_agent.decide.layout import Kind, Layout, Operation, Target, layout, links_on_the_way, visible


class Table:
    """Files as a table; a path ending with `!` is a directory that the replica's user may not pass."""

    def __init__(self, *paths: str, links: dict[str, str] | None = None) -> None:
        self._closed = {path[:-1] for path in paths if path.endswith("!")}
        self._links = links or {}
        self._paths = {"/"}
        for path in (*paths, *self._links):
            parts = path.rstrip("!").split("/")
            self._paths |= {"/".join(parts[: n + 1]) or "/" for n in range(len(parts))}

    def kind(self, path: str) -> Kind | None:
        """Names with a dot are files."""
        if path in self._links:
            return "link"
        if path not in self._paths:
            return None
        return "file" if "." in path.rsplit("/", 1)[1][1:] else "dir"

    def children(self, path: str) -> Sequence[str]:
        """Names directly below."""
        prefix = path.rstrip("/") + "/"
        return sorted(
            {p[len(prefix) :] for p in self._paths if p.startswith(prefix) and "/" not in p[len(prefix) :]} - {""}
        )

    def link_target(self, path: str) -> str:
        """Text of a link."""
        return self._links[path]

    def passable(self, path: str) -> bool:
        """Not closed."""
        return path not in self._closed


def plan(table: Table, *targets: Target, hidden: Sequence[str] = ()) -> Layout:
    """A layout for user 1000."""
    return layout(table, targets, hidden, 1000, 64)


def order(found: Layout, *wanted: Operation) -> list[int]:
    """Places of operations in the plan."""
    return [found.mounts.index(step) for step in wanted]


BASE = ("/usr/bin", "/etc/x.conf", "/proc", "/dev/null", "/tmp", "/sys")


def test_top_level_directories_are_bound_read_only() -> None:
    """But not those the replica has of its own, and no files of the root."""
    found = plan(Table(*BASE, "/boot/vmlinuz", "/a.txt", links={"/bin": "usr/bin"}))

    assert ("bind", "/usr", "/usr", False) in found.mounts
    assert ("link", "/bin", "usr/bin") in found.mounts
    assert ("proc", "/proc") in found.mounts
    assert not [step for step in found.mounts if step[:3] in {("bind", "/tmp", "/tmp"), ("bind", "/boot", "/boot")}]
    assert not [step for step in found.mounts if "/a.txt" in step]


def test_a_missing_mount_point_makes_a_skeleton_not_a_directory_on_the_host() -> None:
    """The nearest existing directory is replaced by a copy of its entries."""
    found = plan(Table(*BASE, "/mnt/old/deep", "/mnt/f.txt"), Target(path="/mnt/data/x", source="/src"))

    skeleton, entry, file, target = order(
        found,
        ("tmpfs", "/mnt", "mode=755,size=1m"),
        ("bind", "/mnt/old", "/mnt/old", False),
        ("bind", "/mnt/f.txt", "/mnt/f.txt", False),
        ("bind", "/src", "/mnt/data/x", False),
    )
    assert skeleton < entry < target
    assert skeleton < file
    assert "/mnt" in found.freeze
    assert ("bind", "/mnt", "/mnt", False) not in found.mounts


def test_a_new_top_level_directory_needs_no_skeleton() -> None:
    """The new root is ours."""
    found = plan(Table(*BASE), Target(path="/ml/model", source="/src", writable=True))

    assert ("bind", "/src", "/ml/model", True) in found.mounts
    assert not [step for step in found.mounts if step[0] == "tmpfs" and str(step[1]).startswith("/ml")]


def test_a_closed_directory_on_the_way_is_covered() -> None:
    """/root is hidden but for the interpreter in it."""
    table = Table(*BASE, "/root!", "/root/python/versions/3", "/root/.ssh/id.key")
    found = plan(table, Target(path="/root/python/versions/3", source="/root/python/versions/3"))

    cover, target = order(
        found,
        ("tmpfs", "/root", "mode=755,size=1m"),
        ("bind", "/root/python/versions/3", "/root/python/versions/3", False),
    )
    assert cover < target
    assert not [step for step in found.mounts if ".ssh" in str(step)]
    assert "/root" in found.freeze


def test_hidden_directories_are_covered_and_only_targets_shine_through() -> None:
    """The platform's home."""
    table = Table(*BASE, "/home/u/.easel/keys", "/home/u/.easel/agent/work", "/home/u/doc")
    found = plan(table, Target(path="/home/u/.easel/agent/work", source="/s", writable=True), hidden=["/home/u/.easel"])

    base, cover, target = order(
        found,
        ("bind", "/home", "/home", False),
        ("tmpfs", "/home/u/.easel", "mode=755,size=1m"),
        ("bind", "/s", "/home/u/.easel/agent/work", True),
    )
    assert base < cover < target


def test_a_skeleton_does_not_bring_back_what_is_hidden() -> None:
    """The entry is an empty directory, then the cover."""
    table = Table(*BASE, "/data/easel/keys", "/data/other")
    found = plan(table, Target(path="/data/new", source="/s"), hidden=["/data/easel"])

    assert ("bind", "/data/easel", "/data/easel", False) not in found.mounts
    entry, cover = order(found, ("dir", "/data/easel", 0o755), ("tmpfs", "/data/easel", "mode=755,size=1m"))
    assert entry < cover


def test_owners_are_mapped_only_where_they_differ() -> None:
    """What belongs to the replica's user already is bound plainly."""
    found = plan(
        Table(*BASE), Target(path="/a", source="/x", owner=0), Target(path="/b", source="/y", owner=1000, writable=True)
    )

    assert ("owned", "/x", "/a", False, 0, 1000) in found.mounts
    assert ("bind", "/y", "/b", True) in found.mounts


def test_links_on_the_way() -> None:
    """The real path, and each link passed."""
    table = Table("/opt/py-3.11/bin/python", links={"/opt/py": "py-3.11", "/usr/python": "/opt/py/bin/python"})

    assert links_on_the_way(table, "/usr/python") == (
        "/opt/py-3.11/bin/python",
        (("/usr/python", "/opt/py/bin/python"), ("/opt/py", "py-3.11")),
    )


def test_visible() -> None:
    """Not below what is closed, hidden, or the replica's own."""
    table = Table("/usr/lib/x", "/root!", "/root/x", "/h/y", "/tmp/z")

    assert visible(table, "/usr/lib/x", [])
    assert not visible(table, "/root/x", [])
    assert not visible(table, "/h/y", ["/h"])
    assert not visible(table, "/tmp/z", [])
