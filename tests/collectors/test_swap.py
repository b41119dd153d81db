"""Swaps: values against networks swapped by hand, errors against a brute-force jackknife, nothing left behind."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from invariscope.base.errors import DataError, ModelError, OperatorError, ShiftError
from invariscope.collectors import ShiftPlan, measure_invariance, measure_msb, measure_swaps
from invariscope.collectors.measure.invariance import predict
from invariscope.collectors.measure.paired import Statistic, average, mean_statistic, paired_change
from invariscope.collectors.measure.swap import SWAP_SCORES
from invariscope.collectors.schema import IDENTITY, MSB_READINGS, PROVENANCE, TABLES
from invariscope.zoo.architectures.resnet import SmallResNet
from invariscope.zoo.architectures.smallcnn import SmallCNN
from invariscope.zoo.operators import build_operator

N, CLASSES = 12, 4
PLAN = ShiftPlan.sampled(N, 3, n_shifts=5, kind="zero")


def small(operator: str = "max", seed: int = 0, **options: Any) -> SmallCNN:
    torch.manual_seed(seed)
    model = SmallCNN(operator, in_channels=1, classes=CLASSES, width=4, **options)
    return centred(model, model.linear)


def centred(model: nn.Module, head: nn.Linear) -> Any:
    """The network with logits of mean 0 over noise: an untrained one would say the same class of every image."""
    noise = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(3))
        head.bias -= model.eval()(noise).mean(0)
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(N, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return torch.arange(N) % CLASSES


def pick(frame: pd.DataFrame, depth: int | None, replacement: str, measure: str, scope: str = "network") -> pd.Series:
    at = frame["depth"].isna() if depth is None else frame["depth"] == depth
    rows = frame[at & (frame["replacement"] == replacement) & (frame["measure"] == measure) & (frame["scope"] == scope)]
    assert len(rows) == 1
    return rows.iloc[0]


def by_hand(operators: tuple[str, str, str]) -> SmallCNN:
    """The network ``small()`` with an operator of its own at each of its sites."""
    model = small()
    for stage, operator in zip((model.stage1, model.stage2, model.stage3), operators, strict=True):
        stage.down = build_operator(operator, stage.down.channels)
    return model


def test_values_are_those_of_networks_swapped_by_hand(images: Tensor, labels: Tensor) -> None:
    frame = measure_swaps(small(), images, labels, [PLAN], ["soft(beta=1)", "max", "subsample"])
    assert set(frame["replacement"]) == {"soft(beta=1)", "subsample"}  # max is there already
    assert set(frame["depth"].dropna()) == {0, 1, 2}
    original = {"msb": measure_msb(small(), images), "scores": measure_invariance(small(), images, labels, PLAN)}
    for depth, replacement in ((0, "soft(beta=1)"), (1, "subsample"), (2, "soft(beta=1)"), (None, "subsample")):
        operators = ["max", "max", "max"] if depth is not None else [replacement] * 3
        if depth is not None:
            operators[depth] = replacement
        swapped = by_hand(tuple(operators))
        msb, scores = measure_msb(swapped, images), measure_invariance(swapped, images, labels, PLAN)
        for reading in MSB_READINGS:
            if depth is not None:
                row = pick(frame, depth, replacement, reading, "site")
                assert row["before"] == pytest.approx(original["msb"][reading][depth], abs=1e-12)
                assert row["after"] == pytest.approx(msb[reading][depth], abs=1e-12)
            row = pick(frame, depth, replacement, reading)
            assert row["before"] == pytest.approx(original["msb"][reading].mean(), abs=1e-12)
            assert row["after"] == pytest.approx(msb[reading].mean(), abs=1e-12)
        for score in ("accuracy", *SWAP_SCORES):
            row = pick(frame, depth, replacement, score)
            old, new = (table.set_index("score")["value"][score] for table in (original["scores"], scores))
            assert row["before"] == pytest.approx(old, abs=1e-12, nan_ok=True)
            assert row["after"] == pytest.approx(new, abs=1e-12, nan_ok=True)
            assert row["change"] == pytest.approx(new - old, abs=1e-12, nan_ok=True)
    assert frame["change"].abs().max() > 0.1
    scored = frame[frame["measure"].isin(SWAP_SCORES)]
    assert set(scored["plan_hash"]) == {PLAN.hash}
    assert set(scored["shift_kind"]) == {"zero"}
    assert set(frame.loc[~frame["measure"].isin(SWAP_SCORES), "shift_kind"]) == {"none"}


def test_errors_are_the_brute_force_jackknife_of_the_change(images: Tensor) -> None:
    old, new = small(), by_hand(("max", "soft(beta=0.5)", "max"))
    labels = old(images).argmax(1)
    frame = measure_swaps(old, images, labels, [PLAN], ["soft(beta=0.5)"])
    predictions = [predict(model, images, labels, PLAN) for model in (old, new)]

    def measured(keep: list[int]) -> dict[str, float]:
        plan = ShiftPlan(PLAN.kind, PLAN.mode, PLAN.max_shift, PLAN.fill, PLAN.seed, PLAN.offsets[keep])
        values: dict[str, float] = {}
        both = []
        for model in (old, new):
            scores = measure_invariance(model, images[keep], labels[keep], plan).set_index("score")["value"]
            msb = measure_msb(model, images[keep])
            both.append((scores, msb))
        for score in ("accuracy", *SWAP_SCORES):
            values[score] = both[1][0][score] - both[0][0][score]
        for reading in MSB_READINGS:
            values[f"{reading} site"] = both[1][1][reading][1] - both[0][1][reading][1]
            values[f"{reading} network"] = both[1][1][reading].mean() - both[0][1][reading].mean()
        return values

    left_out = pd.DataFrame([measured([i for i in range(N) if i != out]) for out in range(N)])
    error = np.sqrt((N - 1) / N * ((left_out - left_out.mean()) ** 2).sum())
    assert (error[["accuracy", *SWAP_SCORES, "msb_corrected site"]] > 0.001).all()
    for name, wanted in error.items():
        measure, _, scope = str(name).partition(" ")
        row = pick(frame, 1, "soft(beta=0.5)", measure, scope or "network")
        assert row["se"] == pytest.approx(wanted, abs=1e-10), name
    # Of a mean over images it is the standard error of the images' own differences.
    agreement = [
        [np.mean([p[i] == p[j] for i in range(5) for j in range(i)]) for p in q.prediction] for q in predictions
    ]
    difference = np.array(agreement[1]) - np.array(agreement[0])
    found = pick(frame, 1, "soft(beta=0.5)", "consistency")["se"]
    assert found == pytest.approx(difference.std(ddof=1) / np.sqrt(N), abs=1e-12)


@pytest.mark.parametrize(
    ("operator", "replacement"),
    [("soft(beta=0)", "avg"), ("soft(beta=inf)", "max"), ("blur(m=1)", "subsample"), ("lp(p=inf)", "max")],
)
def test_a_swap_for_the_same_function_changes_nothing(
    images: Tensor, labels: Tensor, operator: str, replacement: str
) -> None:
    frame = measure_swaps(small(operator), images, labels, [PLAN], [replacement])
    assert len(frame) == 4 * (1 + len(SWAP_SCORES)) + 3 * 2 * len(MSB_READINGS) + len(MSB_READINGS)
    assert (frame["before"] == frame["after"]).all()
    assert (frame["change"] == 0).all()
    assert (frame["se"] == 0).all()
    # No image of 12 changed, so that by the rule of three at most 3/12 of all images do.
    scores = frame[frame["measure"] == "consistency"]
    assert scores["high"].tolist() == pytest.approx([0.25] * 4)
    assert scores["low"].tolist() == pytest.approx([-0.25] * 4)


def test_a_max_pooling_is_replaced_whole_and_a_strided_convolution_behind_itself(
    images: Tensor, labels: Tensor
) -> None:
    conv, head = nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.Linear(4 * 16, CLASSES)
    strided = nn.Conv2d(4, 4, 3, stride=2, padding=1, padding_mode="circular")
    model = nn.Sequential(conv, nn.MaxPool2d(2), strided, nn.ReLU(), nn.Flatten(), head)
    frame = measure_swaps(model, images, labels, [PLAN], ["blur(3)", "subsample"])
    blur = build_operator("blur(3)", 4, padding_mode="circular")
    dense = copy.deepcopy(strided)
    dense.stride = (1, 1)
    pooled = nn.Sequential(conv, blur, strided, nn.ReLU(), nn.Flatten(), head)
    behind = nn.Sequential(conv, nn.MaxPool2d(2), dense, blur, nn.ReLU(), nn.Flatten(), head)
    for depth, network in ((0, pooled), (1, behind)):
        row = pick(frame, depth, "blur(m=3)", "msb_corrected", "site")
        assert row["after"] == pytest.approx(measure_msb(network, images)["msb_corrected"][depth], abs=1e-12)
        wanted = measure_invariance(network, images, labels, PLAN).set_index("score")["value"]
        assert pick(frame, depth, "blur(m=3)", "fidelity")["after"] == wanted["fidelity"]
    # A strided convolution subsamples: it is no swap there.
    assert set(frame.loc[frame["replacement"] == "subsample", "depth"].dropna()) == {0}


def test_residual_blocks_swap_one_branch_at_a_time(images: Tensor, labels: Tensor) -> None:
    torch.manual_seed(0)
    model = SmallResNet(8, "aps", in_channels=1, classes=CLASSES, width=4).eval()
    frame = measure_swaps(model, images, labels, [], ["max"])
    site = frame[(frame["measure"] == "msb_corrected") & (frame["scope"] == "site")]
    names = ["layer2.0.down", "layer2.0.shortcut_down", "layer3.0.down", "layer3.0.shortcut_down"]
    assert site["site"].tolist() == names
    assert (site["after"] == 1).all()
    assert (frame["n_sites"] == 4).all()
    every = pick(frame, None, "max", "msb_corrected")
    assert every["after"] == 1


def test_the_network_is_left_as_it_was(images: Tensor, labels: Tensor) -> None:
    model = small().train()
    model.stage2.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = dict(model.named_modules())
    modes = [module.training for module in model.modules()]
    state = torch.random.get_rng_state()
    measure_swaps(model, images, labels, [PLAN], ["avg", "blur(3)"])
    assert dict(model.named_modules()) == modules
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert torch.equal(torch.random.get_rng_state(), state)


def test_values_do_not_depend_on_batches(images: Tensor, labels: Tensor) -> None:
    whole = measure_swaps(small(), images, labels, [PLAN], ["avg", "soft(beta=2)"])
    parts = measure_swaps(small(), images, labels, [PLAN], ["avg", "soft(beta=2)"], batch_size=5, msb_batch_size=7)
    pd.testing.assert_frame_equal(whole, parts, rtol=0, atol=1e-6)
    # What is measured together and apart is the same.
    apart = measure_swaps(small(), images, labels, [PLAN], ["avg", "soft(beta=2)"], unshifted=False)
    of_plan = whole[whole["shift_kind"] == "zero"].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_plan, apart)


def test_columns_are_those_of_the_table(images: Tensor, labels: Tensor) -> None:
    frame = measure_swaps(small(), images, labels, [PLAN], ["avg"])
    assert set(frame.columns) == set(TABLES["swaps"].names) - {field.name for field in (*IDENTITY, *PROVENANCE)}


class Shared(nn.Module):
    """One pooling module at two sites, and a pooling call that no surgery reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.pool(self.conv(x)))
        return self.head(nn.functional.avg_pool2d(x, 2).mean((2, 3)))


