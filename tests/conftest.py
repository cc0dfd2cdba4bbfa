"""What every test starts with."""

from __future__ import annotations

import os

# The processes that tests start share few cores: threads of the linear algebra would wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
