"""The cache of hashes: nothing is read twice, and no replacement goes unseen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from invariscope.base.files import sha256_file
from invariscope.collectors.engine import known
from invariscope.collectors.engine.known import Known
from invariscope.collectors.store.parts import Store
from invariscope.zoo.datasets.source import DataSource


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "tables")
    store.prepare()
    return store


def remembered(store: Store, weights: Path) -> str:
    cache = Known(store)
    value = cache.sha256(weights)
    cache.save()
    return value


def test_a_settled_file_is_hashed_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "a.pt"
    weights.write_bytes(b"one")
    monkeypatch.setattr(known, "SETTLED", -60.0)
    expected = remembered(store, weights)
    assert expected == sha256_file(weights)
    monkeypatch.setattr(known, "sha256_file", lambda path: "read again")
    assert remembered(store, weights) == expected


@pytest.mark.parametrize("in_place", [True, False])
def test_weights_replaced_by_others_of_the_same_size_and_date_are_seen(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    monkeypatch.setattr(known, "SETTLED", -60.0)
    weights, other = tmp_path / "a.pt", tmp_path / "b.pt"
    weights.write_bytes(b"one")
    os.utime(weights, ns=(10**18, 10**18))
    first = remembered(store, weights)
    if in_place:
        weights.write_bytes(b"two")
    else:
        other.write_bytes(b"two")
        other.replace(weights)
    os.utime(weights, ns=(10**18, 10**18))
    assert remembered(store, weights) == sha256_file(weights) != first


def test_a_file_that_has_just_changed_is_not_remembered(store: Store, tmp_path: Path) -> None:
    weights = tmp_path / "a.pt"
    weights.write_bytes(b"one")
    remembered(store, weights)
    assert Known(store)._entries["weights"] == {}


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b'{"weights": {}}'])
def test_a_broken_cache_is_no_cache(store: Store, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tables" / known.FILE).write_bytes(content)
    weights = tmp_path / "a.pt"
    weights.write_bytes(b"one")
    assert remembered(store, weights) == sha256_file(weights)


def test_a_data_source_changes_with_its_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "0.png").write_bytes(b"0")
    source = DataSource(f"imagefolder:{tmp_path / 'data'}")
    first = source.signatures()
    assert source.signatures() == first
    (tmp_path / "data" / "a" / "0.png").rename(tmp_path / "data" / "b" / "1.png")
    second = source.signatures()
    assert second != first
    (tmp_path / "data" / "b").rename(tmp_path / "data" / "c")
    assert source.signatures() != second
    (tmp_path / "data" / "c" / "loop").symlink_to(tmp_path / "data")
    assert source.signatures()
    assert DataSource("digits").signatures() == []
    assert (
        DataSource("digits", limit=3).key != DataSource("digits", limit=4).key != DataSource("digits", "train", 4).key
    )