def test_what_cannot_be_swapped_is_a_row_with_the_reason(images: Tensor, labels: Tensor) -> None:
    torch.manual_seed(0)
    model = Shared()
    frame = measure_swaps(centred(model, model.head), images, labels, [PLAN], ["subsample"])
    assert frame["before"].notna().all()
    assert frame[["after", "change", "se", "low", "high"]].isna().all(axis=None)
    reasons = frame.groupby(frame["depth"].fillna(-1))["reason"].unique()
    assert {depth: len(found) for depth, found in reasons.items()} == {-1: 1, 0: 1, 1: 1, 2: 1}
    assert "its module is also the site pool#2" in reasons[0][0]
    assert "its module is also the site pool," in reasons[1][0]
    assert "avg_pool2d stays: " in reasons[2][0] or "stays: " in reasons[2][0]


class Explosive(nn.Module):
    """Finite logits with a maximum before it, infinite ones with anything lower."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = small("max").stage1.down
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(-1, 4, -1, -1)
        pooled = self.pool(x)
        wrong = pooled.amax() < x.amax()
        return self.head(pooled.mean((2, 3))) / (0.0 if wrong else 1.0)


def test_a_network_that_fails_after_a_swap_is_a_row_and_before_it_an_error(images: Tensor, labels: Tensor) -> None:
    model = Explosive()
    frame = measure_swaps(centred(model, model.head), images, labels, [PLAN], ["avg"])
    assert frame["reason"].str.contains("NaN or infinite").all()
    assert frame["change"].isna().all()
    with pytest.raises(ModelError, match="the network fails on"):
        measure_swaps(small(), images.repeat(1, 3, 1, 1), labels, [PLAN], ["avg"])


def test_a_measure_without_a_number_says_why(images: Tensor, labels: Tensor) -> None:
    model = small()
    with torch.no_grad():
        model.linear.weight.zero_()
    frame = measure_swaps(model, images, labels, [PLAN, ShiftPlan.sampled(N, 3, n_shifts=1)], ["avg"])
    row = frame[(frame["measure"] == "kappa") & (frame["n_shifts"] == 5)].iloc[0]
    assert row["reason"] == "before the change: kappa is not defined: every prediction is of one class"
    single = frame[(frame["n_shifts"] == 1) & (frame["measure"] == "consistency")]
    assert (single["reason"] == "before the change: it is not defined for these shifts").all()
    flat = measure_swaps(small(), torch.zeros(3, 1, 16, 16), labels[:3], [], ["avg"])
    first = pick(flat, 0, "avg", "msb_corrected", "site")
    assert first["reason"] == "before the change: every window is flat"


@pytest.mark.parametrize(
    ("replacements", "message"),
    [
        (["tips"], "tips has parameters of its own"),
        (["avg", "lps"], "lps has parameters of its own"),
        (["ddac(groups=2)"], r"ddac\(groups=2\) has parameters of its own"),
        (["mxi"], "unknown operator 'mxi'"),
        (["mix(0.5, max, prefilter(0.5, tips))"], "filters its map"),
        (["prefilter(0.5, tips)"], r"then=tips\) has parameters of its own"),
        ([], "nothing to swap to"),
    ],
)
def test_replacements_that_make_no_sense(images: Tensor, labels: Tensor, replacements: list[str], message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        measure_swaps(small(), images, labels, [PLAN], replacements)


def test_bad_images_and_plans(images: Tensor, labels: Tensor) -> None:
    with pytest.raises(DataError, match="no images"):
        measure_swaps(small(), images[:0], labels[:0], [], ["avg"])
    with pytest.raises(ShiftError, match="unshifted=False"):
        measure_swaps(small(), images, labels, [ShiftPlan.sampled(N, 2, kind="crop")], ["avg"])


def test_paired_change_by_hand() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.random(20), rng.random(20)
    change = paired_change(mean_statistic(old), mean_statistic(new))
    se = (new - old).std(ddof=1) / np.sqrt(20)
    assert (change.change, change.se) == (pytest.approx((new - old).mean()), pytest.approx(se))
    from scipy.stats import ttest_rel

    interval = ttest_rel(new, old).confidence_interval()
    assert (change.low, change.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert paired_change(mean_statistic(old), mean_statistic(old), None) == paired_change(
        Statistic(old.mean(), mean_statistic(old).without), mean_statistic(old), None
    )
    one = paired_change(mean_statistic(np.ones(1)), mean_statistic(np.zeros(1)))
    assert (one.change, one.se, one.reason) == (-1, pytest.approx(np.nan, nan_ok=True), None)


def test_the_average_leaves_out_what_has_no_number() -> None:
    first, second = mean_statistic(np.array([0.0, 1.0, 0.5])), mean_statistic(np.array([1.0, 1.0, 0.0]))
    both = average([first, Statistic.missing("flat"), second])
    assert both.value == pytest.approx((0.5 + 2 / 3) / 2)
    assert both.without.tolist() == pytest.approx([(0.75 + 0.5) / 2, (0.25 + 0.5) / 2, (0.5 + 1.0) / 2])
    assert average([Statistic.missing("flat")]).reason == "flat"
    assert average([]).reason == "the network has no downsampling site"
