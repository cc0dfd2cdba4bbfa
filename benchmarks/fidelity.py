"""Figure 1: do the sums of a LUT predict whole networks on this machine?

Every run measures 30 networks that nothing is fitted to, with weights of their own, shuffled with the paths that make
the table and with the hot loops that other tools publish. Then the same table meets new networks in a new process, at
once and later, without and with the anchors' rescaling. Medians over runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from benchmarks.runs import keep, private_coordinator, run_here
from coordinator.cli.connect import Link
from coordinator.plan import make_run
from lut_store.lut import Lut
from nas.space import load_space
from protos.types import RunSpec

SPACE = "fbnet-cifar10"
LATER_S = 20 * 60.0
NEVER = 1e-9  # a target that ends no run early: all runs take the same time
ISOLATED_EVERY = 3
TABLES = {
    "uncorrected": "paths",
    "corrected": "paths, corrected",
    "isolated": "isolated",
    "isolated_with_factor": "isolated, one factor",
}


@dataclass(frozen=True)
class Amount:
    runs: int
    profile_s: float
    validate_s: float
    cases: tuple[tuple[str, int], ...]  # context, threads
    later: bool


FULL = Amount(5, 150.0, 60.0, (("cold", 1), ("cold", 2), ("steady", 1), ("steady", 2)), later=True)
SHORT = Amount(1, 120.0, 45.0, (("cold", 1),), later=False)


def main(full: bool = False) -> None:
    amount = FULL if full else SHORT
    records: list[dict[str, Any]] = []
    due: list[tuple[float, Lut, int]] = []
    with private_coordinator() as link:
        for number in range(amount.runs):
            for context, threads in amount.cases:
                run = run_here(link, _profile(amount, context, threads, seed=100 * number + threads))
                lut = link.client.lut(digest=run.lut_digest)
                records.append({"case": f"{context}, {threads} thread", "when": "same run", **_of(lut)})
                records.append(_again(link, amount, lut, seed=100 * number + 50 + threads, when="new process"))
                if amount.later and number == 0:
                    due.append((time.monotonic() + LATER_S, lut, 9000 + threads))
                keep("fidelity", records)
                due = _later(link, amount, due, records, wait=False)
        _later(link, amount, due, records, wait=True)
    print(table(records))
    print(f"raw figures: {keep('fidelity', records)}")


def _profile(amount: Amount, context: str, threads: int, seed: int) -> RunSpec:
    spec = make_run(load_space(SPACE), "local", context=context, threads=threads, meter="none", energy=False, seed=seed)
    return replace(
        spec,
        plan=replace(
            spec.plan,
            latency_budget_s=amount.profile_s,
            target_rel_halfwidth=NEVER,
            isolated_every=ISOLATED_EVERY,
            other_context_every=0,
        ),
    )


def _of(lut: Lut) -> dict[str, Any]:
    record = lut.validation["latency"]
    return {name: record[name] for name in TABLES if name in record} | {
        "noise_floor": record["noise_floor_mape"],
        "disturbed": lut.provenance["disturbed_share"],
        "rounds": lut.provenance["rounds"],
        "correction": lut.latency.correction if lut.latency is not None else None,
    }


def _again(link: Link, amount: Amount, lut: Lut, seed: int, when: str) -> dict[str, Any]:
    """The table against new networks, measured by a new agent in a new worker."""
    c = lut.configuration
    spec = make_run(
        lut.space,
        "local",
        context=c.context,
        threads=c.threads,
        meter="none",
        energy=False,
        seed=seed,
        purpose="validate",
        lut_digest=lut.digest,
    )
    spec = replace(spec, plan=replace(spec.plan, latency_budget_s=amount.validate_s, target_rel_halfwidth=NEVER))
    report = json.loads(run_here(link, spec).report)["latency"]
    found = {"case": f"{c.context}, {c.threads} thread", "when": when, "noise_floor": report["noise_floor_mape"]}
    return found | {name: report[name] for name in ("plain", "rescaled") if name in report}


def _later(
    link: Link, amount: Amount, due: list[tuple[float, Lut, int]], records: list[dict[str, Any]], *, wait: bool
) -> list[tuple[float, Lut, int]]:
    """Validate the tables whose time has come; gives those that still wait."""
    left = []
    for at_s, lut, seed in due:
        if wait:
            time.sleep(max(0.0, at_s - time.monotonic()))
        if time.monotonic() < at_s:
            left.append((at_s, lut, seed))
            continue
        records.append(_again(link, amount, lut, seed, when="20 minutes later"))
        keep("fidelity", records)
    return left


def table(records: Sequence[dict[str, Any]]) -> str:
    """Medians over the runs of each case, in percent."""
    names = TABLES | {"plain": "as it is", "rescaled": "rescaled by anchors"}
    figures = ("bias", "mape", "max", "spearman")
    heads = f"{'bias':>7} {'MAPE':>7} {'max':>7} {'rho':>6} {'floor':>7}"
    lines = [f"{'case':17} {'when':16} {'table':22} {'runs':>4} {heads}"]
    cases = dict.fromkeys((r["case"], r["when"]) for r in records)
    for case, when in cases:
        own = [r for r in records if (r["case"], r["when"]) == (case, when)]
        floor = median(r["noise_floor"] for r in own)
        for name, label in names.items():
            found = [r[name] for r in own if name in r]
            if not found:
                continue
            bias, mape, worst, rho = (median(f[key] for f in found) for key in figures)
            numbers = f"{bias:+7.2%} {mape:7.2%} {worst:7.2%} {rho:6.3f} {floor:7.2%}"
            lines.append(f"{case:17} {when:16} {label:22} {len(found):4} {numbers}")
    return "\n".join(lines)
