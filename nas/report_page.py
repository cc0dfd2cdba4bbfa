"""The files of a report: CSV, HANNA's two tables, five figures as PNG and SVG, and one HTML page with all of it."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lut_store.formats import files
from lut_store.lut import Lut
from nas import run_folder
from nas.baseline_rows import BaselineRow
from nas.cost import CostTable
from nas.report import (
    Agreement,
    Result,
    chosen,
    costs,
    hypervolume,
    measured_pairs,
    objectives,
    on_front,
    spearman,
)
from nas.report_plots import Words, draw_all
from nas.sweep import Trial
from protos.errors import StorageError

OWN = "HANNA"
UNKNOWN = "not measured"
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Report:
    """What stands in report.json, and on the page in words."""

    trials: Rows
    table1: Rows
    table2: Rows
    summary: dict[str, Any]


def make_report(
    lut: Lut, results: Sequence[Result], missing: Sequence[Trial], baselines: Sequence[BaselineRow]
) -> Report:
    """All numbers of a report. Raises as `require_whole` for a LUT with missing cells."""
    uniform = CostTable.from_lut(lut).uniform()
    points, best = costs(results), chosen(results)
    front = on_front(points)
    summary = {
        "lut": lut.reference,
        "lut_digest": lut.digest,
        "emulation": lut.configuration.emulation,
        "fixed_included": lut.fixed_included,
        "done": len(results),
        "missing": [{"trial": trial.number, "failure": trial.failure} for trial in missing],
        "energy_dominant": sum(result.setting.dominant == "energy" for result in results),
        "chosen": best.number,
        "front": [results[index].number for index in front],
        "front_with_accuracy": [results[index].number for index in on_front(objectives(results))],
        "hypervolume": {
            "value": hypervolume(points, uniform),
            "reference": {"latency_s": uniform[0], "energy_j": uniform[1]},
            "share": hypervolume(points, uniform) / (uniform[0] * uniform[1]),
        },
        "knob_effects": _effects(results),
        "predicted_against_measured": {name: asdict(found) for name, found in measured_pairs(results).items()},
        "trained": sum(result.accuracy is not None for result in results),
    }
    return Report([_row(result, lut) for result in results], _table1(baselines), _table2(baselines, best), summary)


def _effects(results: Sequence[Result]) -> dict[str, float]:
    """Spearman's ρ between what a term weighs before training and what the child costs."""
    points = costs(results)
    return {
        "v_latency on latency": spearman(np.array([r.setting.v_latency for r in results]), points[:, 0]),
        "v_energy on energy": spearman(np.array([r.setting.v_energy for r in results]), points[:, 1]),
    }


def _row(result: Result, lut: Lut) -> dict[str, Any]:
    setting = result.setting
    return {
        "trial": result.number,
        **asdict(setting.knobs),
        "v_latency": setting.v_latency,
        "v_energy": setting.v_energy,
        "dominant": setting.dominant,
        "latency_s": result.latency_s,
        "energy_j": result.energy_j,
        "supernet_accuracy": result.supernet_accuracy,
        "accuracy": result.accuracy,
        "measured_latency_s": result.measured_latency_s,
        "measured_energy_j": result.measured_energy_j,
        "choices": " ".join(lut.space.op_names[op] for op in result.choices),
    }


def _table1(baselines: Sequence[BaselineRow]) -> Rows:
    """HANNA's Table 1: the baselines whole on this device, and what the paper published for its Pi 3B."""
    return [
        {
            "network": row.title,
            "latency_s": row.whole_latency_s,
            "energy_j": row.whole_energy_j,
            "published_accuracy": row.published.accuracy,
            "published_latency_s": row.published.latency_s,
            "published_energy_j": row.published.energy_j,
        }
        for row in baselines
    ]


def _table2(baselines: Sequence[BaselineRow], best: Result) -> Rows:
    """HANNA's Table 2: the baselines and the chosen child, measured where it was, and how many times better it is."""
    latency_s = best.latency_s if best.measured_latency_s is None else best.measured_latency_s
    energy_j = best.energy_j if best.measured_energy_j is None else best.measured_energy_j
    rows: Rows = [
        {
            "network": row.title,
            "accuracy": None,
            "latency_s": row.whole_latency_s,
            "energy_j": row.whole_energy_j,
            "times_latency": row.whole_latency_s / latency_s if row.whole_latency_s else None,
            "times_energy": row.whole_energy_j / energy_j if row.whole_energy_j else None,
        }
        for row in baselines
    ]
    own = {"network": f"{OWN} (trial {best.number})", "accuracy": best.accuracy, "latency_s": latency_s}
    return [*rows, {**own, "energy_j": energy_j, "times_latency": 1.0, "times_energy": 1.0}]


def write_report(report: Report, lut: Lut, results: Sequence[Result], folder: Path, words: Words) -> None:
    """Everything into `folder`, over what an earlier report wrote there. Raises StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror}") from error
    for name, rows in (("trials", report.trials), ("table1", report.table1), ("table2", report.table2)):
        files.write(folder / f"{name}.csv", _csv(rows).encode())
    captions = draw_all(results, words, folder)
    record = {**asdict(report), "accuracy": words.accuracy, **run_folder.origin_of_code()}
    files.write(folder / "report.json", (json.dumps(_plain(record), indent=2, ensure_ascii=False) + "\n").encode())
    files.write(folder / "report.html", _page(report, lut, captions, words, folder).encode())


def _plain(value: Any) -> Any:
    """JSON without NaN."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _csv(rows: Rows) -> str:
    text = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


