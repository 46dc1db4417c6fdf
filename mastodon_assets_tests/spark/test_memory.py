"""The memory of the driver on machines and in containers of several sizes."""

from pathlib import Path

import pytest

from mastodon_assets.config.settings import load_settings
from mastodon_assets.spark import memory
from mastodon_assets.spark.memory import chosen_mebibytes, driver_memory, limit_of, parse_memory

_GIB = 2**30


@pytest.mark.parametrize(
    ("gibibytes", "stream", "training"),
    [(2, 768, 1024), (6, 768, 2048), (12, 1536, 4096), (24, 2048, 8192), (256, 2048, 16_384)],
)
def test_a_driver_gets_a_share_within_bounds(gibibytes: int, stream: int, training: int) -> None:
    assert chosen_mebibytes(gibibytes * _GIB, "stream") == stream
    assert chosen_mebibytes(gibibytes * _GIB, "training") == training


def test_the_setting_overrides_what_would_be_chosen() -> None:
    assert driver_memory(load_settings(spark_driver_memory="3g"), "training") == "3g"


def test_the_lowest_limit_counts_and_words_and_huge_numbers_are_none() -> None:
    assert limit_of(24 * _GIB, []) == 24 * _GIB
    assert limit_of(24 * _GIB, ["max\n", f"{6 * _GIB}\n"]) == 6 * _GIB
    assert limit_of(24 * _GIB, ["9223372036854771712\n"]) == 24 * _GIB


@pytest.mark.parametrize(
    ("own", "file"),
    [
        ("0::/user/app.service\n", "user/memory.max"),
        ("0::/host/path/of/a/container\n", "memory.max"),
        ("5:cpu:/x\n4:memory,hugetlb:/docker/1\n", "memory/docker/1/memory.limit_in_bytes"),
    ],
)
def test_the_limit_of_this_processs_cgroup_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, file: str
) -> None:
    (tmp_path / "own").write_text(own)
    (tmp_path / "root" / file).parent.mkdir(parents=True)
    (tmp_path / "root" / file).write_text(str(_GIB))
    monkeypatch.setattr(memory, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(memory, "_CGROUP_ROOT", tmp_path / "root")
    assert memory.memory_limit() == _GIB


@pytest.mark.parametrize(("text", "size"), [("512k", 2**19), ("768m", 768 * 2**20), ("2G", 2**31)])
def test_memory_is_read_as_the_setting_has_it(text: str, size: int) -> None:
    assert parse_memory(text) == size
