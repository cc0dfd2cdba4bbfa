"""The command line. Modules of this package import what is slow inside the commands, so that `--help` is quick."""
