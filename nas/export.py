"""A trained child for other programs: its weights as a state dict, or the whole network as ONNX."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lut_store.formats import files
from nas.train_folder import Trained
from protos.errors import BadInputError

ENDINGS = (".pt", ".onnx")
OPSET = 18
TOLERANCE = 1e-4  # relative to the largest output: other kernels sum in another order


def export(trained: Trained, output: Path) -> dict[str, Any]:
    """Write the network in the format of the ending, and say how it was checked.

    `.pt`: a dictionary of tensors and plain values that torch.load(weights_only=True) reads. `.onnx`: one graph from
    standardised images (batch, C, H, W) to logits, its batch free. Raises BadInputError for another ending, a file that
    is there already, and when what ONNX needs is not installed; StorageError when it cannot be written.
    """
    if output.suffix.lower() not in ENDINGS:
        raise BadInputError(f"{output}: the ending chooses the format and must be {' or '.join(ENDINGS)}")
    if output.exists():
        raise BadInputError(f"{output} is there already; name another file")
    if not output.parent.is_dir():
        raise BadInputError(f"there is no folder {output.parent} to write {output.name} into")
    if output.suffix.lower() == ".pt":
        files.write(output, _state_dict(trained))
        return {"format": "state-dict", "checked": "read back"}
    data, checked = _onnx(trained)
    files.write(output, data)
    return {"format": "onnx", "opset": OPSET, "checked": checked}


def _state_dict(trained: Trained) -> bytes:
    buffer = io.BytesIO()
    document = {
        "state_dict": trained.network.state_dict(),
        "choices": list(trained.child.choices),
        "space": trained.child.space.name,
        "classes": list(trained.classes),
        "mean": list(trained.mean),
        "spread": list(trained.spread),
    }
    torch.save(document, buffer)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=True)["state_dict"]
    if not all(torch.equal(again[name], tensor) for name, tensor in trained.network.state_dict().items()):
        raise AssertionError("the state dict does not read back as it was written")
    return buffer.getvalue()


def _onnx(trained: Trained) -> tuple[bytes, str]:
    """The model's bytes, and what it was checked with."""
    try:
        import onnx
        import onnxscript  # noqa: F401 — torch's exporter needs it
    except ImportError as error:
        raise BadInputError(f"ONNX needs the package {error.name}: pip install onnx onnxscript") from error
    _, channels, height, width = trained.child.space.input_shape
    x = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(0))
    model = _converted(trained.network, x)
    for name, value in (("classes", ",".join(trained.classes)), ("space", trained.child.space.name)):
        model.metadata_props.add(key=name, value=value)
    for name, numbers in (("mean", trained.mean), ("spread", trained.spread)):
        model.metadata_props.add(key=name, value=",".join(f"{v:.9g}" for v in numbers))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data, _compared(data, trained.network, x)


def _converted(network: nn.Module, x: torch.Tensor) -> Any:
    """The ONNX model. The exporter's own messages are for its developers."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (x,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _compared(data: bytes, network: nn.Module, x: torch.Tensor) -> str:
    """Run the model with onnxruntime, where it is installed, on one image and on two: the logits must be ours."""
    try:
        import onnxruntime
    except ImportError:
        return "onnx.checker"
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for images in (x[:1], x):
        (logits,) = session.run(None, {"images": images.numpy()})
        with torch.inference_mode():
            expected = network(images)
        error = float((torch.from_numpy(logits) - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
        if not error <= TOLERANCE:
            raise BadInputError(
                f"the ONNX model does not compute what the network does (relative difference {error:.2g}); please "
                "report this"
            )
    return "onnx.checker, onnxruntime"
