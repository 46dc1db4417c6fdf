"""What replaces a `Path` at a URI does what `Path` does; refusals are tried in test_cluster."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mastodon_assets.config.settings import load_settings
from mastodon_assets.errors import SettingsError
from mastodon_assets.spark.storage import (
    HadoopPath,
    file_sizes,
    for_executors,
    remove_tree,
    rename,
    storage_path,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def folder(spark: "SparkSession", tmp_path: Path) -> HadoopPath:
    """The test's folder by its URI; the session brings the JVM."""
    found = storage_path(load_settings(spark_master="local[2]"), (tmp_path / "at").as_uri())
    assert isinstance(found, HadoopPath)
    return found


def test_what_is_written_is_read_again(folder: HadoopPath, tmp_path: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "model.json").write_text("größer", encoding="utf-8")
    assert (folder / "model.json").read_text(encoding="utf-8") == "größer"
    assert (tmp_path / "at" / "model.json").read_bytes() == "größer".encode()
    (folder / "model.json").write_bytes(b"again")
    with (folder / "model.json").open() as file:
        assert file.read() == b"again"
    assert (folder / "model.json").name == "model.json"


def test_a_folder_is_listed_renamed_and_removed_like_a_local_one(
    folder: HadoopPath, tmp_path: Path
) -> None:
    local = tmp_path / "at"
    (local / ".v1.partial" / "pipeline").mkdir(parents=True)
    (local / ".v1.partial" / "pipeline" / "part-0").write_bytes(b"12345")
    (local / ".v1.partial" / "model.json").write_bytes(b"1")
    (partial,) = folder.glob(".*.partial")
    assert file_sizes(partial) == file_sizes(local / ".v1.partial")
    assert file_sizes(partial) == {"model.json": 1, "pipeline/part-0": 5}
    rename(partial, folder / "v1")
    assert (folder / "v1").exists()
    assert not partial.exists()
    remove_tree(folder / "v1")
    assert not (local / "v1").exists()
    assert file_sizes(folder / "v1") == {}


def test_what_fails_is_an_os_error_in_one_line(folder: HadoopPath) -> None:
    for fails in (
        (folder / "nosuch").read_bytes,
        storage_path(load_settings(spark_master="local[2]"), "nosuch://host/x").exists,
    ):
        with pytest.raises(OSError, match="nosuch") as raised:
            fails()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["hdfs://host:9000/x", "s3a://bucket/x", "file:///x", "file:/x"])
def test_a_uri_is_for_every_master_and_kept_as_it_is(name: str) -> None:
    settings = load_settings(model_dir=name, spark_master="spark://a:1")
    assert settings.model_dir == name
    assert str(for_executors(settings, "MODEL_DIR", name)) == name


def test_a_local_path_is_for_local_spark_alone() -> None:
    assert for_executors(load_settings(spark_master="local[*]"), "MODEL_DIR", Path("x")) == Path(
        "x"
    )
    for master in ("spark://a:1", "sc://a:1/;token=planted", "yarn"):
        with pytest.raises(SettingsError, match=r"\AMODEL_DIR=x: .* file:///") as raised:
            for_executors(load_settings(spark_master=master), "MODEL_DIR", Path("x"))
        assert "planted" not in str(raised.value)
