"""Find, check, measure and replace the downsampling of the networks of timm and torchvision: the report of what works.

    python tests/sweep_networks.py --out docs/networks          (make sweep)

Each network has random weights, and its smallest legal input that is a multiple of its total stride. The strides are
checked against the sizes of the maps: every tensor carries the product of the strides of the sites on its path, which
must be input size / map size at every convolution, and the same in all branches that join.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from path_strides import Strides, watch

from invariscope.base.explained import UNEXPLAINED
from invariscope.collectors.measure.msb import measure_msb
from invariscope.zoo.loading import build_model
from invariscope.zoo.sites import Site
from invariscope.zoo.surgery import replace_downsampling

TIMM = """
botnet26t_256 halonet26t lambda_resnet26t bat_resnext26ts gernet_s mobileone_s0 repvgg_a0 gcresnet33ts coat_lite_tiny
convmixer_768_32 convnext_atto convnextv2_atto cpubone_nano csatv2 cspresnet50 cs3darknet_focus_s cspdarknet53
cspnext_tiny davit_tiny densenet121 densenetblur121d dla46x_c dpn48b edgenext_xx_small efficientformer_l1
efficientformerv2_s0 efficientnet_lite0 tf_efficientnet_b0 tf_efficientnetv2_b0 tf_mixnet_s mnasnet_small
mobilenetv2_035 mobilenetv1_100 mobilenetv4_conv_small_035 fbnetc_100 spnasnet_100 efficientnet_es efficientvim_m1
efficientvit_b0 efficientvit_m0 fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny ghostnet_050 ghostnetv2_100
ghostnetv3_050 hardcorenas_a hgnet_tiny hgnetv2_b0 hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2
inception_v3 inception_v4 lcnetv2_small levit_128s levit_conv_128s lowformer_b0 mambaout_femto maxvit_rmlp_pico_rw_256
coatnet_pico_rw_224 poolformer_s12 convformer_s18 lcnet_035 mobilenetv3_small_050 tf_mobilenetv3_small_minimal_100
mobilenetv5_base mobilevit_xxs mobilevitv2_050 mvitv2_tiny nasnetalarge nest_tiny nextvit_small dm_nfnet_f0 nfnet_l0
nf_regnet_b0 nf_resnet26 pit_ti_224 pnasnet5large pvt_v2_b0 rdnet_tiny regnetx_002 regnety_002 regnetz_005
repghostnet_050 repvit_m0_9 res2net50_14w_8s resnest14d resnet18 resnet18d resnetblur50 resnetaa50d ecaresnet26t
resnetrs50 resnetv2_18 resnetv2_50x1_bit rexnet_100 selecsls42 legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18
starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224
tresnet_m twins_svt_small twins_pcpvt_small vgg11 visformer_tiny vit_tiny_patch16_224 vit_tiny_r_s16_p8_224
vitamin_small_224 volo_d1_224 ese_vovnet19b_slim_dw vovnet39a legacy_xception xception41 xcit_nano_12_p16_224
hiera_tiny_224 mixer_s32_224
""".split()  # noqa: SIM905
"""The smallest network of each of timm's families with convolutions, and of those with special layers."""

TORCHVISION = """
alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d shufflenet_v2_x0_5
squeezenet1_0 squeezenet1_1 swin_t swin_v2_t vgg11 vgg11_bn vit_b_16 wide_resnet50_2
deeplabv3_mobilenet_v3_large deeplabv3_resnet50 fcn_resnet50 lraspp_mobilenet_v3_large
""".split()  # noqa: SIM905
"""torchvision's networks for classification (the smallest of each family) and segmentation (all kinds)."""

SAMPLE = """
timm:convnext_atto timm:cs3darknet_focus_s timm:densenetblur121d timm:dla46x_c timm:edgenext_xx_small
timm:tf_efficientnet_b0 timm:efficientvit_m0 timm:fasternet_t0 timm:ghostnet_050 timm:hardcorenas_a timm:hrnet_w18_small
timm:inception_v3 timm:lcnet_035 timm:mobilevit_xxs timm:nf_regnet_b0 timm:pvt_v2_b0 timm:regnetx_002
timm:repghostnet_050 timm:res2net50_14w_8s timm:resnest14d timm:resnet18d timm:resnetblur50 timm:resnetv2_50x1_bit
timm:skresnet18 timm:starnet_s050 timm:tresnet_m timm:visformer_tiny
torchvision:googlenet torchvision:shufflenet_v2_x0_5 torchvision:squeezenet1_1 torchvision:swin_t
torchvision:lraspp_mobilenet_v3_large
""".split()  # noqa: SIM905
"""A sample for the tests: every kind of site, and small."""

EXCEPTIONS = {
    "timm:csatv2": "Its stem cuts 8 x 8 blocks into the batch, as windows for attention are cut, and transforms each.",
    "timm:hiera_tiny_224": "A transformer; it takes maxima over tokens that it has sorted beforehand, not over maps.",
}
"""The networks of which something is known not to work, and why."""

