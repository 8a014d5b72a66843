"""The keys of `storage[]`: see keys.py. Rules that join them: storage_rules.py."""

from __future__ import annotations

from easel_control.decide.key import Key

BRANCH = r"(?!.*(?:\.\.|//|@\{))[A-Za-z0-9_][^\s~^:?*\[\\\x00-\x20\x7f]*(?<![./])"
"""A name that git takes for a reference, and no program for an option."""

STORAGE = (
    Key(path="storage", kind="list", max_length=64,
        doc="What replicas see at their mount paths. Each entry has exactly one of `local`, `git`, `image`, `oss`, "
            "`nfs`, `empty_dir`; `image` and `nfs` need an image in `containers[0]`. Mounts are read-only unless they "
            "say otherwise."),
    Key(path="storage[]", kind="object"),
    Key(path="storage[].mount_path", kind="string", required=True, pattern=r"/[^\0]*",
        pattern_says="an absolute path", max_length=4096,
        doc="Where the replica sees it; not a directory of the system, and none inside another. /dev/shm only with "
            '`"empty_dir": {"medium": "memory"}`.'),
    Key(path="storage[].properties", kind="map", max_length=64,
        doc="EAS's notes for its console, such as `resource_type`: kept and shown, without any effect."),
    Key(path="storage[].local", kind="object", doc="A directory or file of the machine."),
    Key(path="storage[].local.path", kind="string", pattern=r"/[^\0]*", pattern_says="an absolute path",
        max_length=4096, resolved_by_cli=True,
        doc="Path on the machine where the replicas run. The CLI makes a relative one absolute, from the file's place, "
            "and uploads the directory when the server is elsewhere."),
    Key(path="storage[].local.digest", kind="string", pattern=r"sha256:[0-9a-f]{64}",
        pattern_says="`sha256:` and 64 hexadecimal digits, as an upload answers",
        doc="An uploaded archive; `path` then only says where it came from."),
    Key(path="storage[].local.readOnly", kind="boolean", default=True,
        doc="false: replicas may write there (they share it)."),
    Key(path="storage[].git", kind="object",
        doc="A git repository, cloned when a replica starts. The commit that the revision's first replica finds is "
            "that of all its replicas."),
    Key(path="storage[].git.repo", kind="string", required=True, max_length=2048,
        doc="Address: https:// or http://, without user name and password."),
    Key(path="storage[].git.branch", kind="string", max_length=255, pattern=BRANCH,
        pattern_says="the name of a branch or tag", doc="Branch or tag; absent: the repository's default branch."),
    Key(path="storage[].git.commit", kind="string", pattern=r"[0-9a-fA-F]{7,64}",
        pattern_says="7 to 64 hexadecimal digits", doc="Commit; absent: the newest of the branch."),
    Key(path="storage[].git.username", kind="string", min_length=1, max_length=256, pattern=r"[^\s:]+",
        pattern_says="a name without spaces and `:`",
        doc="User name at the repository's server; needs `password`."),
    Key(path="storage[].git.password", kind="string", min_length=1, max_length=4096, secret=True,
        doc="Password or access token: kept encrypted and shown to nobody. An update that leaves it out keeps it for "
            "the same `repo` and `username`."),
    Key(path="storage[].image", kind="object",
        doc="Files out of an image, copied when a replica starts; nothing of it runs. `dockerAuth` counts for it too."),
    Key(path="storage[].image.image", kind="string", required=True, max_length=512,
        doc="The image, as `containers[].image`; what its tag names is found out once per revision."),
    Key(path="storage[].image.path", kind="string", default="/", pattern=r"/[^\0]*", pattern_says="an absolute path",
        max_length=4096, doc="Directory or file in the image."),
    Key(path="storage[].oss", kind="object",
        doc="Everything below a prefix of an object store, copied to the node when a replica starts: read-only, and "
            "the same for all replicas of a revision."),
    Key(path="storage[].oss.path", kind="string", required=True, max_length=4096,
        doc="`oss://bucket/prefix/`, or another store that the nodes' fsspec knows: `s3://`, `gs://`, `az://`."),
    Key(path="storage[].oss.readOnly", kind="boolean", default=True,
        doc="Only true: Easel copies, and writes nothing back."),
    Key(path="storage[].oss.endpoint", kind="string", max_length=2048,
        doc="Address of the store, where it is not the provider's default: a host or an http(s):// address."),
    Key(path="storage[].nfs", kind="object", doc="A directory of an NFS server, mounted by the node's engine."),
    Key(path="storage[].nfs.server", kind="string", required=True, max_length=255,
        pattern=r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", pattern_says="a host name or an IPv4 address",
        doc="The server, as the nodes reach it."),
    Key(path="storage[].nfs.path", kind="string", default="/", pattern=r"/[^\0,]*",
        pattern_says="an absolute path without commas", max_length=4096, doc="Directory of the server."),
    Key(path="storage[].nfs.readOnly", kind="boolean", default=True,
        doc="false: replicas may write there (they share it). Unlike in EAS the default is true."),
    Key(path="storage[].empty_dir", kind="object",
        doc="An empty directory of each replica's own: it outlives a restart of the program, not the replica."),
    Key(path="storage[].empty_dir.medium", kind="string", default="", choices=("", "memory"),
        doc='memory: in the memory of the replica, as part of it; `""`: on the disk of the node.'),
    Key(path="storage[].empty_dir.size_limit", kind="number", above=0, maximum=65_536,
        doc="Largest size in GiB; absent: only bounded by the disk, or by the replica's memory."),
)  # fmt: skip
