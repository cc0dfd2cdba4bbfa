"""First weights of networks that are trained without batch norm.

torch's own first weights shrink what flows through a convolution to a third, an activation halves it: behind the seven
blocks of `fbnet-cifar10` that are not residual nothing is left, and neither a supernet nor a child learns. These keep
its variance (He et al., arXiv 1502.01852), and let a residual block begin as little more than its input (after Zhang et
al., arXiv 1901.09321). What has a batch norm behind it keeps torch's.
"""

from __future__ import annotations

import torch
from torch import nn

from nas.blocks import Conv, MBConv

RESIDUAL_GAIN = 0.25  # of a residual block's last convolution


def has_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Draw the weights of every block without batch norm anew, from torch's global generator."""
    for module in network.modules():
        if isinstance(module, MBConv) and not has_norm(module):
            for name, active in (("expand", True), ("depthwise", True), ("project", False)):
                _draw(module.get_submodule(name), active)
            if module.residual:
                module.get_parameter("project.weight").mul_(RESIDUAL_GAIN)
        elif isinstance(module, Conv) and not has_norm(module):
            _draw(module.conv, active=True)


def _draw(convolution: nn.Module, active: bool) -> None:
    assert isinstance(convolution, nn.Conv2d)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu" if active else "linear")
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