# ---- the page --------------------------------------------------------------------------------------------------------

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #d9dee3; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: #52606d; font-weight: 600; }
td.long { white-space: normal; text-align: left; min-width: 24rem; font-size: .8rem; }
figure { margin: 1.5rem 0; } figure svg { max-width: 100%; height: auto; } figcaption { color: #52606d; }
.notice { background: #fff4d6; padding: .5rem .8rem; }
"""
HEADS = {
    "trial": "trial",
    "network": "network",
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "v_latency": "vLAT",
    "v_energy": "vENER",
    "dominant": "dominant",
    "accuracy": "accuracy, %",
    "supernet_accuracy": "in the supernet, %",
    "latency_s": "latency, s",
    "energy_j": "energy, J",
    "measured_latency_s": "measured, s",
    "measured_energy_j": "measured, J",
    "published_accuracy": "published, %",
    "published_latency_s": "published, s",
    "published_energy_j": "published, J",
    "times_latency": "× latency",
    "times_energy": "× energy",
    "choices": "blocks, first layer to last",
}


def _page(report: Report, lut: Lut, captions: Mapping[str, str], words: Words, folder: Path) -> str:
    summary = report.summary
    parts = [f"<h1>{summary['done']} searches on {html.escape(lut.reference)}</h1>"]
    if words.notice:
        parts.append(f'<p class="notice">{html.escape(words.notice)}</p>')
    parts += [f"<p>{line}</p>" for line in _sentences(summary, words)]
    for number, rows in (
        (1, report.table1),
        (2, report.table2),
    ):
        what = ("the baselines", f"the baselines and the chosen child (trial {summary['chosen']})")[number - 1]
        parts.append(f"<h2>Table {number}: {what}</h2>" + _table(rows))
    for stem, caption in captions.items():
        parts.append(_figure(folder / f"{stem}.svg", stem, caption))
    parts.append("<h2>All trials</h2>" + _table(report.trials))
    title = html.escape(f"Sweep on {lut.reference}")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _sentences(summary: Mapping[str, Any], words: Words) -> list[str]:
    volume, effects = summary["hypervolume"], summary["knob_effects"]
    lines = [
        f"{summary['energy_dominant']} of the settings are dominated by energy before training, "
        f"{summary['done'] - summary['energy_dominant']} by latency.",
        f"Latency-energy front: trials {_numbers(summary['front'])}. It dominates {100 * volume['share']:.1f} % of the "
        f"area below the uniform mixture ({volume['reference']['latency_s']:.4g} s, "
        f"{volume['reference']['energy_j']:.4g} J). With accuracy as a third goal: trials "
        f"{_numbers(summary['front_with_accuracy'])}.",
        f"Rank correlation between the weight of a term before training and the child's cost: latency "
        f"{effects['v_latency on latency']:.2f}, energy {effects['v_energy on energy']:.2f}.",
    ]
    for name, found in summary["predicted_against_measured"].items():
        lines.append(_agreement(name, Agreement(**found)))
    if summary["missing"]:
        lines.append(f"Not done: trials {_numbers([entry['trial'] for entry in summary['missing']])}.")
    lines.append(f"Accuracies in the figures: {html.escape(words.accuracy)}. LUT digest {summary['lut_digest'][:16]}.")
    return lines


def _agreement(name: str, found: Agreement) -> str:
    return (
        f"Predicted against measured {name} of {found.n} children: rank correlation {found.rho:.3f} "
        f"(95 % interval {found.low:.3f} to {found.high:.3f}), bias {100 * found.bias:+.2f} %, mean error "
        f"{100 * found.mape:.2f} %, largest {100 * found.worst:.2f} %."
    )


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values)) or "none"


def _figure(path: Path, stem: str, caption: str) -> str:
    """The SVG inside the page, so that the page is one file."""
    drawing = path.read_text()
    drawing = drawing[drawing.index("<svg") :].replace(
        "<svg", f'<svg role="img" aria-label="{html.escape(caption)}"', 1
    )
    # Each drawing names its own glyphs and clips; on one page the names must differ.
    for mark in ('id="', 'href="#', "url(#"):
        drawing = drawing.replace(mark, f"{mark}{stem}-")
    return (
        f"<figure>{drawing}<figcaption>Figure {stem.removeprefix('fig')}. {html.escape(caption)}.</figcaption></figure>"
    )


def _table(rows: Rows) -> str:
    head = "".join(f"<th>{HEADS[name]}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(_cell(name, value) for name, value in row.items())}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(name: str, value: Any) -> str:
    if name == "choices":
        return f'<td class="long">{html.escape(str(value))}</td>'
    if value is None:
        return f"<td>{UNKNOWN}</td>"
    if isinstance(value, float):
        return f"<td>{100 * value:.2f}</td>" if name.endswith("accuracy") else f"<td>{value:.4g}</td>"
    return f"<td>{html.escape(str(value))}</td>"
