"""Modules of a user's own under private names, and what an import means in them.

Every load is a small world of its own. Its modules stand in ``sys.modules`` under a private name
(``invariscope_user_<hash>.blocks``), which dataclasses, pickle and ``inspect`` look up, and never under their bare
ones. What an import statement of theirs means is decided by an ``__import__`` of their own: Python takes that function
from the builtins of the module in which the statement stands, so that an import within a function, run at the first
forward pass, finds the same siblings, in any thread, while nothing of the process is swapped: no entry of
``sys.path``, no finder, and no other module's imports.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import importlib.util
import re
import site
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import ModuleType
from typing import Any

PREFIX = "invariscope_user_"
"""What the private names of a user's modules begin with."""

_OURS = "invariscope"
_LOADERS = (
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
)


class World:
    """The modules of one load by their private names, and what an import in one of them means.

    Args:
        file: the file that is asked for, resolved.
        root: a folder above the file from which its packages may be imported as well.
    """

    def __init__(self, file: Path, root: Path | None) -> None:
        folder = top = file.parent
        while (top / "__init__.py").is_file() and top != top.parent:
            top = top.parent
        root = None if root is None else root.resolve()
        root = root if root is not None and folder.is_relative_to(root) else None
        base = root if root is not None and top.is_relative_to(root) else top
        self.prefix = PREFIX + hashlib.sha256(f"{file}\n{root}".encode()).hexdigest()[:16]
        self._folders = {self.prefix: base}
        name = self.prefix
        for part in folder.relative_to(base).parts:
            name, base = f"{name}.{_word(part)}", base / part
            self._folders[name] = base
        self._file = file
        is_package = file.name == "__init__.py"
        self.entry = name if is_package else f"{name}.{_word(file.stem)}"
        self._search = [top, *([root] if root is not None else [])]
        self._fallback = [folder] if top != folder else []
        self._own = folder.relative_to(top).parts[0] if top != folder else None
        self._installed = installed_name(file) is not None
        # A package's own __init__.py is run where the file speaks of its package, and left alone where it does not.
        self._runs_packages = is_package or any(_of_package(node, self._own) for node in import_statements(file))
        self.modules: dict[str, ModuleType] = {}
        self._known: dict[tuple[str, str], str | None] = {}
        self._lock = threading.RLock()
        self._builtins = {**vars(builtins), "__import__": self._import}

    def spec(self, name: str) -> ModuleSpec | None:
        """How a module is loaded; None where there is none. Folders without ``__init__.py`` have no loader."""
        if name == self.entry and name not in self._folders:
            return importlib.util.spec_from_file_location(name, self._file)
        if name in self._folders:
            folder = self._folders[name]
            init = folder / "__init__.py"
            if self._runs_packages and name != self.prefix and init.is_file():
                return importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(folder)])
            return _shell(name, folder)
        parent = self.spec(name.rpartition(".")[0]) if name.startswith(f"{self.prefix}.") else None
        for place in (parent.submodule_search_locations or ()) if parent is not None else ():
            spec = FileFinder(place, *_LOADERS).find_spec(name)
            if spec is not None:
                return spec
        return None

    def local(self, top: str, importer: str = "") -> str | None:
        """The private name of the module or package that ``import top`` finds here; None where it is not local."""
        if (top, importer) not in self._known:
            self._known[top, importer] = self._find(top, importer)
        return self._known[top, importer]

    def _find(self, top: str, importer: str) -> str | None:
        if top == _OURS or top in sys.builtin_module_names or (self._installed and top != self._own):
            return None
        candidates = [(folder, False) for folder in self._search]
        if not _is_installed(top):
            candidates += [(folder, False) for folder in self._fallback]
            candidates += [(folder, True) for folder in (*self._search, *self._fallback)]  # without __init__.py
        for folder, bare in candidates:
            name = f"{self._name(folder)}.{top}"
            spec = self.spec(name)
            if spec is None or (name == importer and not spec.submodule_search_locations):
                continue  # a file timm.py that imports timm wants the installed one
            if spec.loader is not None or name in self._folders or bare:
                return name
        return None

    def load(self, name: str) -> ModuleType:
        """A module by its private name, run with all packages above it unless that was done."""
        with self._lock:
            if name in self.modules:
                return self.modules[name]
            above, _, tail = name.rpartition(".")
            parent = self.load(above) if above else None
            if name in self.modules:
                return self.modules[name]
            spec = self.spec(name)
            if spec is None:
                public = name.removeprefix(f"{self.prefix}.")
                raise ModuleNotFoundError(f"No module named {public!r}", name=public)
            module = importlib.util.module_from_spec(spec)
            self.modules[name] = sys.modules[name] = module
            vars(spec)["_initializing"] = True  # by which Python knows an import that runs in a circle
            try:
                self._execute(module, spec)
            except BaseException:
                del self.modules[name]
                sys.modules.pop(name, None)
                raise
            finally:
                vars(spec)["_initializing"] = False
            module = self.modules[name] = sys.modules.get(name, module)  # a module may put another in its place
            if parent is not None:
                setattr(parent, tail, module)
            return module

    def add_folders(self, folders: Sequence[str]) -> None:
        """Look for modules in further folders, which the code itself added to ``sys.path``."""
        for text in folders:
            folder = Path(text).resolve()
            if folder in self._search:
                continue
            if folder not in self._folders.values():
                self._folders[f"{self.prefix}.path{len(self._folders)}"] = folder
            self._search.append(folder)
            self._known.clear()

    def _name(self, folder: Path) -> str:
        return next(name for name, known in self._folders.items() if known == folder)

    def _execute(self, module: ModuleType, spec: ModuleSpec) -> None:
        if isinstance(spec.loader, SourceFileLoader) and spec.origin is not None:
            # Compiled from the text: Python's cache would take a file changed within a second for the old one.
            code = compile(spec.loader.get_data(spec.origin), spec.origin, "exec", dont_inherit=True)
            module.__dict__["__builtins__"] = self._builtins
            exec(code, module.__dict__)
        elif spec.loader is not None:
            spec.loader.exec_module(module)

    def _import(self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        """``__import__`` as the modules of this world see it."""
        self._note_path()
        importer = str((globals or {}).get("__name__", ""))
        if level:
            absolute = top = importlib.util.resolve_name("." * level + name, (globals or {}).get("__package__"))
        else:
            first, dot, rest = name.partition(".")
            found = self.local(first, importer)
            if found is None:
                return self._outside(name, globals, locals, fromlist)
            absolute, top = found + dot + rest, found
        module = self.load(absolute)
        if not fromlist:
            return self.load(top)
        self._load_named(module, absolute, fromlist)
        return module

    def _load_named(self, module: ModuleType, name: str, fromlist: Sequence[str]) -> None:
        """The submodules among the names that a ``from`` import asks for."""
        if not hasattr(module, "__path__"):
            return
        for each in fromlist:
            if each == "*":
                self._load_named(module, name, [other for other in getattr(module, "__all__", ()) if other != "*"])
            elif not hasattr(module, each) and self.spec(f"{name}.{each}") is not None:
                self.load(f"{name}.{each}")

    def _outside(self, name: str, globals: Any, locals: Any, fromlist: Any) -> Any:
        try:
            module = builtins.__import__(name, globals, locals, fromlist, 0)
        except RuntimeError as problem:
            if "operator torchvision::" not in str(problem):
                raise
            from invariscope.zoo.optional import prepare_torchvision  # imports torch, as what failed did

            prepare_torchvision()
            module = builtins.__import__(name, globals, locals, fromlist, 0)
        if module is not importlib:
            return module
        own = ModuleType("importlib")  # whose import_module knows the siblings as well
        own.__dict__.update(vars(importlib), import_module=self._import_module)
        return own

    def _import_module(self, name: str, package: str | None = None) -> ModuleType:
        self._note_path()
        absolute = importlib.util.resolve_name(name, package)
        if absolute.partition(".")[0] == self.prefix:
            return self.load(absolute)
        first, dot, rest = absolute.partition(".")
        found = self.local(first)
        return importlib.import_module(absolute) if found is None else self.load(found + dot + rest)

    def _note_path(self) -> None:
        if _LOADING and _LOADING[-1][0] is self:
            self.add_folders([place for place in sys.path if place not in _LOADING[-1][1]])


_LOADING: list[tuple[World, list[str]]] = []
"""The loads that are going on, the innermost last, and ``sys.path`` before each."""


def run_world(world: World) -> ModuleType:
    """The entry of a world, run; the modules of an earlier load of the same file make way for it."""
    before = {name: module for name, module in sys.modules.items() if _belongs(name, world.prefix)}
    for name in before:
        del sys.modules[name]
    path = list(sys.path)
    _LOADING.append((world, path))
    try:
        return world.load(world.entry)
    except BaseException:
        for name in [name for name in sys.modules if _belongs(name, world.prefix)]:
            del sys.modules[name]
        sys.modules.update(before)
        raise
    finally:
        _LOADING.pop()
        sys.path[:] = path


def _belongs(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _word(text: str) -> str:
    return re.sub(r"\W", "_", text)


def _shell(name: str, folder: Path) -> ModuleSpec:
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    return spec


def _site_folders() -> list[Path]:
    """The folders of installed packages, and that of Python's own modules last: it may hold one of the former."""
    on_path = [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    folders = (*on_path, *site.getsitepackages(), site.getusersitepackages(), sysconfig.get_path("stdlib"))
    return list(dict.fromkeys(Path(folder).resolve() for folder in folders))


def installed_name(file: Path) -> str | None:
    """The module's name of a file of an installed package; None for a file that lies elsewhere."""
    for folder in _site_folders():
        if file.is_relative_to(folder):
            return ".".join(file.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
    return None


def _is_installed(top: str) -> bool:
    spec = PathFinder.find_spec(top, list(map(str, _site_folders())))
    return top in sys.stdlib_module_names or (spec is not None and spec.loader is not None)


def import_statements(file: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements of a file, also those within functions; none where it is no Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def _of_package(node: ast.Import | ast.ImportFrom, own: str | None) -> bool:
    """Whether a statement imports from the package ``own`` in which it stands."""
    if isinstance(node, ast.ImportFrom):
        return own is not None and (node.level > 0 or (node.module or "").partition(".")[0] == own)
    return any(alias.name.partition(".")[0] == own for alias in node.names)
