"""A service.json as its author wrote it: read, checked for being JSON, local paths found and made usable.

Decides nothing about the content: control admits it. The text keeps its lines, so that the line and column in
control's errors are those of the author's file. Broken JSON is told here, with the line itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from easel_sdk.errors import FieldError, InvalidInput


@dataclass(frozen=True)
class SpecFile:
    """A service.json: its text, the parsed document, and where its relative paths start."""

    text: str
    document: dict[str, Any]
    directory: Path


SpecSource = str | os.PathLike[str] | Mapping[str, Any] | SpecFile
"""A path of a service.json, its text, the parsed document, or what `read_spec` made of any of them."""


@dataclass(frozen=True)
class LocalPath:
    """A `storage[i].local.path` of a text."""

    field: str
    """Its name in messages."""
    written: str
    path: Path
    """`written`, made absolute."""
    start: int
    end: int
    """Where `"path": "value"` stands in the text."""
    flat: bool
    """Written as `"local.path"`."""


def read_spec(source: SpecSource) -> SpecFile:
    """The document at a path, in a text that starts with `{`, or as given. Raises InvalidInput."""
    if isinstance(source, SpecFile):
        return source
    if isinstance(source, Mapping):
        return SpecFile(json.dumps(source, indent=2, ensure_ascii=False), dict(source), Path.cwd())
    if isinstance(source, str) and source.lstrip().startswith("{"):
        return SpecFile(source, parse(source, "the service.json"), Path.cwd())
    path = Path(source).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        hint = "`easel init DIR` writes one to start from"
        raise InvalidInput(f"no file {path}", code="NO_FILE", hint=hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}", code="UNREADABLE_FILE") from error
    return SpecFile(text, parse(text, str(path)), path.absolute().parent)


def parse(text: str, name: str) -> dict[str, Any]:
    """The JSON object in `text`; raises InvalidInput with line and column."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise _syntax_error(error, text, name) from None
    if not isinstance(document, dict):
        kind = "a list" if isinstance(document, list) else repr(document)
        raise InvalidInput(f"{name} holds {kind}; a service.json is one JSON object {{…}}", code="WRONG_TYPE")
    return document


_SPELLINGS: list[list[str | int]] = [["local", "path"], ["local.path"]]


def local_paths(spec: SpecFile) -> list[LocalPath]:
    """Every storage[].local.path of the text, in its order."""
    found = []
    for keys, start, end, value in _texts(spec.text):
        at_storage = len(keys) > 2 and keys[0] == "storage" and isinstance(keys[1], int)
        if not at_storage or keys[2:] not in _SPELLINGS or not value:
            continue
        path = Path(os.path.normpath(spec.directory / os.path.expanduser(value)))
        found.append(LocalPath(f"storage[{keys[1]}].local.path", value, path, start, end, len(keys) == 3))
    return found


def with_sources(spec: SpecFile, digests: Mapping[str, str]) -> SpecFile:
    """The same with each local path absolute, or replaced by the digest that `digests` has for its field."""
    text = spec.text
    for local in reversed(local_paths(spec)):
        digest = digests.get(local.field)
        key = ("local." if local.flat else "") + ("path" if digest is None else "digest")
        text = f"{text[: local.start]}{json.dumps(key)}: {json.dumps(digest or str(local.path))}{text[local.end :]}"
    return replace(spec, text=text, document=json.loads(text))


_TOKEN = re.compile(r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<mark>[{}\[\],:])|(?P<word>[^\s{}\[\],:"]+))', re.DOTALL)


def _texts(text: str) -> Iterator[tuple[list[str | int], int, int, str]]:
    """(keys and indexes, start of its key, end, value) of each text in sound JSON."""
    path: list[str | int] = []
    starts: list[int] = []
    is_key = False
    for match in _TOKEN.finditer(text):
        string, mark = match["text"], match["mark"]
        at = match.end() - len(match[0].lstrip())
        if mark and mark in "{[":
            path.append("" if mark == "{" else 0)
            starts.append(at)
            is_key = mark == "{"
        elif mark and mark in "}]":
            path.pop()
            starts.pop()
            is_key = False
        elif mark == "," and isinstance(path[-1], int):
            path[-1] += 1
        elif mark == ",":
            is_key = True
        elif string and is_key:
            path[-1], starts[-1], is_key = json.loads(string), at, False
        elif string:
            yield [*path], starts[-1], match.end(), json.loads(string)


def _syntax_error(error: json.JSONDecodeError, text: str, name: str) -> InvalidInput:
    lines = text.splitlines() or [""]
    line = lines[min(error.lineno, len(lines)) - 1]
    start = max(error.colno - 60, 0)
    shown = f"{line[start : start + 100]}\n{' ' * (error.colno - 1 - start)}^"
    field = FieldError(path="", code="SYNTAX", message=f"{error.msg}\n{shown}", hint=_syntax_hint(error, text),
                       line=error.lineno, column=error.colno)  # fmt: skip
    return InvalidInput(f"{name} is not JSON: line {error.lineno}, column {error.colno}", (field,), code="SYNTAX")


def _syntax_hint(error: json.JSONDecodeError, text: str) -> str:
    before, at = text[: error.pos].rstrip(), text[error.pos : error.pos + 1]
    if "trailing comma" in error.msg or (before.endswith(",") and at and at in "}]"):
        return "take out the comma before the closing bracket"
    if at == "'":
        return "write names and texts in double quotes"
    if at in ("#", "/"):
        return "JSON has no comments"
    if "',' delimiter" in error.msg:
        return "a comma is missing before this, or a quote inside a text needs a backslash"
    if text[error.pos :].startswith(("True", "False", "None")):
        return "JSON writes true, false and null"
    return ""
