"""The keys of `containers[]`: see keys.py. Rules that join them: container_rules.py."""

from __future__ import annotations

from easel_control.decide.key import DAY_S, Key

ENV_NAME_SAYS = "letters, digits and underscore, not starting with a digit"
SECRET_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
MAX_SIDECARS = 8


def _probe(name: str, doc: str) -> tuple[Key, ...]:
    at = f"containers[].{name}"
    return (
        Key(path=at, kind="object", doc=f"{doc} Exactly one of `http_get`, `tcp_socket`, `exec`."),
        Key(path=f"{at}.http_get", kind="object", doc="Passes when the answer's status is 200 to 399."),
        Key(path=f"{at}.http_get.path", kind="string", default="/", pattern=r"/[^\s#]*",
            pattern_says="a path that starts with /", doc="Path asked for."),
        Key(path=f"{at}.http_get.port", kind="integer", minimum=1, maximum=65535,
            doc="Port asked. Absent, or equal to `containers[0].port`: the replica's own port."),
        Key(path=f"{at}.http_get.scheme", kind="string", default="HTTP", choices=("HTTP", "HTTPS"),
            doc="HTTPS does not verify the certificate."),
        Key(path=f"{at}.tcp_socket", kind="object", doc="Passes when the port accepts a connection."),
        Key(path=f"{at}.tcp_socket.port", kind="integer", minimum=1, maximum=65535, doc="As for `http_get.port`."),
        Key(path=f"{at}.exec", kind="object", doc="Passes when the command exits with 0."),
        Key(path=f"{at}.exec.command", kind="list", required=True, min_length=1, max_length=256,
            doc="Program and arguments; no shell."),
        Key(path=f"{at}.exec.command[]", kind="string", doc="Program or argument."),
        Key(path=f"{at}.initial_delay_seconds", kind="number", default=0, minimum=0, maximum=DAY_S,
            doc="Seconds from the start of the program to the first check."),
        Key(path=f"{at}.period_seconds", kind="number", default=10, above=0, maximum=DAY_S,
            doc="Seconds between checks."),
        Key(path=f"{at}.timeout_seconds", kind="number", default=1, above=0, maximum=3600,
            doc="Seconds a check may take."),
        Key(path=f"{at}.success_threshold", kind="integer", default=1, minimum=1, maximum=1000,
            doc="Checks in a row that must pass."),
        Key(path=f"{at}.failure_threshold", kind="integer", default=3, minimum=1, maximum=100_000,
            doc="Checks in a row that must fail."),
    )  # fmt: skip


def _quantities() -> tuple[Key, ...]:
    """Requests and limits. Easel reserves for replicas, not for containers, so a request is only another word for a
    limit."""
    found = [
        Key(path="containers[].resources", kind="object",
            doc="Limits of one container, as in Kubernetes; only with an image. A sidecar without them shares those of "
                "the replica. On `containers[0]` they may only repeat `metadata.cpu` and `metadata.memory`, which are "
                "those of the whole replica."),
    ]  # fmt: skip
    for name, doc in (("limits", "The container gets no more."), ("requests", "Used where `limits` does not say it.")):
        at = f"containers[].resources.{name}"
        found += [
            Key(path=at, kind="object", doc=doc),
            Key(path=f"{at}.cpu", kind="cores", above=0, maximum=1024, doc="Cores; `500m` is half a one."),
            Key(path=f"{at}.memory", kind="size", minimum=16, maximum=16_777_216,
                doc="Memory: a number is MiB; text needs a unit (Mi, Gi, Ti, or M, G, T by thousands)."),
        ]  # fmt: skip
    return tuple(found)


