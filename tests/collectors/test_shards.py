"""Shares of a zoo in runs of their own, into one folder or several, are one run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from invariscope_tests_same_tables import loaded, same

from invariscope.base.errors import InputError
from invariscope.cli import main
from invariscope.collectors.engine.shards import shard
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets.inputs import InputSpec

SMALL = [
    "--only",
    "smallcnn-[am][av]*-circular-s*",
    "--data",
    "digits",
    "--limit",
    "12",
    "--n-shifts",
    "2",
    "--msb-images",
    "8",
]


@pytest.fixture(scope="module")
def run(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three networks in one run, and in two shares, into a folder each and into one."""
    folder = tmp_path_factory.mktemp("shards")
    for out, *flags in (
        ["whole"],
        ["first", "--shard", "1/2"],
        ["second", "--shard", "2/2"],
        ["both", "--shard", "2/2"],
        ["both", "--shard", "1/2"],
    ):
        assert main(["collect", str(repository / "data" / "zoo"), "--out", str(folder / out), *SMALL, *flags]) == 0
    return folder


def test_two_shares_in_one_folder_give_the_tables_of_one_run(run: Path) -> None:
    whole = loaded(run / "whole")
    assert whole["checkpoints"]["checkpoint"].nunique() == 3
    same(whole, loaded(run / "both"))


def test_two_folders_copied_together_give_the_tables_of_one_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (set(loaded(run / name)["checkpoints"]["checkpoint"]) for name in ("first", "second"))
    assert first
    assert second
    assert not first & second
    together = shutil.copytree(run / "first", run / "together")
    shutil.copytree(run / "second", together, dirs_exist_ok=True)
    same(loaded(run / "whole"), loaded(together))
    assert main(["verify", str(together)]) == 0
    assert main(["compact", str(together)]) == 0
    same(loaded(run / "whole"), loaded(together))


def named(count: int) -> list[Checkpoint]:
    return [Checkpoint(f"net{i:02}", "zoo:smallcnn", Path("none"), InputSpec(8, (0.5,), (0.25,))) for i in range(count)]


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 10])
def test_every_checkpoint_is_in_one_share_whatever_the_order(parts: int) -> None:
    zoo = named(10)
    shares = [shard(zoo, f"{i + 1}/{parts}") for i in range(parts)]
    assert sorted(item.name for share in shares for item in share) == [item.name for item in zoo]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert shares == [shard(zoo[::-1], f"{i + 1}/{parts}") for i in range(parts)]


@pytest.mark.parametrize(
    "text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1.0/2", "²/²", "1/" + "9" * 12]
)
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="give I/N, for example 2/8"):
        shard(named(4), text)


def test_more_shares_than_checkpoints_are_refused_in_every_run() -> None:
    with pytest.raises(InputError, match="there are 4 checkpoints: take at most as many shares"):
        shard(named(4), "1/5")
