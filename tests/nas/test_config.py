"""Settings: the paper's schedules, files, words, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.config import SearchConfig, load_config
from protos.errors import BadInputError


def test_the_papers_schedules() -> None:
    config = SearchConfig()
    assert (config.epochs, config.warmup_epochs, config.batch, config.weight_share) == (90, 10, 256, 0.8)
    assert config.temperature_at(0) == 5.0
    assert config.temperature_at(2) == pytest.approx(5.0 * 0.956**2)
    assert config.weight_lr_at(0) == 0.1
    assert config.weight_lr_at(45) == pytest.approx(0.05)


def test_words_come_after_the_file(tmp_path: Path) -> None:
    path = tmp_path / "search.toml"
    path.write_text(
        'epochs = 5\nwarmup_epochs = 1\nweight_lr = 1\nrelaxation = "two-path"\n[knobs]\nalpha = 1\nbeta = 2.0\n'
    )
    config = load_config(path, ["epochs=7", "knobs.alpha=0.5", "normalise=true"])
    assert (config.epochs, config.weight_lr, config.relaxation, config.normalise) == (7, 1.0, "two-path", True)
    assert config.knobs == {"alpha": 0.5, "beta": 2.0}
    assert config.digest != load_config(path).digest


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("epoch=3", "unknown setting 'epoch'.*did you mean 'epochs'"),
        ("epochs", "is no setting; write KEY=VALUE"),
        ("epochs=three", "epochs is 'three'; it must be a int"),
        ("epochs=0", "epochs is 0; it must be above zero"),
        ("epochs=3", "warmup_epochs is 10, more than the 3 epochs"),
        ("weight_lr=nan", "weight_lr is nan"),
        ("weight_lr=-1", "weight_lr is -1.0"),
        ("weight_share=1", "must lie between 0 and 1"),
        ("normalise=yes", "write true or false"),
        ("relaxation=one-path", "did you mean 'two-path'|unknown relaxation"),
        ("data=mnist", "unknown data 'mnist'"),
        ("knobs.alpha=much", "knobs.alpha is 'much'"),
        ("knobs=3", "write a knob by its name"),
    ],
)
def test_bad_words(word: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        load_config(None, [word])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "is no TOML"),
        ('epochs = "many"', "epochs is 'many'; it must be a int"),
        ("epochs = true", "epochs is True"),
        ("knobs = 3", "knobs must be a table"),
        ('[knobs]\nalpha = "x"', "knob alpha is 'x'"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "search.toml"
    path.write_text(text)
    with pytest.raises(BadInputError, match=message) as caught:
        load_config(path)
    assert "search.toml" in str(caught.value)