CONTAINERS = (
    Key(path="containers", kind="list", required=True, min_length=1, max_length=MAX_SIDECARS + 1,
        doc=f"The program; with images also up to {MAX_SIDECARS} sidecars, `containers[1]` and on. They share the "
            "network (localhost), the mounts and /dev/shm with `containers[0]`; when one of them ends, all are started "
            "again."),
    Key(path="containers[]", kind="object"),
    Key(path="containers[].image", kind="string", neutral=("",), max_length=512,
        doc="Image the container is made from, as `docker pull` takes it: `registry.example.com:5000/team/ocr:1.2`, "
            "also with `@sha256:…`. Given: replicas are containers; absent: processes of the machine. What a tag names "
            "is found out by the revision's first replica and holds for all of them, so a tag moved meanwhile changes "
            "nothing before the next revision. With sidecars, every container has one."),
    Key(path="containers[].pull_policy", kind="string", default="IfNotPresent",
        choices=("IfNotPresent", "Always", "Never"),
        doc="Easel's own, as `imagePullPolicy` in Kubernetes. IfNotPresent: a node that has the image does not ask the "
            "registry. Always: the revision's first replica asks what the tag names now. Never: the image must be on "
            "the node."),
    Key(path="containers[].pull_timeout_seconds", kind="number", default=1800, minimum=1, maximum=DAY_S,
        doc="Easel's own: longest time a pull of the image may take, in seconds."),
    Key(path="containers[].command", kind="string", min_length=1,
        doc="One command, without shell features except that `$PORT` and other variables are replaced. "
            "One of `command` and `script` is needed where there is no image; with one, it stands for the image's "
            "entry point, which runs if both are absent."),
    Key(path="containers[].script", kind="string", min_length=1,
        doc="A shell script, instead of `command`; lines or `;` between commands. An image needs /bin/sh for it."),
    Key(path="containers[].args", kind="list", neutral=([],), max_length=1024,
        doc="Further words of `command`, or of the image's own entry point; no shell. Only with an image, not with "
            "`script`."),
    Key(path="containers[].args[]", kind="string", doc="One word."),
    Key(path="containers[].port", kind="integer", default=8000, minimum=1, maximum=65535,
        doc="The port the program is written for. Without an image, each replica is given its own port in `$PORT`; "
            "listen there. In a container it is this port, on every address (0.0.0.0), and `$PORT` says it too. "
            "A sidecar needs none; the default is that of `containers[0]`."),
    Key(path="containers[].env", kind="list", max_length=512, doc="Environment variables."),
    Key(path="containers[].env[]", kind="object"),
    Key(path="containers[].env[].name", kind="string", required=True, pattern=r"[A-Za-z_][A-Za-z0-9_]*",
        pattern_says=ENV_NAME_SAYS, max_length=256, doc="Name of the variable."),
    Key(path="containers[].env[].value", kind="string", secret=True,
        doc="Its value: kept encrypted and shown to nobody. In an update, an entry with neither `value` nor "
            "`secretRef` keeps the value it has in this container (by its place in the list)."),
    Key(path="containers[].env[].secretRef", kind="object", doc="The value comes from a secret, instead of `value`."),
    Key(path="containers[].env[].secretRef.name", kind="string", required=True, pattern=SECRET_NAME,
        pattern_says="letters, digits, dot, dash and underscore, at most 128",
        doc="Name of the secret: the file `secrets/NAME` (mode 0600) in control's home."),
    Key(path="containers[].prepare", kind="object",
        doc="What is done before the program starts. With an image, of `containers[0]` only; the image needs Python "
            "and pip."),
    Key(path="containers[].prepare.pythonRequirements", kind="list", max_length=1000,
        doc="pip requirements, installed once per set into a virtual environment of their own."),
    Key(path="containers[].prepare.pythonRequirements[]", kind="string", min_length=1, max_length=2000,
        pattern=r"[^-\s][^\r\n]*", pattern_says="one requirement in a line, such as `numpy>=2`, no pip options",
        doc="A requirement."),
    Key(path="containers[].prepare.pythonRequirementsPath", kind="string", pattern=r"/[^\0]*",
        pattern_says="an absolute path below one of the mount paths, or inside the image",
        doc="A requirements.txt inside a mount or the image, instead of `pythonRequirements`."),
    *_quantities(),
    Key(path="containers[].security", kind="object",
        doc="Easel's own, only with an image: what the container may do. New privileges are never possible, and most "
            "capabilities are always dropped."),
    Key(path="containers[].security.read_only_root", kind="boolean", default=False,
        doc="true: the image's files cannot be changed; /tmp is a scratch directory, and mounts are as they say."),
    Key(path="containers[].security.user", kind="string", pattern=r"[0-9]{1,9}(?::[0-9]{1,9})?",
        pattern_says="`uid` or `uid:gid`, as numbers", doc="Who the program runs as; absent: as the image says."),
    Key(path="containers[].security.non_root", kind="boolean", default=False,
        doc="true: a container that would run as root is refused."),
    *_probe("startup_check", "Until it has passed once, the other two are not made."),
    *_probe("liveness_check", "When it fails, the program is started again."),
    *_probe("readiness_check", "While it fails, the replica gets no requests. "
            "Without any: the port must accept connections."),
    *_probe("health_check", "Liveness and readiness in one: stands for whichever of the two is absent."),
)  # fmt: skip
