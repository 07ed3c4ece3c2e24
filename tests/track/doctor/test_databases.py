"""Databases: copied whole before a change, once, and asked for their schema without a library."""

import sqlite3
from contextlib import closing

from nutclf.track.doctor.databases import Backups, revision, sqlite_file


def rows(file):
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT * FROM notes").fetchall()


def test_a_copy_has_what_was_committed_also_where_the_file_has_not(tmp_path):
    """With write-ahead logging the newest rows are in another file; a plain copy lacks them."""
    said, file = [], tmp_path / "records.db"
    with closing(sqlite3.connect(file)) as open_elsewhere:
        open_elsewhere.execute("PRAGMA journal_mode=WAL")
        open_elsewhere.execute("CREATE TABLE notes (text TEXT)")
        open_elsewhere.execute("INSERT INTO notes VALUES ('new')")
        open_elsewhere.commit()
        assert b"CREATE TABLE notes" not in file.read_bytes(), "the file itself has not"
        Backups(tmp_path, said.append).before_changing(f"sqlite:///{file}")
    (copy,) = (tmp_path / "backups").rglob("records.db")
    assert rows(copy) == [("new",)]
    assert str(copy) in said[0]


def test_a_database_is_copied_before_its_first_change_only(tmp_path):
    said, file = [], tmp_path / "records.db"
    backups = Backups(tmp_path, said.append)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    backups.before_changing(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("INSERT INTO notes VALUES ('changed')")
    backups.before_changing(f"sqlite:///{file}")
    (copy,) = (tmp_path / "backups").rglob("*.db")
    assert (rows(copy), rows(file), len(said)) == ([], [("changed",)], 1)


def test_a_server_is_not_copied_and_that_is_said_once(tmp_path):
    said = []
    backups = Backups(tmp_path, said.append)
    for _ in range(2):
        backups.before_changing("postgresql://host/records")
    assert len(said) == 1
    assert "server" in said[0]
    assert list(tmp_path.iterdir()) == []


def test_only_a_local_file_that_holds_something_has_a_path(tmp_path):
    (tmp_path / "a.db").write_text("something")
    (tmp_path / "empty.db").touch()
    assert sqlite_file(f"sqlite:///{tmp_path / 'empty.db'}") is None
    assert sqlite_file(f"sqlite:///{tmp_path / 'a.db'}") == tmp_path / "a.db"
    assert sqlite_file(f"sqlite:///{tmp_path / 'b.db'}") is None
    assert sqlite_file("http://127.0.0.1:5000") is None


def test_the_schema_is_read_without_changing_the_file(tmp_path, store):
    assert revision(store.folder / "mlflow.db")
    assert revision(store.folder / "optuna.db")
    empty = tmp_path / "empty.db"
    empty.touch()
    assert revision(empty) is None
    assert empty.read_bytes() == b""
