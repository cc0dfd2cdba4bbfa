"""The commands of `edgelut-agent` that run once and end: `meters`, `monitor`, `calibrate`, `doctor`.

Each module is loaded by its own command alone, so that numpy and rich never come into the daemon.
"""
