"""Looking at one network: panels, words, frame and command, and the windows of a site against loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import invariscope as iv
from invariscope.base.errors import InputError, ModelError, ShiftError
from invariscope.cli import BAD_INPUT, DONE, main
from invariscope.collectors.measure.picks import measure_picks
from invariscope.looking.found import Look


class Strided(nn.Module):
    """A patch embedding, a pooling of three pixels, a slice that drops nothing of the network's sites."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 5, 4, 4)
        self.pool = pool
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.patch(x).relu()).mean((2, 3)))


def test_windows_of_a_pooling_as_loops_have_them() -> None:
    model, image = Strided(nn.MaxPool2d(2)).eval(), torch.randn(1, 3, 32, 32)
    picks = measure_picks(model, image, "pool", channel=2)
    with torch.no_grad():
        map_ = model.patch(image).relu()[0, 2].numpy()
    assert len(picks.outputs) == 16
    for number, (row, column) in enumerate(picks.outputs):
        window = map_[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        if np.ptp(window) == 0:
            assert np.isnan(picks.weight[number])
            continue
        at = np.argwhere(window == window.max()) + np.array([2 * row, 2 * column])
        assert picks.maxima[number] == pytest.approx(at.mean(0))
        assert picks.sampled[number] == pytest.approx(at.mean(0))
        assert picks.weight[number] == pytest.approx(1)
    assert picks.flat == sum(np.ptp(map_[2 * r : 2 * r + 2, 2 * c : 2 * c + 2]) == 0 for r, c in picks.outputs)


def test_an_average_samples_the_middle_and_a_strided_convolution_a_corner() -> None:
    model, image = Strided(nn.AvgPool2d(2)).eval(), torch.randn(1, 3, 32, 32)
    picks = measure_picks(model, image, "pool", channel=1)
    known = np.isfinite(picks.weight)
    assert picks.sampled[known] == pytest.approx(2 * picks.outputs[known] + 0.5)
    with torch.no_grad():
        dense = nn.functional.conv2d(image, model.patch.weight, model.patch.bias)[0, 3].numpy()
    picks = measure_picks(model, image, "patch", channel=3)
    # The dense map ends one pixel into the last cells.
    inside = [n for n, (row, column) in enumerate(picks.outputs) if max(row, column) < 7]
    for number in inside:
        row, column = 4 * picks.outputs[number]
        assert picks.sampled[number] == pytest.approx([row, column])
        window = dense[row : row + 4, column : column + 4]
        assert picks.maxima[number] == pytest.approx(np.argwhere(window == window.max())[0] + [row, column])


def test_a_site_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InputError, match="pool"):
        measure_picks(Strided(nn.MaxPool2d(2)).eval(), torch.randn(1, 3, 32, 32), "pol")


def images_of(count: int) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def looked() -> Look:
    return iv.look(Strided(nn.MaxPool2d(2)), images_of(12), name="strided <b>", progress=False)


def test_a_look_has_the_numbers_of_the_functions_that_fill_the_tables(looked: Look) -> None:
    model, images = Strided(nn.MaxPool2d(2)).eval(), images_of(12)
    frame = looked.frame()
    msb = iv.measure_msb(model, images).set_index("site")
    for kind in ("circular", "zero"):
        plan = iv.ShiftPlan.sampled(12, 4, kind=kind)
        said = model(images).argmax(1)
        scores = iv.measure_invariance(model, images, said, plan).set_index("score")["value"]
        mine = looked.scores[looked.scores["shift_kind"] == kind].set_index("score")["value"]
        assert mine["consistency"] == pytest.approx(scores["consistency"])
        rows = frame[(frame["shift_kind"] == kind) & (frame["cause"] == "site")].set_index("site")
        for reading in ("msb_corrected", "selectivity", "see"):
            assert rows[reading].to_dict() == pytest.approx(msb[reading].to_dict(), rel=1e-5)
        if kind == "circular":
            drift = iv.measure_drift(model, images, plan).set_index("site")["blame"]
            assert rows["added"].to_dict() == pytest.approx(drift.loc[["patch", "pool"]].to_dict(), rel=1e-3)
    shown = looked.shown
    moved = iv.apply_shift(images[shown.row][None], np.array([[-3, 2]]), "circular")
    with torch.no_grad():
        found = model(moved).softmax(1)[0]
    assert shown.predictions[1, 6] == int(found.argmax())
    assert shown.probabilities[1, 6] == pytest.approx(float(found[shown.prediction]), rel=1e-4)
    assert not shown.flips[4, 4]


def panels(look: Look) -> set[str]:
    figure = look.figure()
    titles = [ax.get_title("left") for part in figure.subfigs for ax in part.axes]
    titles += [ax.get_title("left") for part in figure.subfigs for inner in part.subfigs for ax in inner.axes]
    return {title[:3] for title in titles if title.startswith("(")}


