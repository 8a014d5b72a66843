"""`mirror set rm`: copies of a service's requests that other services get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from easel_cli.command import Session, command
from easel_cli.defaulting import SetByDefault
from easel_cli.options import PANEL, Name

if TYPE_CHECKING:
    from easel_sdk.types import CompareOptions, Mirror

mirror_app = typer.Typer(cls=SetByDefault, no_args_is_help=True)


@command(mirror_app, "set", panel=PANEL, output=True,
         example="easel mirror set ocr --target ocr_next --ratio 30\n"
                 "easel mirror ocr --target @candidate --ratio 10 --compare --no-side-effects --ignore meta.took_ms\n"
                 "easel mirror ocr --ratio 0\neasel mirror ocr")  # fmt: skip
async def set_mirror(
    cli: Session,
    name: Name,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", metavar="NAME", help="Who gets copies; @candidate: its own new revision. May be "
                     "given up to 4 times.", show_default=False),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option("--ratio", "-r", metavar="PERCENT", help="Share of the requests, 0 to 100; 0: off.",
                     show_default=False),
    ] = None,
    compare: Annotated[
        bool | None,
        typer.Option("--compare/--no-compare", help="Compare the answers of the one target with the service's.",
                     show_default=False),
    ] = None,
    no_side_effects: Annotated[
        bool, typer.Option("--no-side-effects", help="Requests may be executed again: nothing is changed by them.")
    ] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="PATH", help="Place in JSON answers that does not count, e.g. boxes[].id; may "
                     "be given often.", show_default=False),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", metavar="R", help="Relative difference up to which numbers are equal.",
                     show_default=False),
    ] = None,
    text_similarity: Annotated[
        float | None,
        typer.Option("--text-similarity", metavar="0..1", help="From which texts are equal.", show_default=False),
    ] = None,
    samples_per_s: Annotated[
        float | None,
        typer.Option("--samples-per-s", metavar="N", help="At most so many are compared a second (5).",
                     show_default=False),
    ] = None,
    twice: Annotated[
        float | None,
        typer.Option("--twice", metavar="PERCENT", help="Share of these that the service answers twice, to know its "
                     "own noise (20).", show_default=False),
    ] = None,
    body_kib: Annotated[
        int | None,
        typer.Option("--body-kib", metavar="N", help="Larger bodies are not compared (256).", show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Has other services get copies of a service's requests; without options it shows the settings.

    Callers never wait for the copies. What is not given stays as it is; the word `set` may be left out.
    """
    options = {"ignore": ignore, "tolerance": tolerance, "text_similarity": text_similarity,
               "samples_per_s": samples_per_s, "twice_percent": twice, "body_kib": body_kib}  # fmt: skip
    options = {key: value for key, value in options.items() if value is not None}
    async with cli.client() as client:
        if target is None and ratio is None and compare is None and not no_side_effects and not options:
            _print(cli, await client.mirrors.get(name))
            return
        before = await _before(client, name)
        _refuse_missing(name, before, target, ratio)
        found = await client.mirrors.set(
            name, before.targets if target is None else target, before.percent if ratio is None else ratio,
            compare=_compare(before, compare, options, sure=no_side_effects, elsewhere=target is not None),
        )  # fmt: skip
    _tell(found)
    _print(cli, found)


@command(mirror_app, "rm", panel=PANEL, output=True, example="easel mirror rm ocr")
async def remove(cli: Session, name: Name) -> None:
    """Ends the copying of a service's requests; `--ratio 0` keeps the settings for later."""
    from easel_cli.output import note, show
    from easel_sdk.documents import to_dict

    async with cli.client() as client:
        gone = await client.mirrors.delete(name)
    note(f"[OK] Traffic mirroring is OFF for service [{name}]: its settings are removed")
    show(cli, to_dict(gone), [name])


async def _before(client: Any, name: str) -> Mirror:
    """The settings there are; empty ones where there are none."""
    from easel_contracts.errors import NotFound
    from easel_sdk.types import Mirror

    try:
        found: Mirror = await client.mirrors.get(name)
    except NotFound as error:
        if error.code != "NO_MIRROR":
            raise
        return Mirror(name=name)
    return found


def _refuse_missing(name: str, before: Mirror, target: list[str] | None, ratio: float | None) -> None:
    """Raises InvalidInput where nothing says to whom, or how much."""
    from easel_contracts.errors import InvalidInput

    missing = [
        option
        for option, given in (("--target", target is not None), ("--ratio", ratio is not None))
        if not given and not before.targets
    ]
    if missing:
        raise InvalidInput(f"{' and '.join(missing)} must be given: requests of {name} are not mirrored yet",
                           hint=f"easel mirror {name} --target OTHER --ratio 10")  # fmt: skip


def _compare(
    before: Mirror, wanted: bool | None, options: dict[str, Any], *, sure: bool, elsewhere: bool
) -> CompareOptions | None:
    """The comparison there is with the options laid over it; None: none is wanted.

    `sure`: a request may be executed again; what was said of one target says nothing of another (`elsewhere`).
    """
    from easel_contracts.errors import InvalidInput
    from easel_sdk.types import CompareOptions

    has = before.HasField("compare")
    if wanted is False or not (wanted or has):
        if options or sure:
            raise InvalidInput("these options are for a comparison, and none is on", hint="add --compare")
        return None
    found = CompareOptions()
    found.CopyFrom(before.compare)
    for key, value in options.items():
        if key == "ignore":
            del found.ignore[:]
            found.ignore.extend(value)
        else:
            setattr(found, key, value)
    found.no_side_effects = sure or (has and not elsewhere)
    return found


def _tell(mirror: Mirror) -> None:
    """As EASCMD says it, with what it costs."""
    from easel_cli.output import note

    on = "ON" if mirror.percent else "OFF"
    note(f"[OK] Traffic mirroring is {on} for service [{mirror.name}], ratio [{mirror.percent:g}%]")
    for warning in mirror.warnings:
        note(f"warning: {warning}")


def _print(cli: Session, mirror: Mirror) -> None:
    from easel_cli.output import pairs, show
    from easel_sdk.documents import to_dict

    if show(cli, to_dict(mirror), [mirror.name]):
        return
    rows: list[tuple[str, object]] = [
        ("Service", mirror.name),
        ("Targets", ", ".join(mirror.targets)),
        ("Ratio", f"{mirror.percent:g} %" + ("" if mirror.percent else " (off)")),
        ("Compared", _compared(mirror.compare) if mirror.HasField("compare") else "no"),
        ("Load", "\n".join(mirror.warnings)),
    ]
    pairs(rows)


def _compared(options: CompareOptions) -> str:
    """The comparison in lines."""
    lines = [f"at most {options.samples_per_s:g} a second, {options.twice_percent:g} % of them twice, bodies up to "
             f"{options.body_kib} KiB"]  # fmt: skip
    if options.tolerance:
        lines.append(f"numbers are equal up to a difference of {options.tolerance:g}")
    if options.text_similarity < 1:
        lines.append(f"texts are equal from a similarity of {options.text_similarity:g}")
    if options.ignore:
        lines.append(f"ignored: {', '.join(options.ignore)}")
    return "\n".join(lines)
