"""What to do about the causes that stop a replica."""

from __future__ import annotations

HINTS = {
    "NoCapacity": "lower metadata.cpu or metadata.memory, or stop another service",
    "TooLarge": "lower what the replica asks for (metadata.cpu, metadata.memory), or add a larger node",
    "NoRuntime": "start a Docker engine on a node (`easel node ls` says what each lacks), or leave `image` out",
    "NoNode": "see with `easel status` whether the agent runs",
    "CrashLoop": "read its last lines: `easel logs NAME --previous`",
    "Exited": "read its last lines: `easel logs NAME`",
    "OutOfMemory": "raise metadata.memory, or make the program use less",
    "ProbeFailed": "see that the probe's path and port answer, and how long the program needs to start",
    "WrongPort": "listen on the port in the environment variable PORT",
    "RequirementsFailed": "try the requirements with pip on the same Python version",
    "MountFailed": "see that what the storage entry names exists: a local path on the machine where the replica runs, "
    "anything else as the node reaches it",
    "ImageFailed": "see that the image's name and `dockerAuth` are right, and that the node reaches its registry",
    "CommandFailed": "see that the program of `command` exists; shell features need `script`",
    "CodeUnavailable": "upload the code again",
}


def hint_for(cause: str, service: str = "NAME") -> str:
    """A sentence, or nothing; `service` stands in its commands."""
    return HINTS.get(cause, "").replace("NAME", service)
