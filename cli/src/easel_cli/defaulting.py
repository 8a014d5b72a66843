"""Groups of commands one of which needs no name: `easel mirror ocr` is `easel mirror set ocr`, `easel canary ocr` is
`easel canary desc ocr`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class SetByDefault(TyperGroup):
    """Where the first word is none of the group's commands, `set` is meant. What is called like a command is reached
    by the whole spelling."""

    meant = "set"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments with the word put before them that was left out."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.meant, *args]
        return super().parse_args(ctx, args)


class DescByDefault(SetByDefault):
    """The same, where `desc` is meant."""

    meant = "desc"
