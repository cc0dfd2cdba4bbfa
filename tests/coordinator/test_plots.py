from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from coordinator import plots
from lut_store.lut import Lut
from protos.errors import BadInputError
from tests.coordinator.luts import validated_lut, with_hole
from tests.lut_store.samples import fbnet, space_of


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of a picture that shows something."""
    pixels = image.imread(path)
    assert pixels[..., :3].std() > 0.02, "the picture is empty"
    return pixels.shape[:2]


def test_a_heatmap_of_both_metrics_is_wider_than_one_of_latency_alone(tmp_path: Path) -> None:
    both, one = tmp_path / "both.png", tmp_path / "one.png"
    plots.heatmap(validated_lut(fbnet()), both)
    plots.heatmap(validated_lut(fbnet(), energy=False), one)
    assert size_of(both)[0] == size_of(one)[0]
    assert size_of(both)[1] > 1.4 * size_of(one)[1]


def test_spaces_of_other_shapes_are_drawn(tmp_path: Path) -> None:
    tiny = space_of(((1, 16, 1),), size=8)
    plots.heatmap(validated_lut(tiny), tmp_path / "tiny.png")
    deep = space_of(((70, 16, 1),), size=8)  # more cells than can be labelled
    plots.heatmap(validated_lut(deep), tmp_path / "deep.png")
    assert size_of(tmp_path / "deep.png")[0] > 2 * size_of(tmp_path / "tiny.png")[0]


def test_long_candidate_names_are_drawn_slanted(tmp_path: Path) -> None:
    space = space_of()
    named = replace(space, op_names=tuple(f"candidate_number_{i}" for i in range(len(space.op_names))))
    plots.heatmap(validated_lut(named), tmp_path / "long.png")
    plots.heatmap(validated_lut(space), tmp_path / "short.png")
    assert size_of(tmp_path / "long.png")[0] > size_of(tmp_path / "short.png")[0]


def test_a_cell_without_a_number_is_drawn_apart_from_one_that_is_not_allowed(tmp_path: Path) -> None:
    plots.heatmap(with_hole(validated_lut()), tmp_path / "hole.png")
    size_of(tmp_path / "hole.png")


@pytest.mark.parametrize("emulation", ["meter", "device"])
def test_emulation_is_said_in_red(tmp_path: Path, emulation: str) -> None:
    def reddish(lut: Lut) -> int:
        plots.validation_plot(lut, tmp_path / "v.png")
        pixels = image.imread(tmp_path / "v.png")[:150]  # the titles
        return int(((pixels[..., 0] > 0.6) & (pixels[..., 1] < 0.3)).sum())

    assert reddish(validated_lut(emulation=emulation)) > 500
    assert reddish(validated_lut()) == 0


def test_a_validation_plot_has_one_panel_for_each_measured_metric(tmp_path: Path) -> None:
    plots.validation_plot(validated_lut(), tmp_path / "both.png")
    plots.validation_plot(validated_lut(energy=False), tmp_path / "one.png")
    assert size_of(tmp_path / "both.png")[1] > 1.3 * size_of(tmp_path / "one.png")[1]


def test_unknown_intervals_are_left_out(tmp_path: Path) -> None:
    lut = validated_lut()
    assert lut.latency is not None
    lut = replace(lut, latency=replace(lut.latency, residual_rel_sd=float("nan")))
    plots.validation_plot(lut, tmp_path / "v.png")
    size_of(tmp_path / "v.png")


def test_what_cannot_be_plotted_is_said(tmp_path: Path) -> None:
    lut = validated_lut()
    with pytest.raises(BadInputError, match="no measured networks"):
        plots.validation_plot(replace(lut, validation={}), tmp_path / "v.png")
    with pytest.raises(BadInputError, match="holds no number"):
        plots.heatmap(replace(lut, latency=None, energy=None), tmp_path / "h.png")
    with pytest.raises(BadInputError, match="does not end in"):
        plots.heatmap(lut, tmp_path / "h.pdf")
    with pytest.raises(BadInputError, match="cannot be written"):
        plots.heatmap(lut, tmp_path / "missing" / "h.png")


def test_numbers_of_a_network_are_those_that_the_lut_predicts() -> None:
    from coordinator.record import metric_record

    lut = validated_lut()
    record = metric_record(lut, "energy")
    assert record is not None
    predicted = lut.predict(np.array([n["choices"] for n in lut.validation["energy"]["networks"]]))[:, 1]
    assert [point.corrected for point in record.networks] == pytest.approx(list(predicted))
    assert len(record.anchors) == 3
    assert all(point.lo is not None and point.lo < point.corrected for point in record.networks)


def test_a_picture_of_what_changed(tmp_path: Path) -> None:
    from coordinator.diff_plot import diff_heatmap
    from lut_store.diff import diff

    a = validated_lut(fbnet())
    assert a.latency is not None
    scale = np.ones(a.space.shape)
    scale[3:7, 2] = 1.4
    slower = replace(
        a, latency=replace(a.latency, value=scale * a.latency.value, corrected=scale * a.latency.corrected)
    )
    diff_heatmap(diff(a, slower), tmp_path / "both.png")
    diff_heatmap(diff(a, a), tmp_path / "same.png")
    diff_heatmap(diff(with_hole(a), a), tmp_path / "hole.png")
    pictures = [(tmp_path / f"{name}.png").read_bytes() for name in ("both", "same", "hole")]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert len(set(pictures)) == 3
    with pytest.raises(BadInputError, match="nothing to draw"):
        diff_heatmap(diff(replace(a, latency=None), replace(a, energy=None)), tmp_path / "none.png")
