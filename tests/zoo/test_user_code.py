"""Research code as it is written: siblings, packages, late imports, names that are taken, and errors in one line."""

from __future__ import annotations

import dataclasses
import inspect
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from invariscope.base.errors import ModelError
from invariscope.zoo.loading import build_model
from invariscope.zoo.private_imports import PREFIX
from invariscope.zoo.user_code import find_code, load_user_object, local_imports


def files(folder: Path, **contents: str) -> Path:
    """Write files: ``a__b`` stands for ``a/b.py``, three underscores at the end for ``a/__init__.py``."""
    for name, text in contents.items():
        place = name.removesuffix("___") + "/__init__" if name.endswith("___") else name
        file = folder / f"{place.replace('__', '/') if not name.endswith('___') else place}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    return folder


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After every test: ``sys.path`` and the working folder are as before, and no bare name of the user's stays."""
    for name in [name for name in sys.modules if name.startswith(PREFIX)]:  # of other tests
        del sys.modules[name]
    path, folder, names = list(sys.path), os.getcwd(), set(sys.modules)
    yield
    assert sys.path == path
    assert os.getcwd() == folder
    left = {name.partition(".")[0] for name in set(sys.modules) - names if not name.startswith(PREFIX)}
    assert not left & {"blocks", "utils", "models", "lib", "zoo", "analysis", "my_pkg", "nets", "common"}


POOL = "from torch import nn\ndef down():\n    return nn.MaxPool2d(4)\n"
NET = """
    from torch import nn
    {}
    class Net(nn.Module):
        def __init__(self, width: int = 1):
            super().__init__()
            self.down = {}()
        def forward(self, x):
            return self.down(x)
"""

KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "a name from a sibling": (
        "python:nets.py:Net",
        {"nets": NET.format("from blocks import down", "down"), "blocks": POOL},
    ),
    "a sibling": (
        "python:nets.py:Net",
        {"nets": NET.format("import blocks", "blocks.down"), "blocks": POOL},
    ),
    "a sibling under another name": (
        "python:nets.py:Net",
        {"nets": NET.format("import lib.blocks as b", "b.down"), "lib__blocks": POOL},
    ),
    "a submodule of a package beside": (
        "python:nets.py:Net",
        {"nets": NET.format("import lib.blocks", "lib.blocks.down"), "lib___": "", "lib__blocks": POOL},
    ),
    "everything from a package": (
        "python:nets.py:Net",
        {
            "nets": NET.format("from lib import *", "blocks.down"),
            "lib___": "__all__ = ['blocks']",
            "lib__blocks": POOL,
        },
    ),
    "a package whose files import each other": (
        "python:nets.py:Net",
        {
            "nets": NET.format("from lib import down", "down"),
            "lib___": "from .blocks import down",
            "lib__blocks": "from lib.more import down",
            "lib__more": POOL,
        },
    ),
    "a relative sibling without a package": (
        "python:nets.py:Net",
        {"nets": NET.format("from .blocks import down", "down"), "blocks": POOL},
    ),
    "a relative sibling in a package": (
        "python:my_pkg/nets.py:Net",
        {"my_pkg___": "", "my_pkg__nets": NET.format("from .blocks import down", "down"), "my_pkg__blocks": POOL},
    ),
    "a package that imports the file itself": (
        "python:my_pkg/nets.py:Net",
        {
            "my_pkg___": "from .nets import Net",
            "my_pkg__nets": NET.format("from . import blocks", "blocks.down"),
            "my_pkg__blocks": POOL,
        },
    ),
    "a package above": (
        "python:my_pkg/deep/nets.py:Net",
        {
            "my_pkg___": "",
            "my_pkg__deep___": "",
            "my_pkg__deep__nets": NET.format("from ..common import down", "down"),
            "my_pkg__common": POOL,
        },
    ),
    "a folder above without __init__.py": (
        "python:my_pkg/deep/nets.py:Net",
        {
            "my_pkg__deep__nets": NET.format("from ..common import down", "down"),
            "my_pkg__common": POOL,
        },
    ),
    "its own package by name": (
        "python:my_pkg/nets.py:Net",
        {
            "my_pkg___": "",
            "my_pkg__nets": NET.format("from my_pkg.blocks import down", "down"),
            "my_pkg__blocks": POOL,
        },
    ),
    "from the manifest's folder": (
        "python:models/nets.py:Net",
        {"models__nets": NET.format("from lib.blocks import down", "down"), "lib__blocks": POOL},
    ),
    "a sibling although there is an __init__.py": (
        "python:my_pkg/nets.py:Net",
        {
            "my_pkg___": "raise RuntimeError('needs what is not installed')",
            "my_pkg__nets": NET.format("from blocks import down", "down"),
            "my_pkg__blocks": POOL,
        },
    ),
    "a module of a package": (
        "python:my_pkg.nets:Net",
        {"my_pkg___": "", "my_pkg__nets": NET.format("from .blocks import down", "down"), "my_pkg__blocks": POOL},
    ),
    "a package itself": (
        "python:my_pkg:Net",
        {"my_pkg___": "from .nets import Net", "my_pkg__nets": NET.format("from .blocks import down", "down"),
         "my_pkg__blocks": POOL},
    ),
    "what importlib computes": (
        "python:nets.py:Net",
        {
            "nets": NET.format("import importlib\n    b = importlib.import_module('lib.' + 'blocks')", "b.down"),
            "lib___": "from importlib import import_module\nimport_module('.blocks', __package__)",
            "lib__blocks": POOL,
        },
    ),
    "a folder that it adds to the path": (
        "python:models/nets.py:Net",
        {
            "models__nets": NET.format(
                "import os, sys\n    here = os.path.dirname(os.path.abspath(__file__))\n"
                "    sys.path.insert(0, os.path.join(here, '..', 'elsewhere'))\n    from blocks import down", "down"
            ),
            "elsewhere__blocks": POOL,
        },
    ),
    "names of ours and of Python's": (
        "python:nets.py:Net",
        {
            "nets": NET.format(
                "import random, copy\n    from analysis import a\n    import zoo.blocks\n    from collectors import c\n"
                "    from invariscope.zoo.operators.base import Downsample\n    assert random.mine + a + c == 6",
                "zoo.blocks.down",
            ),
            "random": "mine = 1",
            "analysis": "a = 2",
            "collectors": "c = 3",
            "zoo___": "",
            "zoo__blocks": POOL,
        },
    ),
    "a file with the name of the package that it wraps": (
        "python:torch.py:Net",
        {"torch": "import torch\nclass Net(torch.nn.MaxPool2d):\n    def __init__(s):\n        super().__init__(4)\n"},
    ),
    "what is installed, in a package with files of the same names": (
        "python:my_pkg/nets.py:Net",
        {
            "my_pkg___": "",
            "my_pkg__nets": NET.format(
                "import logging, yaml\n    from .logging import down\n    assert logging.INFO, yaml.safe_load", "down"
            ),
            "my_pkg__logging": POOL,
            "my_pkg__yaml": "",
        },
    ),
    "what is installed, beside a folder of the same name": (
        "python:nets.py:Net",
        {"nets": NET.format("import yaml\n    from blocks import down\n    yaml.safe_load", "down"), "blocks": POOL,
         "yaml__notes": ""},
    ),
    "dataclasses and annotations": (
        "python:nets.py:Net",
        {
            "nets": "from __future__ import annotations\nfrom dataclasses import dataclass\n"
            + textwrap.dedent(NET.format("from blocks import Config, down", "Config(down).down")),
            "blocks": "from __future__ import annotations\nfrom dataclasses import KW_ONLY, dataclass\n"
            "from typing import Any, ClassVar\n@dataclass\nclass Config:\n    down: Any\n    _: KW_ONLY\n"
            "    kind: ClassVar[str] = 'a'\n" + POOL,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "contents"), KINDS.values(), ids=KINDS)
