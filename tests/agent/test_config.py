"""Settings of an installed agent."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import KEYS, arguments_of, text_of
from agent.options import parse
from protos.errors import BadInputError


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    settings = {"coordinator": "lab:7443", "device_type": "rpi3b", "name": "pi-01", "meter": "um25c:/dev/rfcomm0"}
    file.write_text(text_of(settings))
    options = parse(["run", "--config", str(file)])
    assert (options.coordinator, options.device_type, options.name) == ("lab:7443", "rpi3b", "pi-01")
    assert options.meter == "um25c:/dev/rfcomm0"
    assert parse(["run", f"--config={file}", "--name", "pi-02"]).name == "pi-02"


@given(st.dictionaries(st.sampled_from(KEYS), st.text(min_size=1)))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> None:
    file = tmp_path_factory.mktemp("config") / "agent.toml"
    file.write_text(text_of(settings), "utf-8")
    read = arguments_of(file)
    assert dict(zip(read[::2], read[1::2], strict=True)) == {
        f"--{key.replace('_', '-')}": value for key, value in settings.items()
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('coordinatr = "a:1"', "did you mean 'coordinator'"),
        ("name = 3", "name must be text in quotes"),
        ("name = ", "is not valid TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    with pytest.raises(BadInputError) as caught:
        parse(["run", "--config", str(file)])
    assert sentence in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot be read: No such file"):
        parse(["run", "--config", str(tmp_path / "none.toml")])
