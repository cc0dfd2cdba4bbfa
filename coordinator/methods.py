"""How the evidence of a run is judged: the estimators of lut_store, behind the names that the dispatcher calls.

numpy and scipy are imported when the first run needs them: a coordinator that only hands out LUTs starts without.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from lut_store.store import Store

if TYPE_CHECKING:
    from lut_store.estimate.latency import LatencyLook
    from lut_store.lut import Lut


class Estimators:
    """The methods of coordinator.build and lut_store.estimate."""

    def look(self, store: Store, run_id: str) -> LatencyLook:
        from coordinator.evidence import gather
        from lut_store.estimate.executions import covered
        from lut_store.estimate.latency import look

        spec = store.run(run_id).spec
        found = look(covered(spec), gather(list(store.measurements(run_id, "latency"))).streams)
        planned = len(spec.items)
        return replace(found, n=found.n[:planned], rel_halfwidth=found.rel_halfwidth[:planned])

    def build(self, store: Store, run_id: str) -> Lut:
        from coordinator.build import build_lut

        return build_lut(store, run_id)

    def report(self, store: Store, run_id: str) -> str:
        from coordinator.validate import validation_report

        return json.dumps(validation_report(store, run_id), sort_keys=True)