def test_research_code_loads(tmp_path: Path, model: str, contents: dict[str, str]) -> None:
    files(tmp_path, **contents)
    network = build_model(model, tmp_path)
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 2, 2)
    loaded = {
        Path(module.__file__) for name, module in sys.modules.items() if name.startswith(PREFIX) and module.__file__
    }
    found = set(local_imports(find_code(model.split(":")[1], tmp_path), tmp_path))
    # A folder that the code adds to the path is not known before it runs.
    assert loaded - found == {path.resolve() for path in tmp_path.glob("elsewhere/*.py")}
    assert found <= {path.resolve() for path in tmp_path.rglob("*.py")}


LATE = """
    from torch import nn
    def build():
        from blocks import Block
        return Block()
"""
LATE_BLOCKS = """
    from torch import nn
    class Block(nn.Module):
        def forward(self, x):
            import numbers_of_mine
            from .more import add
            import importlib
            assert importlib.import_module("numbers_of_mine") is numbers_of_mine
            return add(x, numbers_of_mine.VALUE)
"""


def late(folder: Path, value: int) -> Path:
    more = "def add(x, y):\n    return x + y\n"
    return files(folder, nets=LATE, blocks=LATE_BLOCKS, numbers_of_mine=f"VALUE = {value}\n", more=more)


def test_two_folders_with_files_of_the_same_names_each_get_their_own(tmp_path: Path) -> None:
    x = torch.zeros(1)
    networks = {value: build_model("python:nets.py:build", late(tmp_path / str(value), value)) for value in (1, 2, 3)}
    for value in (2, 1, 3, 1):  # the imports of a first forward pass too
        assert networks[value](x).item() == value
    with ThreadPoolExecutor(8) as pool:
        values = list(range(1, 4)) * 20
        assert [y.item() for y in pool.map(lambda value: networks[value](x), values)] == values
    assert all(type(pickle.loads(pickle.dumps(network))) is type(network) for network in networks.values())


