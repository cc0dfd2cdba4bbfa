"""`coordinator` and `python -m coordinator`."""

from __future__ import annotations

import os

# The estimators' matrices are small: threads of the linear algebra would cost more than they give, and on a run on this
# machine they would disturb what is measured. They are read when numpy is imported.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """The entry point of the command line."""
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what gRPC's core would print stands in our own sentences
    from coordinator.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
