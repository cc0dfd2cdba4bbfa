"""`nas` and `python -m nas`."""

from __future__ import annotations


def main() -> None:
    """The entry point of the command line."""
    from nas.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
