"""Writes docs/cli.md from the command line itself. `--check` writes nothing and fails when the file is stale."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from easel_cli.main import app

TARGET = Path(__file__).parent.parent / "docs" / "cli.md"
SHARED = ("home", "server", "access_key", "help")

HEAD = """# The command line

*Written by `tools/generate_cli_docs.py` from the commands themselves; do not edit.*

Every command finds its platform in this order: `--server` with `--access-key`, or `--home`; the environment
(`EASEL_SERVER`, `EASEL_ACCESS_KEY`, `EASEL_HOME`; `EASEL_CA_FILE` for a private certificate authority); `~/.easel`.
These options stand before or behind the command's name. Results go to stdout, everything else to stderr;
`-o json|yaml|name` is for programs, and with `-o json` an error is a JSON object on stderr.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed: the platform or the service said no |
| 2 | bad input: arguments, a service.json |
| 3 | not found |
| 4 | no platform answers, or a part of it does not |
| 5 | timed out; what was started goes on |
| 130 | interrupted |

`easel --install-completion` sets up completion for your shell.
"""


def main() -> int:
    """Writes or checks the file."""
    text = generate()
    if "--check" in sys.argv:
        if not TARGET.exists() or TARGET.read_text() != text:
            print("docs/cli.md is stale: run tools/generate_cli_docs.py")
            return 1
        return 0
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text)
    return 0


def generate() -> str:
    """The file's text."""
    panels: dict[str, list[str]] = {}
    for name, command, panel in _commands(typer.main.get_command(app), "easel", ""):
        panels.setdefault(panel, []).append(_section(name, command))
    return HEAD + "".join(f"\n## {panel}\n" + "".join(sections) for panel, sections in panels.items())


def _commands(group: Any, name: str, panel: str) -> list[tuple[str, Any, str]]:
    found = []
    for key, command in group.commands.items():
        own = getattr(command, "rich_help_panel", None)
        own = own if isinstance(own, str) else panel
        if hasattr(command, "commands"):
            found += _commands(command, f"{name} {key}", own)
        elif not command.hidden:
            found.append((f"{name} {key}", command, own))
    return found


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name not in SHARED]
    usage = " ".join([name, *(["[OPTIONS]"] if options else []), *(_argument(p) for p in arguments)])
    lines = ["", f"### {name}", "", command.help.strip(), "", "```", usage, "```"]
    if options:
        lines += ["", "| option | |", "|---|---|", *(_option(p) for p in options)]
    examples = [line.removeprefix("Example: ") for line in (command.epilog or "").split("\n\n")]
    lines += ["", "Example:", "", "```sh", *examples, "```", ""]
    return "\n".join(lines)


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper()).strip("[]")
    return name if parameter.required else f"[{name}]"


def _option(parameter: Any) -> str:
    value = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
    default = "" if parameter.is_flag or parameter.default in (None, "", 0) else f" Default: {parameter.default}."
    value = value.replace("|", "\\|")
    spelling = ", ".join(f"`{spelling}{value}`" for spelling in (*parameter.opts, *parameter.secondary_opts))
    return f"| {spelling} | {(parameter.help or '').strip()}{default} |"


if __name__ == "__main__":
    raise SystemExit(main())
