"""Coordinator, emulated Pi and command line as real processes, from `profile` to a file."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coordinator.client import Coordinator
from lut_store.lut import Lut
from lut_store.store import Store
from protos.types import LutQuery
from tests.e2e.processes import DEADLINE_S, World

REFERENCE = "rpi3b/tiny"


@pytest.fixture(scope="module")
def profiled(emulated: World) -> dict[str, Any]:
    """What `coordinator profile --json` printed for the tiny space."""
    command = ("coordinator", "profile", "--device", "rpi3b", "--space", "tiny.toml", "--preset", "quick", "--json")
    done = emulated.run(*command)
    assert "EMULATED DEVICE" in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_profile_ends_with_a_validated_lut(profiled: dict[str, Any]) -> None:
    assert profiled["reference"] == "rpi3b/tiny@1"
    assert profiled["configuration"]["emulation"] == "device"
    for metric in ("latency", "energy"):
        errors = profiled["validation"][metric]
        assert errors["uncorrected"]["n"] == errors["corrected"]["n"] > 0
        assert np.isfinite(errors["corrected"]["mape"])


def test_building_from_the_stored_evidence_gives_the_profile_s_own_version(
    emulated: World, profiled: dict[str, Any]
) -> None:
    again = emulated.json("coordinator", "lut", "build", "--run", profiled["run"], "--json")
    assert (again["digest"], again["version"], again["existed"]) == (profiled["digest"], profiled["version"], True)


def test_the_lut_comes_back_through_the_client(emulated: World, profiled: dict[str, Any]) -> None:
    with Coordinator(emulated.environment["EDGELUT_COORDINATOR"], cache=emulated.folder / "own-cache") as client:
        lut = client.lut("rpi3b", space="tiny", version="latest")
    assert lut.digest == profiled["digest"]
    assert lut.latency_s.shape == lut.energy_j.shape == (4, 4)
    assert np.isnan(lut.latency_s).sum() == np.isnan(lut.energy_j).sum() == (~lut.allowed).sum()
    predicted = lut.predict([[2, 0, 1, 3]])
    interval = lut.predict_interval([[2, 0, 1, 3]])
    assert np.isfinite(predicted).all()
    assert predicted.shape == (1, 2)
    assert interval.shape == (1, 2, 2)
    assert interval[0, 0, 0] < predicted[0, 0] < interval[0, 0, 1]


def test_show_and_list_print_tables_and_json(emulated: World, profiled: dict[str, Any]) -> None:
    shown = emulated.run("coordinator", "lut", "show", REFERENCE).stdout
    for part in ("rpi3b/tiny@1", "EMULATED DEVICE", "latency", "energy above idle", "uncorrected", "UM25C", "digest"):
        assert part in shown
    assert "conv 3→8 k3 s2 @16×16" in emulated.run("coordinator", "lut", "show", REFERENCE, "--view", "cells").stdout
    document = emulated.json("coordinator", "lut", "show", f"{REFERENCE}@latest", "--json")
    assert document["digest"] == profiled["digest"]
    (listed,) = emulated.json("coordinator", "lut", "list", "--json")
    assert listed["reference"] == "rpi3b/tiny@1"
    assert listed["emulation"] == "device"
    assert "rpi3b/tiny@1" in emulated.run("coordinator", "lut", "list").stdout


def test_a_lut_that_was_exported_predicts_the_same_without_its_coordinator(
    emulated: World, profiled: dict[str, Any]
) -> None:
    choices = [[2, 0, 1, 3], [0, 3, 2, 1]]
    predictions = []
    for ending in ("lut", "json", "parquet"):
        emulated.run("coordinator", "lut", "export", REFERENCE, "--output", f"pi.{ending}")
        loaded = Lut.load(emulated.folder / f"pi.{ending}")
        assert loaded.digest == profiled["digest"]
        predictions.append(loaded.predict(choices))
    assert np.array_equal(predictions[0], predictions[1])
    assert np.array_equal(predictions[0], predictions[2])
    emulated.run("coordinator", "lut", "export", REFERENCE, "--output", "pi.csv")
    rows = (emulated.folder / "pi.csv").read_text().splitlines()
    assert rows[0].startswith("layer,op,latency_s,latency_lo_s,latency_hi_s,energy_j")
    assert "rpi3b/tiny@1" in emulated.run("coordinator", "lut", "show", "pi.lut", "--view", "none").stdout


@pytest.mark.usefixtures("profiled")
def test_both_plots_are_written(emulated: World) -> None:
    for kind in ("heatmap", "validation"):
        emulated.run("coordinator", "lut", "plot", REFERENCE, "--output", f"{kind}.png", "--kind", kind)
        assert (emulated.folder / f"{kind}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("profiled")
def test_validate_measures_fresh_networks_and_compares(emulated: World) -> None:
    report = emulated.json("coordinator", "lut", "validate", REFERENCE, "--device", "rpi3b", "--seed", "99", "--json")
    assert report["lut"] == "rpi3b/tiny@1"
    assert report["anchors"] > 0
    assert report["latency"]["plain"]["n"] == report["latency"]["rescaled"]["n"] > 0
    (run,) = (r for r in emulated.json("coordinator", "runs", "list", "--json") if r["spec"]["purpose"] == "validate")
    assert "rescaled by the anchors" in emulated.run("coordinator", "runs", "watch", run["run_id"]).stdout


def test_runs_and_devices_are_listed(emulated: World, profiled: dict[str, Any]) -> None:
    runs = emulated.json("coordinator", "runs", "list", "--limit", "50", "--json")
    assert {"done"} == {run["state"] for run in runs if run["spec"]["purpose"] == "profile"}
    assert profiled["run"] in emulated.run("coordinator", "runs", "list").stdout
    (device,) = emulated.json("coordinator", "devices", "--json")
    assert (device["device_type"], device["emulation"], device["meter"]["emulated"]) == ("rpi3b", "device", True)
    assert "rpi3b (emulated)" in emulated.run("coordinator", "devices").stdout


@pytest.mark.usefixtures("profiled")
def test_a_detached_run_is_watched_cancelled_and_resumed(emulated: World) -> None:
    profile = ("coordinator", "profile", "--device", "rpi3b", "--space", "tiny.toml", "--preset", "standard")
    run = emulated.run(*profile, "--detach").stdout.strip()
    assert "cancelled" in emulated.run("coordinator", "runs", "cancel", run).stdout
    assert "was cancelled" in emulated.run("coordinator", "runs", "watch", run, status=1).stderr
    emulated.run("coordinator", "runs", "resume", run, "--detach")
    emulated.run("coordinator", "runs", "cancel", run)


@pytest.mark.usefixtures("profiled")
def test_ctrl_c_detaches_and_says_how_to_attach_again(emulated: World) -> None:
    command = ["coordinator", "profile", "--device", "rpi3b", "--space", "tiny.toml", "--preset", "thorough"]
    process = subprocess.Popen(
        command, cwd=emulated.folder, env=emulated.environment, stderr=subprocess.PIPE, text=True
    )
    try:
        run = _until_running(emulated)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == 0
    assert f"coordinator runs watch {run}" in said
    assert "Traceback" not in said
    assert emulated.json("coordinator", "runs", "list", "--json")[0]["state"] not in ("cancelled", "failed")
    emulated.run("coordinator", "runs", "cancel", run)


def _until_running(world: World) -> str:
    """The id of the thorough run, once its first round is stored, so that the command watches it by then."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        runs = world.json("coordinator", "runs", "list", "--json")
        found = [r["run_id"] for r in runs if r["spec"]["preset"] == "thorough" and r["rounds"]]
        if found:
            return str(found[0])
        time.sleep(0.2)
    raise AssertionError("the run never measured anything")


