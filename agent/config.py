"""The settings of an installed agent: a TOML file whose keys are the options of `edgelut-agent run`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from protos.errors import BadInputError, unknown

KEYS = ("coordinator", "device_type", "name", "meter", "state_dir", "identity", "calibrations")


def arguments_of(path: Path) -> list[str]:
    """The options that the file stands for. Raises BadInputError with file and key."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInputError(f"--config {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadInputError(f"{path} is not valid TOML: {error}") from error
    found = []
    for key, value in document.items():
        if key not in KEYS:
            raise BadInputError(f"{path}: {unknown('key', key, KEYS)}")
        if not isinstance(value, str):
            raise BadInputError(f"{path}: {key} must be text in quotes")
        found += [f"--{key.replace('_', '-')}", value]
    return found


def with_config(arguments: Sequence[str]) -> list[str]:
    """The arguments of `run` with those of its --config file before them, so that the command line wins."""
    for number, argument in enumerate(arguments):
        if argument == "--config" and number + 1 < len(arguments):
            return [arguments[0], *arguments_of(Path(arguments[number + 1])), *arguments[1:]]
        if argument.startswith("--config="):
            return [arguments[0], *arguments_of(Path(argument.removeprefix("--config="))), *arguments[1:]]
    return list(arguments)


def text_of(settings: Mapping[str, str]) -> str:
    """A file with these settings."""
    # JSON's text is TOML's, but for the one control character that JSON leaves as it is.
    quoted = {key: json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") for key, value in settings.items()}
    lines = [f"{key} = {value}" for key, value in quoted.items() if value != '""']
    return (
        "# The options of `edgelut-agent run`; restart edgelut-agent.service after a change.\n"
        + "\n".join(lines)
        + "\n"
    )
