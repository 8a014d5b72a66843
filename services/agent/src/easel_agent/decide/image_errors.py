"""Decides what a Docker engine's refusals mean to users. The engine's own words are kept: they name what failed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from easel_agent.decide.references import parse
from easel_agent.model import Refusal

ENDING = ("client connection is closing", "context canceled", "failed to update store for object type", "shutting down",
          "transport is closing", "ttrpc: closed", "containerd.sock")  # fmt: skip
NO_SPACE = "no space left on device"


def is_shutting_down(said: str) -> bool:
    """An engine that ends refuses what it is asked for with the words of what it has lost already: not for good."""
    low = said.lower()
    return any(words in low for words in ENDING)


def explain_pull(reference: str, said: str, *, with_login: bool) -> Refusal:
    """Why an image could not be pulled."""
    low, host = said.lower(), parse(reference).host or "the engine's default registry"
    if NO_SPACE in low:
        why = "the node's disk is full. Free space on it (`docker image prune`), or use a smaller image"
    elif "unauthorized" in low or "no basic auth" in low or "authentication required" in low or "denied" in low:
        why = (f"{host} refused the login given by dockerAuth" if with_login
               else f"{host} wants a login: give dockerAuth, the base64 of user:password")  # fmt: skip
    elif "manifest unknown" in low or "not found" in low or "name unknown" in low or "does not exist" in low:
        why = f"{host} has no such image or tag. Look at the name, and whether it was pushed"
    elif "no such host" in low:
        why = f"the name of {host} cannot be resolved on the node. Is the node offline, or the registry's name wrong?"
    elif "connection refused" in low or "i/o timeout" in low or "deadline exceeded" in low:
        why = f"{host} does not answer"
    elif "http response to https" in low or "x509" in low or "certificate" in low:
        why = f"{host} is not trusted by the engine: see the engine's insecure-registries and certs.d"
    else:
        why = "the engine says why"
    return Refusal(cause="image", message=f"The image {reference} cannot be pulled: {why} ({_short(said)}).")


def explain_container(step: Literal["create", "start"], status: int, said: str, words: tuple[str, ...]) -> Refusal:
    """Why a container could not be made (`create`) or started (`start`)."""
    low, name = said.lower(), words[0] if words else "the image's entry point"
    short = _short(said)
    if NO_SPACE in low:
        return Refusal(cause="internal", message=f"The node's disk is full, so no container can be made ({short}).")
    if step == "create" and status == 404 and "image" in low:
        return Refusal(cause="image", message=f"The image was removed from the node meanwhile ({short}).")
    if "no command specified" in low:
        return Refusal(cause="command", message="The image has no entry point: give `command` or `script`.")
    if ("device driver" in low and "gpu" in low) or "nvidia" in low:
        message = f"The engine cannot give GPUs to containers: install the vendor's container toolkit ({short})."
        return Refusal(cause="internal", message=message)
    if "not found" in low or ("no such file" in low and "exec" in low):
        shell = " The image has no shell; use `command` instead of `script`." if name == "/bin/sh" else ""
        message = f"Command not found in the image: {name!r}.{shell} ({short})"
        return Refusal(cause="command", message=message)
    if "permission denied" in low:
        return Refusal(cause="command", message=f"{name!r} may not be executed in the image ({short}).")
    if "exec format error" in low:
        message = f"{name!r} was made for another kind of processor, or its first line names no program ({short})."
        return Refusal(cause="command", message=message)
    if "unable to find user" in low:
        return Refusal(cause="command", message=f"The image has no such user: see security.user ({short}).")
    if "bind source" in low or "mount" in low:
        return Refusal(cause="mount", message=f"A mount could not be made ({short}).")
    done = {"create": "created", "start": "started"}[step]
    return Refusal(cause="internal", message=f"The container could not be {done} ({short}).")


def explain_init(lines: Sequence[str], words: tuple[str, ...]) -> Refusal | None:
    """The init process says it in the log when the program cannot be executed; None: it could."""
    last = lines[-1] if lines else ""
    if not (last.startswith("[FATAL tini") and "exec" in last):
        return None
    return explain_container("start", 400, f"exec: {last.rpartition('exec ')[2]}", words)


def _short(said: str) -> str:
    text = re.sub(r"\s+", " ", said).strip().rstrip(".")
    return text if len(text) <= 400 else text[:200] + " … " + text[-190:]
