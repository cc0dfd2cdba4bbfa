"""`nas report`: tables, figures and a page of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.options import CoordinatorOption, JsonOption, console, notice, print_json, table


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A sweep's folder.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where it goes. Default: DIR/report.")
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option("--baseline", metavar="REF|FILE", help="The LUT of a baseline (nas baselines); repeatable."),
    ] = None,
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Tables 1 and 2, Figures 6 to 10 (PNG and SVG), one HTML page, CSV: what a sweep found.

    [bold]Examples[/bold]

    nas report sweep1

    nas report sweep1 --output paper --baseline rpi3b/mobilenetv2-cifar10 --baseline rpi3b/condensenet74-cifar10
    """
    from lut_store.lut import Lut
    from nas import run_folder
    from nas.baseline_rows import baseline_rows
    from nas.cli.baselines import baseline_luts
    from nas.report import read_results
    from nas.report_page import make_report, write_report
    from nas.report_plots import Words

    baselines = baseline_rows(baseline_luts(baseline or (), coordinator))
    results, missing = read_results(folder)
    lut = Lut.load(folder / run_folder.LUT)
    trained = all(result.accuracy is not None for result in results)
    words = Words(
        "accuracy of the trained children" if trained else "accuracy in the supernet on the images of θ", notice(lut)
    )
    made = make_report(lut, results, missing, baselines)
    target = output or folder / "report"
    write_report(made, lut, results, target, words)
    if as_json:
        print_json({**made.summary, "report": str(target)})
        return
    out, rows = console(), table("network", "accuracy", "latency", "energy", "× latency", "× energy")
    for row in made.table2:
        rows.add_row(
            row["network"],
            *(
                "" if row[name] is None else f"{scale * row[name]:.4g}{unit}"
                for name, scale, unit in (
                    ("accuracy", 100, " %"),
                    ("latency_s", 1, " s"),
                    ("energy_j", 1, " J"),
                    ("times_latency", 1, ""),
                    ("times_energy", 1, ""),
                )
            ),
        )
    for part in (lut.reference, notice(lut), rows):
        if part:
            out.print(part)
    if missing:
        out.print(f"{len(missing)} of {len(missing) + len(results)} searches are not in it: they are not done")
    out.print(f"the page is {target / 'report.html'}", soft_wrap=True)
