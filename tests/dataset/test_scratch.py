import sqlite3
from pathlib import Path

import pytest

from nat_dpo_pipeline.dataset.scratch import full_disk_told, scratch_database
from nat_dpo_pipeline.errors import OutputError


@pytest.mark.parametrize("name", ["no folder/it", "."])
def test_a_database_that_cannot_be_made_is_told_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="cannot keep the candidates in"):
        scratch_database(tmp_path / name, "CREATE TABLE one (two)")
    with pytest.raises(OutputError, match="syntax error"):
        scratch_database(tmp_path / "it", "CREATE NOTHING")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_is_told(tmp_path: Path) -> None:
    database = scratch_database(tmp_path / "it", "CREATE TABLE one (two)")
    database.execute("PRAGMA max_page_count = 2")  # stands in for a full disk
    with pytest.raises(OutputError, match="full; is there room on the disk") as raised, full_disk_told(tmp_path / "it"):
        database.executemany("INSERT INTO one VALUES (?)", [("a" * 5000,)] * 5)
    assert isinstance(raised.value.__cause__, sqlite3.Error)
    database.close()
