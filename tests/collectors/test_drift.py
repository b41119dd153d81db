"""Drift: against loops over images and shifts, on the passes of invariance, and where networks do odd things."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from invariscope_tests_msb_loops import Call  # loaded by conftest.py
from invariscope_tests_rival_loops import drift as slow_drift
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import ModelError
from invariscope.collectors.engine.run import collect
from invariscope.collectors.measure import drift as drift_module
from invariscope.collectors.measure.border import circularly_padded
from invariscope.collectors.measure.drift import measure_drift
from invariscope.collectors.measure.last_map import LastMap
from invariscope.collectors.measure.shifts import ShiftPlan, apply_shift
from invariscope.collectors.measure.tapping import Taps
from invariscope.collectors.options import Options
from invariscope.collectors.schema import TABLES
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet
from invariscope.zoo.loading import build_model
from invariscope.zoo.sites import record

VALUES = ["drift_in", "drift_in_se", "drift_out", "drift_out_se", "blame", "blame_se"]


class Net(nn.Module):
    """A strided convolution, a pooling, a slice, a head; every map is kept."""

    def __init__(self, mode: str = "zeros") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, 2, 1, padding_mode=mode)
        self.pool = nn.MaxPool2d(2)
        self.mix = nn.Conv2d(4, 6, 3, padding=1, padding_mode=mode)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        self.maps = [x]
        x = self.conv(x).relu()
        self.maps.append(x)
        x = self.pool(x)
        self.maps.append(x)
        x = self.mix(x).relu()
        self.maps.append(x)
        x = x[..., ::2, ::2]
        self.maps.append(x)
        return self.head(x.mean((2, 3)))


def slow(model: Net, images: Tensor, plan: ShiftPlan) -> dict[str, float]:
    """Drift of each map of ``Net`` and of its logits, image by image and shift by shift."""

    def features(batch: Tensor) -> list[np.ndarray]:
        with torch.no_grad():
            logits = model(batch[None])
        return [*(each[0].mean((1, 2)).numpy() for each in model.maps), logits[0].numpy()]

    still = [features(image) for image in images]
    moved = [
        [features(apply_shift(image[None], plan.offsets[n, k][None].astype(np.int64), plan.kind)[0]) for k in range(3)]
        for n, image in enumerate(images)
    ]
    found = []
    for part in range(6):
        one = np.array([each[part] for each in still])
        found.append(slow_drift(one, np.array([[each[part] for each in shifts] for shifts in moved])))
    return dict(zip(("image", "conv", "pool", "mix", "slice", "logits"), found, strict=True))


@pytest.mark.parametrize("kind", ["circular", "zero", "fractional"])
def test_drift_as_loops_have_it(kind: str) -> None:
    torch.manual_seed(1)
    model, images = Net().double().eval(), torch.randn(5, 3, 16, 16, dtype=torch.float64)
    plan = ShiftPlan.sampled(5, 3, 3, kind, fill="mean")
    if kind == "fractional":
        assert (plan.offsets % 16 != 0).any()
    wanted = slow(model, images, plan)
    frame = measure_drift(model, images, plan, batch_size=2)
    assert frame["site_kind"].tolist() == ["conv", "max", "subsample", "logits"]
    # The pool takes what the activation after the convolution makes; the convolution's output is before it.
    assert frame["drift_in"].tolist() == pytest.approx([wanted[n] for n in ("image", "conv", "mix", "slice")], rel=1e-9)
    assert frame["drift_out"].tolist()[1:] == pytest.approx([wanted[n] for n in ("pool", "slice", "logits")], rel=1e-9)
    steps = [("image", "conv"), ("conv", "mix"), ("mix", "slice"), ("slice", "logits")]
    blame = [wanted[after] - wanted[before] for before, after in steps]
    assert frame["blame"].tolist() == pytest.approx(blame, rel=1e-9)


def test_errors_are_the_jackknife_over_images() -> None:
    torch.manual_seed(1)
    model, images = Net().double().eval(), torch.randn(6, 3, 16, 16, dtype=torch.float64)
    plan = ShiftPlan.sampled(6, 3, 3)
    frame = measure_drift(model, images, plan)
    for name in ("drift_in", "drift_out", "blame"):
        left = []
        for n in range(6):
            rest = [m for m in range(6) if m != n]
            part = ShiftPlan("circular", "sampled", 3, None, 0, plan.offsets[rest])
            left.append(measure_drift(model, images[rest], part)[name].to_numpy())
        error = np.sqrt(5 / 6 * np.square(left - np.mean(left, 0)).sum(0))
        assert frame[f"{name}_se"].to_numpy() == pytest.approx(error, rel=1e-9)


def test_a_choice_of_phase_drifts_nowhere_under_circular_shifts() -> None:
    torch.manual_seed(0)
    model = build_model("zoo:smallcnn?operator=aps&padding_mode=circular&width=4&in_channels=1").double().eval()
    frame = measure_drift(model, torch.randn(6, 1, 32, 32, dtype=torch.float64), ShiftPlan.sampled(6, 4))
    assert (frame[["drift_in", "drift_out"]] < 1e-25).all(axis=None)
    other = build_model("zoo:smallcnn?operator=subsample&padding_mode=circular&width=4&in_channels=1").double().eval()
    frame = measure_drift(other, torch.randn(6, 1, 32, 32, dtype=torch.float64), ShiftPlan.sampled(6, 4))
    assert frame["drift_in"][0] < 1e-25
    assert (frame["drift_out"] > 1e-4).all()


def test_the_next_site_is_the_one_that_takes_what_comes_out() -> None:
    """In a residual block main branch and shortcut both get smaller: neither is the next of the other."""
    torch.manual_seed(0)
    model = build_model("zoo:resnet20?operator=max").eval()
    frame = measure_drift(model, torch.randn(8, 3, 32, 32), ShiftPlan.sampled(8, 4)).set_index("depth")
    next_one = {0: 2, 1: 2, 2: 4, 3: 4, 4: None}
    for depth, following in next_one.items():
        after = frame.loc[following, "drift_in"] if following is not None else frame.loc[4, "drift_out"]
        assert frame.loc[depth, "blame"] == pytest.approx(after - frame.loc[depth, "drift_in"])


def test_modules_that_are_sites_are_watched_at_their_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    images, plan = torch.randn(12, 3, 32, 32), ShiftPlan.sampled(12, 4)
    for spec in ("zoo:resnet20?operator=aps", "zoo:smallcnn?in_channels=3&operator=prefilter(0.5, max)"):
        model = build_model(spec).eval()
        calls = []
        with monkeypatch.context() as patch:
            patch.setattr(drift_module, "record", lambda *a, calls=calls, **k: calls.append(1) or record(*a, **k))
            fast = measure_drift(model, images, plan, batch_size=4)
            assert len(calls) == 1
            patch.setattr(Taps, "of", lambda *of: None)
            calls.clear()
            slow_ = measure_drift(model, images, plan, batch_size=4)
            assert len(calls) == 30
        assert fast["site"].tolist() == slow_["site"].tolist()
        assert fast[VALUES].to_numpy() == pytest.approx(slow_[VALUES].to_numpy(), rel=1e-3, abs=1e-6)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_sites_of_other_kinds_and_other_batches() -> None:
    torch.manual_seed(0)
    images = torch.randn(6, 2, 16, 16)
    odd = nn.Sequential(
        Call(lambda x: x.view(len(x), 2, 8, 2, 8, 2).amax((3, 5))),
        nn.Conv2d(2, 3, 3, padding=1),
        nn.PixelUnshuffle(2),
        nn.Flatten(),
        nn.Linear(192, 4),
    )
    plain = nn.Sequential(nn.MaxPool2d(2), *list(odd)[1:])
    plan = ShiftPlan.sampled(6, 3)
    found, wanted = measure_drift(odd, images, plan, batch_size=4), measure_drift(plain, images, plan)
    assert found["site_kind"].tolist() == ["max", "space_to_depth", "logits"]
    assert found[VALUES].to_numpy() == pytest.approx(wanted[VALUES].to_numpy(), rel=1e-4)


def test_features_that_do_not_vary_have_no_drift() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), Call(lambda x: 0 * x), nn.Flatten(), nn.Linear(32, 3))
    frame = measure_drift(model, torch.randn(4, 2, 8, 8), ShiftPlan.sampled(4, 2))
    assert math.isfinite(frame.loc[0, "drift_in"])
    assert frame.loc[1, ["drift_in", "drift_out"]].isna().all()
    assert "does not vary" in frame.loc[1, "reason"]


def _read(out: Path, table: str) -> pd.DataFrame:
    import pyarrow.dataset as ds

    rows = ds.dataset(out / table, schema=TABLES[table], format="parquet").to_table().to_pandas()
    keys = [key for key in ("checkpoint", "shift_kind", "max_shift", "depth", "score") if key in rows]
    return rows.sort_values(keys, ignore_index=True)


def test_it_is_measured_on_the_passes_of_invariance(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from invariscope.collectors.measure import invariance

    passes = []
    before = invariance.predict
    monkeypatch.setattr(invariance, "predict", lambda *a, **k: passes.append(1) or before(*a, **k))
    options = {"shift": ("circular", "zero", "crop"), "progress": False}
    shift = options["shift"]
    collect(zoo, images, tmp_path / "both", Options(("layers", "invariance", "drift"), shift=shift), progress=False)
    assert len(passes) == 3 * len(zoo)
    collect(zoo, images, tmp_path / "alone", Options(("drift",), shift=shift, batch_size=7), progress=False)
    collect(zoo, images, tmp_path / "scores", Options(("layers", "invariance"), shift=shift), progress=False)
    both, alone = _read(tmp_path / "both", "drift"), _read(tmp_path / "alone", "drift")
    assert len(both) == 3 * 3 * 4
    assert (both["task"] == alone["task"]).all()
    assert both[VALUES].to_numpy() == pytest.approx(alone[VALUES].to_numpy(), rel=1e-3, abs=1e-9)
    scores = [_read(tmp_path / name, "invariance")[["score", "value", "se"]] for name in ("both", "scores")]
    pd.testing.assert_frame_equal(*scores)


def test_the_border_is_what_circular_padding_and_shifts_take_away(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path
) -> None:
    options = Options(("drift",), shift=("zero",), drift_border=True, drift_images=20)
    collect(zoo, images, tmp_path / "out", options, progress=False)
    frame = _read(tmp_path / "out", "drift")
    assert frame["border"].notna().all()
    aps = frame[frame["checkpoint"] == "aps"]
    # With circular padding and circular shifts it has no drift at all.
    assert aps["border"].to_numpy() == pytest.approx(aps["drift_out"].to_numpy(), abs=1e-9)
    collect(zoo, images, tmp_path / "not", Options(("drift",), shift=("zero",)), progress=False)
    not_asked = _read(tmp_path / "not", "drift")
    assert not_asked["border"].isna().all()
    assert not_asked["reason"].str.contains("border: it was not asked for").all()


def test_padding_that_cannot_be_set_is_said() -> None:
    x = torch.randn(2, 3, 16, 16)
    made = circularly_padded(Net(), x)
    assert torch.allclose(made(x.roll((8, -8), (2, 3))), made(x), atol=1e-5)
    pooled = circularly_padded(nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1)), x)
    assert torch.allclose(pooled(x.roll((1, -3), (2, 3))), pooled(x).roll((1, -3), (2, 3)), atol=1e-5)
    for network in (
        nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 2, 3)),
        Call(lambda x: F.pad(x, (1, 1, 1, 1))),
        Call(lambda x: F.max_pool2d(x, 3, 1, 1)),
        Call(lambda x: F.conv2d(x, torch.ones(1, 3, 3, 3), padding=1)),
    ):
        with pytest.raises(ModelError, match="cannot be set"):
            circularly_padded(network, x)


@pytest.mark.parametrize("size", [(8, 8), (12, 20)])
def test_scores_of_attention_are_no_last_map_and_an_equation_may_move_the_channels(size: tuple[int, int]) -> None:
    x = torch.randn(3, 5, *size)
    weight = torch.randn(7, 5)
    with torch.inference_mode(), LastMap(x) as attended:
        values = F.conv2d(x, torch.randn(4, 5, 1, 1))
        heads = values.unflatten(1, (2, 2)).flatten(3).transpose(2, 3)
        scores = (heads @ heads.mT / 2).softmax(-1)
        (scores @ heads).mean((1, 2))
    assert scores.shape[2] == scores.shape[3]
    assert attended.map is not None
    assert attended.map.shape != scores.shape
    with torch.inference_mode(), LastMap(x) as moved:
        made = torch.einsum("nchw,oc->nhwo", x, weight)
        made.mean((1, 2))
    if size == (8, 8):  # 8, 8 and 7: nothing tells which are the pixels
        assert moved.is_unclear or torch.equal(moved.pooled(), made.movedim(3, 1))
    else:
        assert torch.equal(moved.pooled(), made.movedim(3, 1))