NAMED = """
timm:resnet18 timm:resnetblur50 timm:convnext_atto timm:tf_efficientnet_b0 timm:hrnet_w18_small timm:inception_v3
timm:mobilenetv3_small_050 timm:mobilevit_xxs timm:pvt_v2_b0 timm:regnety_002 timm:res2net50_14w_8s timm:nf_regnet_b0
timm:vgg11 timm:ghostnet_050 timm:starnet_s050 timm:densenetblur121d torchvision:squeezenet1_1
torchvision:shufflenet_v2_x0_5 torchvision:googlenet torchvision:swin_t
""".split()  # noqa: SIM905
"""Networks of different kinds, of those of ``make sweep``."""


@pytest.mark.full
@pytest.mark.parametrize("name", NAMED)
def test_named_networks_of_all_kinds_have_every_panel(name: str) -> None:
    torch.manual_seed(0)
    model = iv.build_model(name)
    images = torch.randn(2, 3, 16, 16).repeat_interleave(8, 2).repeat_interleave(8, 3)
    found = iv.look(model, images, name=name, progress=False)
    assert panels(found) == {"(a)", "(b)", "(c)", "(d)"}
    rows = found.frame().query("shift_kind == 'circular' and cause == 'site'")
    assert set(rows["site"]) == {site.name for site in iv.find_sites(model, images)}
    assert np.isfinite(rows["added"].astype(float)).any()


def test_the_figure_has_the_four_panels_and_the_page_is_escaped(looked: Look, tmp_path: Path) -> None:
    assert panels(looked) == {"(a)", "(b)", "(c)", "(d)"}
    html = looked._repr_html_()
    assert "strided <b>" not in html
    assert "strided &lt;b&gt;" in html
    assert "data:image/png;base64," in html
    assert any("no labels" in line for line in looked.lines())


def test_sites_that_are_not_explained_are_said_and_have_a_row() -> None:
    class Shuffled(Strided):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(nn.functional.pixel_unshuffle(self.patch(x).relu(), 2)[:, :5].mean((2, 3)))

    found = iv.look(Shuffled(nn.Identity()), torch.randn(4, 3, 32, 32), swaps=(), kinds=("circular",), progress=False)
    assert any("without MSB" in line and "space_to_depth" in line for line in found.lines())
    rows = found.frame()
    assert rows[rows["site_kind"] == "space_to_depth"]["reason"].notna().all()


def test_what_cannot_be_looked_at_is_refused() -> None:
    images = torch.randn(2, 3, 32, 32)
    with pytest.raises(ShiftError, match="larger images"):
        iv.look(Strided(nn.MaxPool2d(2)), images, kinds=("crop",), progress=False)
    with pytest.raises(InputError, match="image is 7"):
        iv.look(Strided(nn.MaxPool2d(2)), images, image=7, swaps=(), progress=False)
    with pytest.raises(ModelError):
        iv.look(nn.Conv2d(3, 4, 3), images, progress=False)


def test_the_command_writes_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], repository: Path) -> None:
    out = tmp_path / "look"
    zoo = str(repository / "data" / "zoo")
    arguments = ["look", zoo, "--only", "smallcnn-max-circular-s40000-e020", "--data", "digits", "--out", str(out)]
    assert main([*arguments, "--limit", "16", "--shift", "circular", "--swap", "avg"]) == DONE
    told = capsys.readouterr().out
    assert "3 downsampling sites, 16 images, accuracy" in told
    assert sorted(path.name for path in out.iterdir()) == ["look.csv", "look.html", "look.png", "look.txt"]
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "one.png")
    assert main(["look", "zoo:smallcnn", str(tmp_path / "one.png"), "--out", str(out), "--swap", "avg"]) == DONE
    assert "give two or more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["zoo:resnet8"], "name image files, or a data set with --data"),
        (["zoo:resnet8", "gone.png"], "there is no image gone.png"),
        (["zoo:resnet8", "--data", "digits", "--swap", "blurr(3)"], "blurr"),
        (["{zoo}", "--data", "digits"], "checkpoints fit, name one"),
        (["{zoo}", "--data", "digits", "--weights", "w.pt"], "--weights belongs to a model string"),
        (["zoo:resnet8", "--data", "digits", "--only", "a"], "--only chooses a checkpoint of a zoo"),
        (["python:net.py:build", "--data", "digits"], "net.py"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], repository: Path
) -> None:
    given = [text.replace("{zoo}", str(repository / "data" / "zoo")) for text in arguments]
    assert main(["look", *given, "--out", str(tmp_path / "out")]) == BAD_INPUT
    (told,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line in told
    assert not (tmp_path / "out").exists()
