"""`coordinator lut build`: a new version from stored evidence, without a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.options import CoordinatorOption, JsonOption, console, one_of, print_json

if TYPE_CHECKING:
    from lut_store.lut import Lut

# The words of lut_store.estimate.settings, which is imported when something is built.
LATENCIES, ENERGIES, FORMS = ("median", "p10", "mean"), ("plateau", "peak"), ("power", "hanna")
MERGE = "What is merged"


def build(
    run: Annotated[list[str], typer.Option("--run", metavar="RUN", help="A run with its evidence; may be repeated.")],
    latency: Annotated[
        str, typer.Option("--latency", metavar="|".join(LATENCIES), help="Which statistic of an operator's times.")
    ] = LATENCIES[0],
    energy: Annotated[
        str,
        typer.Option("--energy", metavar="|".join(ENERGIES), help="Which power of a window: its level, or its top."),
    ] = ENERGIES[0],
    energy_form: Annotated[
        str,
        typer.Option(
            "--energy-form",
            metavar="|".join(FORMS),
            help="(P_load − P_idle) × t as measured, or 5.1 V × (I_dynamic − I_idle) × t.",
        ),
    ] = FORMS[0],
    no_correction: Annotated[
        bool, typer.Option("--no-correction", metavar="", help="Plain sums, whatever the measured networks say.")
    ] = False,
    allow_different: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-different",
            metavar="FIELD",
            help="Merge runs that differ in this; the version says so. May be repeated.",
            rich_help_panel=MERGE,
        ),
    ] = None,
    exclude_device: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude-device",
            metavar="NAME",
            help="Leave out what this board measured. May be repeated.",
            rich_help_panel=MERGE,
        ),
    ] = None,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Build a new LUT version from what runs have measured. No device is needed.

    The same evidence and settings give the same digest, and then the version that is already there. Runs whose
    conditions differ are not merged; the refusal names the field.

    [bold]Examples[/bold]

    coordinator lut build --run 20260301-101500-4f2a --latency p10

    coordinator lut build --run 20260301-101500-4f2a --run 20260302-090000-77b1 --allow-different kernel --json
    """
    one_of("--latency", latency, LATENCIES)
    one_of("--energy", energy, ENERGIES)
    one_of("--energy-form", energy_form, FORMS)
    from coordinator.cli.connect import connected

    with connected(coordinator) as link:
        lut, existed = link.client.build(
            run,
            latency=latency,
            energy=energy,
            energy_form=energy_form,
            correction=not no_correction,
            allow_different=allow_different or (),
            exclude_devices=exclude_device or (),
        )
        where, option = link.where, link.option
    if as_json:
        from lut_store.document import to_document

        print_json({"reference": lut.reference, "existed": existed, **to_document(lut)})
        return
    from coordinator.cli.outcome import print_lut

    out = console()
    print_lut(lut, out)
    out.print(outcome(lut, existed, where))
    out.print("Next:")
    out.print(f"  coordinator lut log {lut.reference}{option}")


def outcome(lut: Lut, existed: bool, where: str) -> str:
    """What came of it, in a sentence."""
    runs = ", ".join(lut.provenance["runs"])
    what = "was already there: the same evidence and settings" if existed else "is new"
    return f"{lut.reference} {what}, from {'runs' if ',' in runs else 'run'} {runs}, in {where}."
