"""``classes``: outputs that are not the data's classes have no say; mIoU is over the classes of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from invariscope import cli
from invariscope.base.errors import ModelError
from invariscope.collectors.measure.segmentation import measure_segmentation
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages
from invariscope.zoo.loading import build_model, load_checkpoint
from invariscope.zoo.manifest import read_manifest, write_manifest
from invariscope.zoo.outputs import choose_outputs

IMAGES, CLASSES = 60, 4
INPUT = {"size": 32, "mean": 0.5, "std": 0.25}
MANY = "zoo:smallcnn?classes=9"


def collect(folder: Path, data: str, *more: str, **entry: Any) -> tuple[int, pd.DataFrame]:
    (folder / "zoo.yaml").write_text(
        yaml.safe_dump({"checkpoints": [{"weights": "a.safetensors", "input": INPUT, **entry}]})
    )
    out = folder / "tables"
    command = ["collect", str(folder), "--data", data, "--limit", str(IMAGES), "--shift", "", "--out", str(out), *more]
    code = cli.main(command)
    table = out / ("segmentation" if "segmentation" in more else "invariance")
    return code, ds.dataset(table).to_table().to_pandas() if table.exists() else pd.DataFrame()


@pytest.mark.parametrize(
    ("classes", "outputs"),
    [({"offset": 1}, range(1, 9)), ({"offset": 2, "count": 4}, range(2, 6)), ([7, 0, 3, 5], [7, 0, 3, 5])],
)
def test_accuracy_is_that_of_the_chosen_outputs(classes: Any, outputs: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, data = build_model(MANY).eval(), load_dataset("shapes:32", limit=IMAGES)
    images = PreparedImages(data, InputSpec(32, (0.5,), (0.25,)))[:]
    with torch.no_grad():
        network.linear.bias -= network(images).mean(0)  # so that it says every class somewhere
        logits = network(images)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    code, rows = collect(tmp_path, "shapes:32", "--collect", "invariance", model=MANY, classes=classes)
    assert code == cli.DONE
    (checkpoint,) = read_manifest(tmp_path)
    hits = [max(outputs, key=lambda k: float(row[k])) == outputs[y] for row, y in zip(logits, data.labels, strict=True)]
    assert rows["value"].tolist() == [pytest.approx(np.mean(hits), abs=1e-12)]
    assert sum(hits) != sum(int(row.argmax()) == int(y) for row, y in zip(logits, data.labels, strict=True))
    write_manifest(tmp_path / "again.yaml", [checkpoint])
    assert read_manifest(tmp_path / "again.yaml")[0].classes == checkpoint.classes
    parts = [name for name, _ in load_checkpoint(checkpoint).named_modules()]
    assert parts == [name for name, _ in network.named_modules()]


def test_a_choice_that_a_network_lacks_is_one_line(tmp_path: Path, capsys: Any) -> None:
    save_file(build_model(MANY).state_dict(), tmp_path / "a.safetensors")
    code, _ = collect(tmp_path, "shapes:32", "--collect", "invariance", model=MANY, classes=[3, 4, 9, 1])
    assert code == cli.WITH_FAILURES
    said = capsys.readouterr().err.strip().splitlines()
    assert [line for line in said if "SmallCNN has 9 outputs and classes asks for 10: correct classes" in line]
    (checkpoint,) = read_manifest(tmp_path)
    network = load_checkpoint(checkpoint)
    network.forward = lambda x: x
    with pytest.raises(ModelError, match="choose inside of it"):
        choose_outputs(network, checkpoint.classes)


class Painter(nn.Module):
    """Logits per pixel of six outputs, of which the data have five: the last one is void."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def confusion_miou(said: np.ndarray, masks: np.ndarray, classes: int) -> float:
    """From the confusion matrix of the data's classes; what is said of another one is wrong."""
    matrix = np.zeros((classes, said.max() + 1), dtype=int)
    np.add.at(matrix, (masks.ravel(), said.ravel()), 1)
    union = [matrix[c].sum() + matrix[:, c].sum() - matrix[c, c] for c in range(classes)]
    return float(np.mean([matrix[c, c] / union[c] for c in range(classes)]))


def test_miou_is_over_the_classes_of_the_data() -> None:
    data, network = load_dataset("shapes:32", limit=40), Painter()
    images = PreparedImages(data, InputSpec(32, (0.5,), (0.25,)))
    rows = measure_segmentation(network, images, plans=[]).set_index("score")
    with torch.inference_mode():
        said = network(images[:]).argmax(1).numpy()
    assert (said == 5).any()
    masks = data.masks.numpy()
    assert rows.loc["miou", "value"] == pytest.approx(confusion_miou(said, masks, 5), abs=1e-12)
    assert rows.loc["miou", "n_classes"] == 5
    assert rows.loc["pixel_accuracy", "value"] == pytest.approx((said == masks).mean(), abs=1e-12)
