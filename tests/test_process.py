"""Signals, sent to this very process."""

import os
import signal

import pytest
import sqlalchemy
from sqlalchemy import orm

from nutclf.process import hear_signals_once, quiet, signals_deferred


@pytest.fixture(autouse=True)
def handlers_put_back():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_is_written_is_written_whole():
    hear_signals_once()
    written = []
    with pytest.raises(KeyboardInterrupt), signals_deferred():
        os.kill(os.getpid(), signal.SIGINT)
        written.append("whole")
    assert written == ["whole"]


def test_sigterm_ends_with_143():
    hear_signals_once()
    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143


def test_the_end_is_not_ended():
    hear_signals_once()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_query_that_a_signal_ends_says_nothing_of_its_own(tmp_path, caplog):
    """Seen in CI: a sweep ended by SIGTERM while MLflow read, and a traceback before its end."""
    quiet()
    hear_signals_once()

    def ended(cursor, row):
        os.kill(os.getpid(), signal.SIGTERM)
        return row

    class Row(orm.declarative_base()):
        __tablename__ = "row"
        id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)

    database = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'records.db'}")
    Row.metadata.create_all(database)
    with pytest.raises(SystemExit), orm.Session(database) as session:
        session.add(Row(id=1))
        session.flush()
        session.connection().connection.driver_connection.row_factory = ended
        session.query(Row).all()
    assert not caplog.records
