"""Names of images and the login for their registry: what is wrong with them, in words. Nothing is looked up.

The grammar is the distribution project's: `[host[:port]/]path[:tag][@digest]`, at most 255 characters without tag and
digest. What is wrong is never repeated: somebody may have put a password into it.
"""

from __future__ import annotations

import base64
import binascii
import re

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST_PART = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?"
_NAME = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_EXAMPLE = "for example `python:3.11-slim` or `registry.example.com:5000/team/ocr:1.2`"

Problem = tuple[str, str]
"""(what is wrong, what to do)."""


def image_problem(reference: str) -> Problem | None:
    """What is wrong with the name of an image; None: it is sound."""
    if "://" in reference:
        return "the name of an image has no `https://` before it", "leave it out; " + _EXAMPLE
    if re.search(r"\s", reference):
        return "the name of an image has no spaces", _EXAMPLE
    name, at, digest = reference.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        return "what follows `@` is no digest", "`sha256:` and 64 hexadecimal digits, as `docker images --digests` says"
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        return "what follows `:` is no tag", "1 to 128 letters, digits, `_`, `.` and `-`, not `.` or `-` first"
    return _name_problem(f"{head}{slash}{last}")


def _name_problem(name: str) -> Problem | None:
    if len(name) > 255:
        return f"the name without its tag has {len(name)} characters; at most 255 are allowed", ""
    if re.fullmatch(r"[0-9a-f]{64}", name):
        return "64 hexadecimal digits are the id of an image, not a name", "give the image a tag: `docker tag ID NAME`"
    if _NAME.fullmatch(name):
        return None
    if _NAME.fullmatch(name.lower()):
        return "the repository of an image is written in lower case", f"did you mean `{name.lower()}`?"
    rule = "lower-case letters and digits, between them `.`, `_`, `__`, `-` or `/`"
    return f"this is not the name of an image: {rule}; before it may stand a registry's host and port", _EXAMPLE


def digest_of(reference: str) -> str:
    """The digest that a sound reference carries; empty: it names a tag."""
    return reference.partition("@")[2]


def login_problem(login: str) -> Problem | None:
    """What is wrong with a registry's login, base64 of `user:password`; None: it is sound."""
    hint = "the output of `printf %s 'USER:PASSWORD' | base64 -w0`"
    try:
        plain = base64.b64decode(login, validate=True).decode()
    except (binascii.Error, ValueError):
        return "this is not base64 of text", hint
    user, colon, _ = plain.partition(":")
    if not colon or not user:
        return "this is base64, but not of `user:password`", hint
    if re.search(r"[\x00-\x1f\x7f]", plain):
        return "user name and password hold a line break or another control character", hint
    return None