IMAGES = 2


@dataclass
class Outcome:
    """What came of one network."""

    network: str
    parameters: float = 0.0
    size: int = 0
    total_stride: int = 0
    sites: int = 0
    unmeasured: int = 0
    kinds: str = ""
    shrinks: str = ""
    strides: str = ""
    msb: str = ""
    tips: str = ""
    blur: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return all(field == "ok" for field in (self.strides, self.msb, self.tips, self.blur))


def check(network: str) -> Outcome:
    """Everything about one network; nothing is raised."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    outcome, start = Outcome(network), time.perf_counter()
    try:
        torch.manual_seed(0)
        model = build_model(network).eval()
        outcome.parameters = round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1)
        outcome.size, larger = sizes(model)
    except Exception as problem:
        outcome.strides = outcome.msb = f"cannot be run: {line(problem)}"
        return outcome
    outcome.strides = attempt(lambda: right_strides(model, outcome, larger))
    outcome.msb = attempt(lambda: measured(model, outcome))
    for operator, field in (("tips", "tips"), ("blur", "blur")):
        setattr(outcome, field, attempt(lambda operator=operator: replaced(model, outcome.size, operator)))
    outcome.seconds = round(time.perf_counter() - start, 1)
    return outcome


def attempt(step: Callable[[], str]) -> str:
    try:
        return step()
    except Exception as problem:
        return line(problem)


def line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"[:200]


def images_of(size: int) -> Tensor:
    return torch.randn(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))


def runs(model: nn.Module, size: int) -> bool:
    try:
        with torch.no_grad():
            model(images_of(size))
    except Exception:
        return False
    return True


def default_size(model: nn.Module) -> int:
    return int(getattr(model, "pretrained_cfg", {}).get("input_size", (3, 224, 224))[-1])


def sizes(model: nn.Module) -> tuple[int, int]:
    """The smallest legal multiple of the total stride, and one whose last map has several pixels, for the strides."""
    full = default_size(model)
    first = next((size for size in (64, 128) if size < full and runs(model, size)), full)
    found = watch(model, images_of(first)[:1])
    total = found.total
    # Where a site's map has but one pixel before it, it does nothing.
    legal = (size for size in range(total, full, total) if runs(model, size))
    legal = next((size for size in legal if len(watch(model, images_of(size)).sizes) == len(found.sizes)), full)
    larger = next((size for size in (2 * total, 4 * total, 6 * total) if size >= legal and runs(model, size)), full)
    return legal, larger


def right_strides(model: nn.Module, outcome: Outcome, size: int) -> str:
    """Whether product of strides = input size / map size at every site; else, for unpadded networks, its increments."""
    strides = watch(model, images_of(size))
    sites = [site for site, _ in strides.sizes]
    outcome.sites = len(sites)
    outcome.unmeasured = sum(site.reason is not None and not site.is_aside for site in sites)
    outcome.kinds = ", ".join(sorted({site.kind for site in sites}))
    outcome.shrinks = explained(sites)
    outcome.total_stride = strides.total
    if strides.problems:
        return strides.problems[0]
    known = [entry["reduction"] for entry in getattr(model, "feature_info", None) or [] if "reduction" in entry]
    # timm's smaller numbers are nominal: TResNet's stem, space-to-depth by 4, is on record with 2.
    if known and max(known) not in {round(max(scale)) for _, scale in strides.sizes}:
        return f"timm says that the total stride is {max(known)}, which no site makes"
    wrong = [
        f"{site.name.removeprefix('model.')}: total stride {scale[0]} x {scale[1]}, but {size} is {site.output_size}"
        for site, scale in strides.sizes
        if strides.expected(scale) != site.output_size
    ]
    if not wrong:
        return "ok"
    more = enlarged(model, outcome.network, size + strides.total)
    for (site, scale), (larger, again) in zip(strides.sizes, more.sizes, strict=True):
        grown = [after - before for after, before in zip(larger.output_size, site.output_size, strict=True)]
        if again != scale or any(strides.total != factor * length for factor, length in zip(scale, grown, strict=True)):
            return wrong[0]
    return "ok"


def explained(sites: Sequence[Site]) -> str:
    """How every place is explained where a map gets smaller: measured by reader or behaviour, listed, aside, or not."""
    kinds = Counter(
        "on side branches" if site.is_aside
        else "not explained" if site.explained == UNEXPLAINED
        else f"listed ({site.kind})" if site.reason is not None
        else f"by {site.explained}"
        for site in sites
    )  # fmt: skip
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def enlarged(model: nn.Module, network: str, size: int) -> Strides:
    """The strides at another input size; a network that is made for one size is built anew for it."""
    if not runs(model, size):
        model = build_model(f"{network}?img_size={size}").eval()
    return watch(model, images_of(size))


def measured(model: nn.Module, outcome: Outcome) -> str:
    """Whether every site that has no reason against it has a reading."""
    frame = measure_msb(model, images_of(outcome.size))
    failed = frame[frame["reason"].isna() & frame["msb_corrected"].isna()]
    return "ok" if failed.empty else f"no reading at {failed['site'].iloc[0]}"


def replaced(model: nn.Module, size: int, operator: str) -> str:
    """Whether the network with another operator gives the same shape, and a finite gradient to what was put in."""
    images = images_of(size)
    with torch.no_grad():
        before = shapes(model(images))
    changed, _ = replace_downsampling(model, operator, example=images)
    made = changed(images)
    if shapes(made) != before:
        return f"output was {before}, is {shapes(made)}"
    sum(item.float().square().mean() for item in tensors(made)).backward()
    own = {name for name, _ in model.named_parameters()}
    new = {name: parameter for name, parameter in changed.named_parameters() if name not in own}
    for name, parameter in new.items():
        if parameter.grad is None or not bool(parameter.grad.isfinite().all()):
            return f"gradient of {name} is {'missing' if parameter.grad is None else 'not finite'}"
    if operator == "tips" and not new:
        return "nothing was put in"
    return "ok"


def shapes(output: Any) -> list[tuple[int, ...]]:
    return [tuple(item.shape) for item in tensors(output)]


def tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else []
    return [tensor for part in parts for tensor in tensors(part)]


def report(outcomes: Sequence[Outcome], out: Path) -> None:
    """The CSV of all outcomes and a page of what they say."""
    frame = pd.DataFrame([asdict(outcome) for outcome in outcomes])
    frame["reason"] = [EXCEPTIONS.get(outcome.network, "") for outcome in outcomes]
    frame.drop(columns="seconds").to_csv(out.with_suffix(".csv"), index=False)
    lines = [
        "# Networks of timm and torchvision",
        "",
        f"Regenerated by `make sweep`: torch {torch.__version__}, {versions()}. Random weights, {IMAGES} random images "
        "of the smallest legal size that is a multiple of the total stride (in pixels, `size`).",
        "",
        "| library | networks | strides | measured | surgery TIPS | surgery BlurPool | all |",
        "|---|---|---|---|---|---|---|",
    ]
    for library in ("timm", "torchvision"):
        some = [outcome for outcome in outcomes if outcome.network.startswith(f"{library}:")]
        counts = [sum(getattr(outcome, field) == "ok" for outcome in some) for field in FIELDS]
        lines.append(row(library, len(some), *counts, sum(outcome.passed for outcome in some)))
    lines += ["", "What each column says is in `tests/sweep_networks.py`. Exceptions:", ""]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        found = "; ".join(f"{field}: {getattr(outcome, field)}" for field in FIELDS if getattr(outcome, field) != "ok")
        reason = EXCEPTIONS.get(outcome.network)
        lines.append(f"* `{outcome.network}`: {reason + ' ' if reason else ''}({found.replace('|', '/')})")
    lines += ["" if failed else "None.", "", row("network", "parameters / 1e6", "size", "total stride", "sites"), ""]
    lines[-1] = "|---|---|---|---|---|---|---|---|---|---|---|"
    names = ("network", "parameters", "size", "total_stride", "sites", "shrinks", "kinds")
    lines[-2] = row("network", "10^6 parameters", "size", "total stride", "sites", "shrinks", "kinds", *FIELDS)
    for outcome in outcomes:
        verdicts = ["ok" if getattr(outcome, field) == "ok" else "**no**" for field in FIELDS]
        lines.append(row(*(getattr(outcome, name) for name in names), *verdicts))
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def earlier(out: Path) -> dict[str, Outcome]:
    """The outcomes of a report that is there."""
    if not out.with_suffix(".csv").is_file():
        return {}
    frame = pd.read_csv(out.with_suffix(".csv"), keep_default_na=False).drop(columns="reason")
    return {str(record["network"]): Outcome(**record) for record in frame.to_dict("records")}


FIELDS = ("strides", "msb", "tips", "blur")


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def versions() -> str:
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("timm", "torchvision"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/networks"), help="report without its suffix")
    parser.add_argument(
        "--only", nargs="*", help="networks to check again, the others stay in the report; by default all"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    every = [f"timm:{name}" for name in TIMM] + [f"torchvision:{name}" for name in TORCHVISION]
    names = arguments.only or every
    # Not __main__'s own: worker processes import a function of a module, and would have to be sent one of a script.
    from sweep_networks import check

    outcomes = earlier(arguments.out) if arguments.only else {}
    for outcome in joblib.Parallel(arguments.jobs, return_as="generator")(
        joblib.delayed(check)(name) for name in names
    ):
        outcomes[outcome.network] = outcome
        found = {field: value for field, value in asdict(outcome).items() if value != "ok"}
        print(found, file=sys.stderr, flush=True)  # noqa: T201
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    report([outcomes[name] for name in every if name in outcomes], arguments.out)


if __name__ == "__main__":
    main()
