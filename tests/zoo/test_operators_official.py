"""Agreement with inputs, weights and outputs recorded from the layers that the authors of the operators released."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from invariscope.zoo.operators import build_operator
from invariscope.zoo.operators.polyphase import lps_scores


@pytest.fixture(scope="module")
def layers(shared_data: Path) -> dict[str, Tensor]:
    return load_file(shared_data / "official_layers.safetensors")


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("m", range(1, 8))
def test_blur(layers: dict[str, Tensor], m: int) -> None:
    close(build_operator(f"blur({m})", 5, 2, "reflect")(layers["x"]), layers[f"blurpool{m}.y"])


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("p", [1, 2])
def test_aps(layers: dict[str, Tensor], m: int, p: int) -> None:
    operator = build_operator(f"aps(p={p}, filter={m})", 5, 2, "circular")
    close(operator(layers["x"]), layers[f"aps_filt{m}_l{p}.y"])
    column_major = 2 * (operator.selection % 2) + operator.selection // 2
    assert torch.equal(column_major, layers[f"aps_filt{m}_l{p}.index_colmajor"])


def test_lps(layers: dict[str, Tensor]) -> None:
    operator = build_operator("lps(hidden=7)", 5, 2, "circular").eval()
    operator.load_state_dict({key[4:]: value for key, value in layers.items() if key.startswith("lps.conv")})
    close(lps_scores(layers["x"], 2, operator.conv1, operator.conv2), layers["lps.logits"])
    close(operator(layers["x"]), layers["lps.y"])


@pytest.mark.parametrize("size", ["even", "odd"])
def test_tips(layers: dict[str, Tensor], size: str) -> None:
    operator = build_operator("tips(phase_order=official)", 5).eval()
    operator.load_state_dict(
        {"depthwise.weight": layers["tips.depthwise3x3"], "pointwise.weight": layers["tips.pointwise"]}
    )
    x = layers[f"tips_{size}.x"]
    close(operator.logits(operator.padded_map(x))[0], layers[f"tips_{size}.psi"])
    close(operator(x), layers[f"tips_{size}.y"])


def test_tips_row_order_is_another_function(layers: dict[str, Tensor]) -> None:
    operator = build_operator("tips", 5).eval()
    operator.load_state_dict(
        {"depthwise.weight": layers["tips.depthwise3x3"], "pointwise.weight": layers["tips.pointwise"]}
    )
    assert (operator(layers["tips_even.x"]) - layers["tips_even.y"]).abs().max() > 0.01
