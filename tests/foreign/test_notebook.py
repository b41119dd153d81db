"""Images as a notebook has them: every function of the facade that takes images takes them in every form."""

from __future__ import annotations

import inspect
import io
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import invariscope as iv
from invariscope.base import progress as progress_module
from invariscope.base.errors import DataError
from invariscope.base.progress import bar, quiet
from invariscope.collectors import Attack
from invariscope.zoo.datasets import ImageSet, load_dataset
from invariscope.zoo.datasets.given import Given, given
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages
from invariscope.zoo.model_input import input_of

N = 8
SPEC = InputSpec(32, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
DATA = load_dataset("shapes:32", limit=N)
PIXELS = DATA.pixels()
ARRAY = PIXELS.permute(0, 2, 3, 1).numpy()
PREPARED = PreparedImages(DATA, SPEC)


def pictures() -> list[Image.Image]:
    return [Image.fromarray(image) for image in ARRAY]


FORMS: dict[str, Callable[[], Given]] = {
    "PIL images": pictures,
    "arrays": lambda: list(ARRAY),
    "one array": lambda: ARRAY,
    "planes": lambda: PIXELS.numpy(),
    "tensor of uint8": lambda: PIXELS,
    "tensor of whole numbers": lambda: PIXELS.long(),
    "data set": lambda: DATA,
    "prepared": lambda: PREPARED,
    "floats as it takes them": lambda: PREPARED[:],
    "float array": lambda: PREPARED[:].permute(0, 2, 3, 1).numpy(),
    "loader": lambda: DataLoader(TensorDataset(PIXELS, DATA.labels), batch_size=3),
    "loader of mappings": lambda: DataLoader(
        [{"pixel_values": x, "labels": y} for x, y in zip(PREPARED[:], DATA.labels, strict=True)]
    ),
    "loader of images": lambda: DataLoader(pictures(), batch_size=3, collate_fn=list),
    "items": lambda: TensorDataset(PIXELS, DATA.labels),
}


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return iv.set_input(iv.build_model("zoo:smallcnn?classes=5").eval(), SPEC)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_images(form: str, network: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    images, labels = given(network, FORMS[form]())
    assert torch.allclose(images[:], PREPARED[:], atol=1e-6)
    said = [record.message for record in caplog.records]
    assert len(said) == (
        0 if form in ("prepared", "floats as it takes them", "float array", "loader of mappings") else 1
    )
    assert all("are prepared as it takes them: {'size': 32" in line for line in said)
    has_labels = form in ("data set", "loader", "loader of mappings", "items")
    assert (labels is not None) == has_labels
    if has_labels:
        assert torch.equal(labels, DATA.labels)


PLAN = iv.ShiftPlan.sampled(N, 2)
CALLS: dict[str, Callable[[nn.Module, Given], Any]] = {
    "apply_shift": lambda model, images: iv.apply_shift(images, np.ones((N, 2), dtype=int), "circular").float(),
    "corrupt": lambda model, images: iv.corrupt(images, "fog", 1),
    "explain_invariance": lambda model, images: iv.explain_invariance(model, images).frame(),
    "find_sites": iv.find_sites,
    "look": lambda model, images: iv.look(model, images, kinds=["circular"], swaps=[]).frame(),
    "measure_attack": lambda model, images: iv.measure_attack(
        model, images, DATA.labels, Attack("pgd", "linf", 0.01, steps=1)
    ),
    "measure_cost": lambda model, images: iv.measure_cost(model, images, repeats=1).iloc[:2],
    "measure_drift": lambda model, images: iv.measure_drift(model, images, PLAN),
    "measure_invariance": lambda model, images: iv.measure_invariance(model, images),
    "measure_msb": iv.measure_msb,
    "measure_surface": lambda model, images: iv.measure_surface(model, images, None, 1),
    "measure_swaps": lambda model, images: iv.measure_swaps(model, images, DATA.labels, [PLAN], ["avg"]),
    "replace_downsampling": lambda model, images: iv.replace_downsampling(model, "avg", images)[1],
}


def facade_of_images() -> set[str]:
    """The functions of the facade with a parameter that takes images, by its name or by its annotation."""
    found = set()
    for name in dir(iv):
        function = getattr(iv, name)
        if inspect.isfunction(function):
            for parameter in inspect.signature(function).parameters.values():
                if parameter.name in ("pixels", "example") or "Given" in str(parameter.annotation):
                    found.add(name)
                if parameter.name == "images" and name != "collect":
                    found.add(name)
    return found


def test_every_function_of_the_facade_is_asked() -> None:
    assert facade_of_images() == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_functions_give_of_pictures_what_they_give_of_prepared_images(name: str, network: nn.Module) -> None:
    """Of those that work on pixels, what they give of the pixels."""
    if name == "measure_attack":
        iv.set_input(network, InputSpec(32, (0.0,), (1.0,)))
    wanted = {"apply_shift": PIXELS, "corrupt": PIXELS.numpy(), "measure_attack": PIXELS.float() / 255}.get(
        name, PREPARED
    )
    expected, found = (CALLS[name](network, images) for images in (wanted, pictures()))
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected, check_exact=False, atol=1e-6)
    elif isinstance(expected, list):
        assert found == expected
    else:
        assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_images_of_several_sizes_are_brought_to_what_the_network_takes(network: nn.Module) -> None:
    shown = [Image.fromarray(ARRAY[0]).resize(size) for size in ((40, 50), (64, 36), (32, 32))]
    images, _ = given(iv.set_input(network, InputSpec(32, (0.5,), (0.25,), 36, "bicubic")), shown)
    one = Image.fromarray(ARRAY[0]).resize((40, 50)).resize((36, 45), Image.Resampling.BICUBIC).crop((2, 6, 34, 38))
    assert torch.allclose(images[:1], (torch.from_numpy(np.array(one)).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25)
    plain, _ = given(iv.set_input(network, InputSpec((24, 40), (0.5,), (0.25,))), shown)
    assert plain[:].shape == (3, 3, 24, 40)
    with pytest.raises(DataError, match=r"of several sizes .*: resize them to one, or say what the network takes"):
        given(nn.Identity(), shown)


def test_what_is_not_known_is_said_and_what_cannot_be_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    plain = iv.build_model("zoo:smallcnn?classes=5").eval()
    for _ in range(2):
        images, _ = given(plain, ARRAY)
    assert torch.equal(images[:], PIXELS.float() / 255)
    (line,) = (record.message for record in caplog.records)
    assert "are divided by 255, and not normalised: it does not say how it takes them; say it with iv.set_input" in line
    grey, _ = given(plain, Image.fromarray(ARRAY[0]).convert("L"))
    assert grey[:].shape == (1, 1, 32, 32)
    mixed, _ = given(plain, [Image.fromarray(ARRAY[0]).convert("L"), Image.fromarray(ARRAY[1])])
    assert mixed[:].shape == (2, 3, 32, 32)


REFUSED: dict[str, tuple[Any, str]] = {
    "floats of 0 to 255": (PIXELS.float(), "pixels and not normalised: give them as uint8"),
    "array of floats of 0 to 255": (ARRAY.astype(np.float32), "pixels and not normalised: give them as uint8"),
    "a path": ("cat.png", "images are a str: give tensors"),
    "nothing": ([], "there are no images"),
    "numbers": ([1, 2], "image 0 is a int: give PIL images"),
    "beyond": (np.full((1, 4, 4, 3), 256), "give uint8 of 0 to 255"),
    "a vector": (np.zeros(3, dtype=np.uint8), "have the shape"),
    "channels": ([ARRAY[0], np.zeros((32, 32, 4), dtype=np.uint8)], "several numbers of channels"),
    "empty loader": (DataLoader([]), "the loader gives no images"),
    "loader of several sizes": (DataLoader([ARRAY[0], ARRAY[0][:20]], collate_fn=list), "of several sizes"),
    "loader of other things": (DataLoader([{"a": 1, "b": 2}]), "the loader gives a, b: give pairs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line(case: str, network: nn.Module) -> None:
    images, message = REFUSED[case]
    with pytest.raises(DataError, match=message) as caught:
        given(network, images)
    assert "\n" not in str(caught.value)


def test_a_loader_has_its_own_labels_and_a_bound(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = FORMS["loader"]()
    found = iv.measure_invariance(network, loader, plan=PLAN).set_index("score")["value"]
    with torch.inference_mode():
        hits = network(PREPARED[:]).argmax(1) == DATA.labels
    assert found["accuracy"] == pytest.approx(hits.float().mean().item())
    assert "accuracy" not in set(iv.measure_invariance(network, pictures(), plan=PLAN)["score"])
    with pytest.raises(DataError, match="the loader gives labels, and others are given"):
        iv.measure_invariance(network, loader, DATA.labels, PLAN)
    with pytest.raises(DataError, match="labels are a ShiftPlan"):
        iv.measure_invariance(network, pictures(), PLAN)
    monkeypatch.setattr("invariscope.zoo.datasets.given.MOST", 3 * 3 * 32 * 32)
    with pytest.raises(DataError, match=r"gives more than .* torch\.utils\.data\.Subset"):
        given(network, loader)


def test_networks_know_their_input(tmp_path: Any, timm: Any) -> None:
    assert input_of(iv.build_model("timm:test_resnet")).resize is not None
    assert input_of(timm.create_model("test_resnet")).height == 160
    assert input_of(nn.Identity()) is None


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_comes_after_two_seconds_and_goes_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "SECONDS", 0.02)

    def drawn(screen: io.StringIO, pause: float, wanted: bool = True) -> str:
        monkeypatch.setattr("sys.stderr", screen)
        with bar("outer", 3, wanted) as step:
            for _ in range(3):
                time.sleep(pause)
                with bar("inner", 1) as inner:
                    inner()
                step()
        return screen.getvalue()

    slow = drawn(Screen(), 0.12)
    assert "outer" in slow
    assert "inner" not in slow, "one bar, the outermost"
    assert drawn(Screen(), 0.12, wanted=False) == ""
    assert drawn(io.StringIO(), 0.12) == "", "nobody sees it"
    with quiet():
        assert drawn(Screen(), 0.12) == ""
    monkeypatch.setattr(progress_module, "SECONDS", 60.0)
    assert "outer" not in drawn(Screen(), 0.0)


@pytest.mark.parametrize("name", ["measure_msb", "measure_invariance", "measure_drift", "measure_swaps", "look"])
def test_measurements_show_their_bar(name: str, network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inspect.signature(getattr(iv, name)).parameters["progress"].default is True
    monkeypatch.setattr(progress_module, "SECONDS", 0.0)
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    CALLS[name](network, PREPARED)
    shown = {word for word in ("MSB", "invariance", "drift", "swaps", "look") if f"{word}:" in screen.getvalue()}
    assert shown == {name.removeprefix("measure_").replace("msb", "MSB")}


def test_nothing_is_said_of_what_needs_no_word(caplog: pytest.LogCaptureFixture, network: nn.Module) -> None:
    with caplog.at_level(logging.INFO):
        for images in (PREPARED, PREPARED[:], ImageSet("raw", PIXELS, None)):
            given(network if not isinstance(images, ImageSet) else None, images)
    assert len(caplog.records) == 1
    assert isinstance(given(None, torch.zeros(0, 3, 4, 4))[0], Tensor)