@pytest.mark.usefixtures("profiled")
def test_what_does_not_exist_is_named_with_what_there_is(emulated: World) -> None:
    def said(*arguments: str) -> str:
        return emulated.run("coordinator", *arguments, status=2).stderr.strip()

    assert "did you mean 'rpi3b'" in said("profile", "--device", "rpi3")
    assert "did you mean 'tiny'" in said("lut", "show", "rpi3b/tini")
    assert "there is no run nope" in said("runs", "watch", "nope")
    assert "has no tag 'x'. There is: rpi3b/tiny@" in said("lut", "show", "rpi3b/tiny@x")
    assert "did you mean 'heatmap'" in said("lut", "plot", REFERENCE, "--kind", "heatmp", "--output", "x.png")
    assert "x.xls" in said("lut", "export", REFERENCE, "--output", "x.xls")
    assert "is a file" in said("lut", "validate", "pi.lut", "--device", "rpi3b")
    assert "holds one LUT" in said("lut", "show", "pi.lut", "--threads", "2")


# ---- tags and drift: after everything that counts versions and runs ----


@pytest.mark.usefixtures("profiled")
def test_emulated_data_are_stable_by_force_alone(emulated: World) -> None:
    refused = emulated.run("coordinator", "lut", "tag", f"{REFERENCE}@1", "stable", status=2).stderr
    assert "its data are from an emulated device, not from hardware" in refused
    forced = emulated.json("coordinator", "lut", "tag", f"{REFERENCE}@1", "stable", "--force", "--json")
    assert forced["forced"]
    assert emulated.json("coordinator", "lut", "show", f"{REFERENCE}@stable", "--json")["version"] == 1


@pytest.mark.usefixtures("profiled")
def test_a_board_is_asked_whether_its_lut_still_holds(emulated: World) -> None:
    found = emulated.json("coordinator", "drift", "--device", "rpi3b", "--json")
    assert (found["lut"], found["holds"], found["reasons"]) == ("rpi3b/tiny@1", True, [])
    assert found["anchors"] > 0
    assert found["operators"]["tested"] == 11
    assert "did you mean" in emulated.run("coordinator", "drift", "--device", "rpi3", status=2).stderr
    assert (
        "must be above 0"
        in emulated.run("coordinator", "drift", "--device", "rpi3b", "--tolerance", "0", status=2).stderr
    )


@pytest.mark.usefixtures("profiled")
def test_a_lut_of_a_faster_board_does_not_hold(emulated: World) -> None:
    with closing(Store(f"sqlite:///{emulated.folder / 'data' / 'edgelut' / 'edgelut.db'}")) as store:
        lut = store.lut(LutQuery("rpi3b", "tiny", "1"))
        anchors = [{**anchor, "latency_s": 0.8 * anchor["latency_s"]} for anchor in lut.validation["anchors"]]
        validation = {**lut.validation, "anchors": anchors}
        faster = replace(lut, validation=validation, provenance={**lut.provenance, "evidence": "of another board"})
        version = store.add_lut(replace(faster, version=0)).version
    emulated.run("coordinator", "lut", "tag", f"{REFERENCE}@{version}", "stable", "--force")
    said = emulated.run("coordinator", "drift", "--device", "rpi3b", status=1).stdout
    assert f"rpi3b/tiny@{version} (stable) does NOT hold any more on rpi3b" in said
    assert "the anchor networks take +2" in said