def test_an_import_of_a_user_does_not_reach_into_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bare modules of the process, from elsewhere, are neither taken for the siblings nor replaced by them."""
    files(tmp_path / "cwd", numbers_of_mine="VALUE = 7\n")
    monkeypatch.syspath_prepend(tmp_path / "cwd")
    network = build_model("python:nets.py:build", late(tmp_path / "zoo", 1))
    assert network(torch.zeros(1)).item() == 1
    import numbers_of_mine  # type: ignore[import-not-found]

    assert numbers_of_mine.VALUE == 7
    assert network(torch.zeros(1)).item() == 1
    del sys.modules["numbers_of_mine"]


def test_every_load_runs_the_files_as_they_are_now(tmp_path: Path) -> None:
    folder = late(tmp_path, 1)
    first = build_model("python:nets.py:build", folder)
    late(tmp_path, 2)
    second = build_model("python:nets.py:build", folder)
    assert (second(torch.zeros(1)).item(), first(torch.zeros(1)).item()) == (2, 2)
    late(tmp_path, 3)  # what is imported by now stays as it was
    assert (second(torch.zeros(1)).item(), first(torch.zeros(1)).item()) == (2, 2)
    files(tmp_path, counting="import state\ndef build():\n    return state.next_one()\n", state='''
        from torch import nn
        count = 0
        def next_one():
            global count
            count += 1
            return nn.Linear(count, 1)
        ''')  # fmt: skip
    assert [build_model("python:counting.py:build", tmp_path).in_features for _ in range(3)] == [1, 1, 1]


def test_a_load_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    files(tmp_path, nets=NET.format("from blocks import down", "down"), blocks=POOL)
    network = build_model("python:nets.py:Net", tmp_path)
    names = {name for name in sys.modules if name.startswith(PREFIX)}
    files(tmp_path, nets="from blocks import down\nimport sys\nsys.path.append('x')\n1 / 0\n")
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        build_model("python:nets.py:Net", tmp_path)
    assert {name for name in sys.modules if name.startswith(PREFIX)} == names
    assert type(pickle.loads(pickle.dumps(network))) is type(network)


def test_classes_of_a_user_are_pickled_by_name_and_show_their_source(tmp_path: Path) -> None:
    net = textwrap.dedent(NET.format("from blocks import Config, down", "down")) + "    config = Config(3)\n"
    config = "from dataclasses import dataclass\n@dataclass(frozen=True, order=True)\nclass Config:\n    size: int\n"
    files(tmp_path, nets=net, blocks=config + POOL)
    network = build_model("python:nets.py:Net", tmp_path)
    assert inspect.getsource(type(network)).startswith("class Net(nn.Module):\n    def __init__(self, width: int = 1):")
    assert inspect.getsource(type(network.config)).startswith("@dataclass(frozen=True, order=True)\nclass Config:")
    assert inspect.getsource(sys.modules[type(network.config).__module__]) == (tmp_path / "blocks.py").read_text()
    assert dataclasses.replace(network.config, size=4) > network.config
    content = pickle.dumps(network)
    assert pickle.loads(content).config == network.config
    code = "import pickle, sys; from invariscope.zoo.loading import build_model; from pathlib import Path;"
    code += "build_model('python:nets.py:Net', sys.argv[1]);"
    code += "print(type(pickle.loads(sys.stdin.buffer.read())).__name__)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], input=content, capture_output=True, check=True)
    assert done.stdout.split() == [b"Net"]


def test_installed_modules_keep_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json.decoder

    import yaml

    assert load_user_object(find_code("json.decoder", tmp_path), "JSONDecoder") is json.decoder.JSONDecoder
    assert load_user_object(find_code("yaml", tmp_path), "SafeLoader") is yaml.SafeLoader
    linear = build_model("python:torch.nn.modules.linear:Linear?in_features=2&out_features=3", tmp_path)
    assert type(linear) is nn.Linear
    assert {path.parent.name for path in local_imports(find_code("yaml", tmp_path))} == {"yaml"}
    files(tmp_path / "editable", my_pkg___="1 / 0\n", my_pkg__nets=NET.format("from .blocks import down", "down"))
    monkeypatch.syspath_prepend(tmp_path / "editable")
    assert find_code("my_pkg.nets", tmp_path) == tmp_path / "editable" / "my_pkg" / "nets.py"  # and nothing was run
    assert find_code("my_pkg.other", tmp_path) == find_code("my_pkg/other.py", tmp_path)
    files(tmp_path / "editable", my_pkg___="", my_pkg__blocks=POOL)
    assert build_model("python:my_pkg.nets:Net", tmp_path)(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 2, 2)


def test_what_is_imported_is_known_without_running_it(tmp_path: Path) -> None:
    nets = """
        import os, blocks
        raise RuntimeError("this was run")
        def late():
            from lib import deep
        """
    files(tmp_path, nets=nets, blocks="import os\nif os: import further\n", further="syntax error", apart="")
    files(
        tmp_path, lib___="", lib__deep="from . import deeper", lib__deeper="import nets", lib__apart="", os="import z"
    )
    names = ("nets", "blocks", "further", "lib/__init__", "lib/deep", "lib/deeper", "os")
    found = local_imports(tmp_path / "nets.py")
    assert found[0] == tmp_path / "nets.py"
    assert set(found) == {tmp_path / f"{name}.py" for name in names}
    files(tmp_path, lib___="import pkgutil\nfor each in pkgutil.iter_modules(__path__): ...\n", **{".git__x": ""})
    assert set(local_imports(tmp_path / "nets.py")) == {*found, tmp_path / "lib" / "apart.py"}


def test_hostile_names_in_the_working_folder(tmp_path: Path) -> None:
    """A whole process that was started in the folder of the user's own files."""
    folder = late(tmp_path, 5)
    hostile = "raise RuntimeError('taken for ours')\n"
    files(folder, analysis=hostile, collectors=hostile, data=hostile, zoo___=hostile, utils=hostile, base=hostile)
    files(tmp_path / "copy", invariscope___=hostile, nets="import invariscope.zoo\nfrom torch.nn import Identity\n")
    assert isinstance(build_model("python:nets.py:Identity", tmp_path / "copy"), nn.Identity)
    code = "import sys; from invariscope.zoo.loading import build_model; import torch;"
    code += "network = build_model('python:nets.py:build'); print(network(torch.zeros(1)).item());"
    code += "print([name for name in ('blocks', 'numbers_of_mine', 'zoo', 'more') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["5.0", "[]"]
