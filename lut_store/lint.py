"""What is wrong with a LUT, or might be: rules that look at the numbers and at the record of how they were measured.

>>> for finding in lint(lut):                                                             # doctest: +SKIP
...     print(finding.severity, finding.rule, finding.sentence)

An error means that the numbers cannot be true or must not be trusted: the tag `stable` is refused. A warning means that
a reader should know. Each rule and its thresholds are described in docs/tags-and-lint.md.
"""

from __future__ import annotations

from collections.abc import Callable

from lut_store.lint_cells import cost_falls, expensive_skip, few_meter_samples, implied_power, unequal_twins
from lut_store.lint_record import calibration, correction, drift, flagged
from lut_store.lut import Lut
from protos.types import SEVERITIES, Finding

Rule = Callable[[Lut], list[Finding]]

RULES: dict[str, Rule] = {
    "implied-power": implied_power,
    "expensive-skip": expensive_skip,
    "unequal-twins": unequal_twins,
    "cost-falls": cost_falls,
    "few-meter-samples": few_meter_samples,
    "flagged-samples": flagged,
    "correction": correction,
    "drift": drift,
    "calibration": calibration,
}


def lint(lut: Lut) -> tuple[Finding, ...]:
    """Everything that the rules find, errors first. Pure: the same LUT has the same findings."""
    found = [finding for rule in RULES.values() for finding in rule(lut)]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))
