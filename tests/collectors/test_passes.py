"""How often a network runs, what its passes share, and what the settings of the passes do to tasks and values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from invariscope import cli
from invariscope.base.errors import InputError
from invariscope.collectors.engine.run import collect
from invariscope.collectors.engine.subject import SHARED_IMAGES, Subject
from invariscope.collectors.measure.batches import shared_batch
from invariscope.collectors.measure.invariance import measure_invariance, predict
from invariscope.collectors.measure.msb import measure_msb
from invariscope.collectors.measure.passes import Unshifted, predict_unshifted
from invariscope.collectors.measure.shifts import ShiftPlan
from invariscope.collectors.options import Options
from invariscope.collectors.schema import COLLECTORS
from invariscope.zoo.architectures.smallcnn import SmallCNN
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet, load_dataset
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages
from invariscope.zoo.loading import build_model, load_checkpoint

MODEL = "zoo:smallcnn?operator=max&width=4&in_channels=1"
KINDS = ("circular", "zero")
N, K = 300, 3


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_dataset("digits", limit=N)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("zoo")
    torch.manual_seed(0)
    model = build_model(MODEL)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.rand(64, 1, 32, 32))
    save_file(model.state_dict(), folder / "max.safetensors")
    spec = InputSpec(32, (0.5,), (0.25,))
    return Checkpoint("max", MODEL, folder / "max.safetensors", spec, factors={}, folder=folder)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, bool]]]:
    """Images of every pass of a SmallCNN, and whether its batch norms were folded."""
    seen: list[tuple[int, bool]] = []
    forward = SmallCNN.forward

    def counted(self: nn.Module, x: Tensor) -> Tensor:
        seen.append((len(x), not any(isinstance(module, nn.BatchNorm2d) for module in self.modules())))
        return forward(self, x)

    monkeypatch.setattr(SmallCNN, "forward", counted)
    return seen


def read(out: Path, table: str) -> pd.DataFrame:
    frame = ds.dataset(out / table, format="parquet").to_table().to_pandas()
    keys = [name for name in ("shift_kind", "depth", "score", "image") if name in frame.columns]
    return frame.sort_values(keys).reset_index(drop=True)


OPTIONS = Options(shift=KINDS, n_shifts=K, msb_images=256, surface_images=64, surface_step=4)
CHECK = [(1, False), (32, False), (32, True), (2, False), *[(32, False)] * 2, *[(8, False)] * 4]
"""What finding and checking the folded network costs, the description's two images of noise, and the check that the
network is a function of the image: 32 images twice, and in batches of 8."""


def test_every_image_runs_once_unshifted_and_once_per_shift(
    checkpoint: Checkpoint, images: ImageSet, tmp_path: Path, passes: list[tuple[int, bool]]
) -> None:
    options = replace(OPTIONS, collect=("layers", "invariance", "predictions"))
    assert collect([checkpoint], images, tmp_path, options, progress=False).failures == []
    for one in CHECK:
        passes.remove(one)
    # MSB and the first unshifted predictions are one pass, over the network as it is; all else is folded.
    assert [n for n, folded in passes if not folded] == [64] * 4
    assert sum(n for n, folded in passes if folded) == (N - 256) + len(KINDS) * K * N


def test_the_surface_shares_the_unshifted_pass(
    checkpoint: Checkpoint, images: ImageSet, tmp_path: Path, passes: list[tuple[int, bool]]
) -> None:
    options = replace(OPTIONS, collect=("invariance", "surface"), shift=("circular",))
    assert collect([checkpoint], images, tmp_path, options, progress=False).failures == []
    for one in CHECK:
        passes.remove(one)
    assert sum(n for n, _ in passes) == N + K * N + 9 * 64


def test_a_crop_has_an_unshifted_view_of_its_own(
    checkpoint: Checkpoint, images: ImageSet, tmp_path: Path, passes: list[tuple[int, bool]]
) -> None:
    options = replace(OPTIONS, collect=("invariance",), shift=("crop",))
    assert collect([checkpoint], images, tmp_path, options, progress=False).failures == []
    for one in CHECK:
        passes.remove(one)
    assert sum(n for n, _ in passes) == N + (1 + K) * N


@pytest.mark.parametrize("collected", [("invariance",), ("invariance", "layers")])
@pytest.mark.parametrize("msb_images", [100, 256, 300])
def test_values_do_not_depend_on_what_else_is_measured(
    checkpoint: Checkpoint, images: ImageSet, tmp_path: Path, collected: tuple[str, ...], msb_images: int
) -> None:
    """To the last bit: a run that was stopped after MSB goes on to the tables of one that was not."""
    options = replace(OPTIONS, msb_images=msb_images)
    collect([checkpoint], images, tmp_path / "parts", replace(options, collect=("layers",)), progress=False)
    collect([checkpoint], images, tmp_path / "parts", replace(options, collect=("invariance",)), progress=False)
    collect([checkpoint], images, tmp_path / "whole", replace(options, collect=collected), progress=False)
    pd.testing.assert_frame_equal(
        read(tmp_path / "parts", "invariance"), read(tmp_path / "whole", "invariance"), check_exact=True
    )


def test_larger_images_share_their_passes_too(
    checkpoint: Checkpoint, images: ImageSet, tmp_path: Path, passes: list[tuple[int, bool]]
) -> None:
    """In batches of 32, the last of which is cut short, for MSB at another image than for the scores."""
    larger = replace(checkpoint, input=InputSpec(128, (0.5,), (0.25,)))
    options = replace(OPTIONS, msb_images=40, shift=("circular",), n_shifts=1)
    for names in (("layers",), ("invariance",), ("layers", "invariance")):
        passes.clear()
        out = tmp_path / ("parts" if len(names) == 1 else "whole")
        found = collect([larger], images.head(70), out, replace(options, collect=names), progress=False)
        assert found.failures == []
    plain = [n for n, folded in passes if not folded]
    # Two images of noise, the check that the network is a function of the image, and that of the folded one.
    for check in (2, 32, 8, 8, 8, 8, 1, 8):
        plain.remove(check)
    # MSB takes 40 images; the first batch of those is the scores' as well.
    assert sorted(plain) == [6, 8, 32, 32]
    for table in ("layers", "invariance"):
        parts, whole = (read(tmp_path / name, table) for name in ("parts", "whole"))
        pd.testing.assert_frame_equal(parts, whole, check_exact=True)


def test_unshifted_predictions_are_those_of_the_network(checkpoint: Checkpoint, images: ImageSet) -> None:
    model = load_checkpoint(checkpoint)
    subject = Subject(checkpoint, model, images)
    found = subject.unshifted({"precision": "fp32", "fold": True})
    with torch.inference_mode():
        probability, prediction = model(subject.prepared()[:]).double().softmax(1).max(1)
    np.testing.assert_array_equal(found.prediction, prediction)
    np.testing.assert_allclose(found.probability, probability, atol=1e-6)


def test_folded_and_unfolded_scores_agree(checkpoint: Checkpoint, images: ImageSet) -> None:
    model = load_checkpoint(checkpoint)
    prepared = PreparedImages(images, checkpoint.input)
    for kind in KINDS:
        plan = ShiftPlan.sampled(N, 4, n_shifts=K, kind=kind)
        folded, plain = (predict(model, prepared, images.labels, plan, fold=fold) for fold in (True, False))
        np.testing.assert_array_equal(folded.prediction, plain.prediction)
        for name in ("clean_probability", "probability", "drift_probability"):
            np.testing.assert_allclose(getattr(folded, name), getattr(plain, name), atol=1e-6)


def test_known_unshifted_predictions_save_a_pass(
    checkpoint: Checkpoint, images: ImageSet, passes: list[tuple[int, bool]]
) -> None:
    model = load_checkpoint(checkpoint)
    prepared = PreparedImages(images, checkpoint.input)
    unshifted = predict_unshifted(model, prepared, images.labels)
    plan = ShiftPlan.sampled(N, 4, n_shifts=K)
    passes.clear()
    found = predict(model, prepared, images.labels, plan, fold=False, unshifted=unshifted)
    assert sum(n for n, _ in passes) == K * N
    expected = predict(model, prepared, images.labels, plan, fold=False)
    np.testing.assert_array_equal(found.drift_probability, expected.drift_probability)
    other = Unshifted((unshifted.prediction + 1) % 10, unshifted.probability)
    changed = predict(model, prepared, images.labels, plan, fold=False, unshifted=other)
    assert (changed.drift_probability != expected.drift_probability).mean() > 0.9


def test_outputs_of_the_msb_pass_are_the_networks(checkpoint: Checkpoint, images: ImageSet) -> None:
    model = load_checkpoint(checkpoint)
    prepared = PreparedImages(images, checkpoint.input)
    outputs: dict[int, Tensor] = {}
    measure_msb(model, prepared, batch_size=128, on_output=outputs.__setitem__)
    assert list(outputs) == [0, 128, 256]
    with torch.inference_mode():
        for start, output in outputs.items():
            assert torch.equal(output, model(prepared[start : start + 128]))


def test_precision_and_folding_are_part_of_the_task(checkpoint: Checkpoint, images: ImageSet, tmp_path: Path) -> None:
    options = replace(OPTIONS, shift=("circular",))
    collect([checkpoint], images, tmp_path, options, progress=False)

    def measured(**changes: object) -> int:
        return collect([checkpoint], images, tmp_path, replace(options, **changes), progress=False).measured

    assert measured(device="cpu", batch_size=5) == 0
    # Accuracy and the scores under shifts; MSB stays on the network as it is.
    assert measured(precision="bf16") == 2
    assert measured(fold=False) == 2


def test_bfloat16_moves_scores_a_little(checkpoint: Checkpoint, images: ImageSet, tmp_path: Path) -> None:
    options = replace(OPTIONS, collect=("invariance", "predictions"), shift=("circular",))
    for precision in ("fp32", "bf16"):
        collect([checkpoint], images, tmp_path / precision, replace(options, precision=precision), progress=False)
    full, half = (read(tmp_path / precision, "predictions") for precision in ("fp32", "bf16"))
    change = np.abs(np.stack(full["probability"]) - np.stack(half["probability"]))
    assert 1e-4 < change.max() < 0.05
    scores = [read(tmp_path / precision, "invariance").set_index("score")["value"] for precision in ("fp32", "bf16")]
    assert (scores[0] - scores[1]).abs().max() < 0.05


def test_a_collectors_order_does_not_matter() -> None:
    assert Options(collect=("surface", "invariance", "layers")).collect == ("layers", "invariance", "surface")
    assert list(COLLECTORS).index("layers") < list(COLLECTORS).index("invariance")


@pytest.mark.parametrize(
    ("size", "expected", "shared"), [(32, 64, 64), (64, 64, 64), (128, 32, 32), (224, 10, 8), (512, 8, 8)]
)
def test_batches_hold_so_many_pixels(
    checkpoint: Checkpoint, images: ImageSet, size: int, expected: int, shared: int
) -> None:
    subject = Subject(replace(checkpoint, input=InputSpec(size, (0.5,), (0.25,))), nn.Identity(), images)
    assert (subject.images_per_pass, subject.msb_batch) == (expected, shared)
    assert replace(subject, batch_size=3).images_per_pass == 3


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_in_one_line(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    command = ["collect", str(repository / "data" / "zoo"), "--data", "digits", "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--device", device]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"device {device} is not there" in error
    assert error.rstrip().endswith("take cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cpus"}, "unknown device 'cpus': did you mean 'cpu'"),
        ({"precision": "fp16"}, "unknown precision 'fp16': did you mean 'fp32'|'bf16'"),
        ({"batch_size": 0}, "batch_size is 0: take at least 1"),
    ],
)
def test_settings_that_cannot_be_had_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options(**options)


def test_measuring_in_a_notebook_takes_the_options_too(checkpoint: Checkpoint, images: ImageSet) -> None:
    model = load_checkpoint(checkpoint)
    prepared = PreparedImages(images.head(40), checkpoint.input)
    plan = ShiftPlan.sampled(40, 2, n_shifts=2)
    table = measure_invariance(model, prepared, prepared.labels, plan, precision="bf16", fold=False)
    assert set(table["score"]) >= {"accuracy", "consistency"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_shared_batches_fill_the_shared_images_at_every_size() -> None:
    """Or the last of them would be cut short, and run again for the scores."""
    for size in range(8, 1025, 8):
        assert SHARED_IMAGES % shared_batch(size * size) == 0


@pytest.mark.parametrize(("classes", "value", "error"), [(5, 0.0, "DataError"), (10, float("nan"), "ModelError")])
def test_what_is_no_prediction_is_refused_with_msb_as_without(
    images: ImageSet, tmp_path: Path, classes: int, value: float, error: str
) -> None:
    torch.manual_seed(0)
    name = f"{MODEL}&classes={classes}"
    model = build_model(name)
    with torch.no_grad():
        list(model.parameters())[-1][0] = value
    save_file(model.state_dict(), tmp_path / "odd.safetensors")
    odd = Checkpoint(
        "odd", name, tmp_path / "odd.safetensors", InputSpec(32, (0.5,), (0.25,)), factors={}, folder=tmp_path
    )
    for collected in (("invariance",), ("layers", "invariance")):
        options = Options(collect=collected, shift=("zero",), n_shifts=K, msb_images=64)
        outcome = collect([odd], images.head(64), tmp_path / "-".join(collected), options, progress=False)
        assert {(failure.stage, failure.error) for failure in outcome.failures} == {("invariance", error)}
        assert not list((tmp_path / "-".join(collected) / "invariance").glob("*.parquet"))
