import socket
import sys

import pytest

from bottlefit_jax.edge.tcp_counters import Meter

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def connect():
    """A function that opens connections to one port."""
    opened = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def connect():
            opened.append(socket.create_connection(listening.getsockname()))
            opened.append(listening.accept()[0])
            return opened[-2]

        connect.port = listening.getsockname()[1]
        yield connect
        for one in opened:
            one.close()


def test_only_the_connection_that_came_after_the_meter_counts(connect):
    connect().sendall(bytes(7))
    meter = Meter(connect.port)
    meter.find()
    assert meter.sent() is None
    connection = connect()
    meter.find()
    before = meter.sent()
    connection.sendall(bytes(100))
    after = meter.sent()
    assert before is not None
    assert after is not None
    assert (after.bytes - before.bytes, after.connection) == (100, before.connection)
    connection.close()
    assert meter.sent() is None


def test_one_of_several_matching_connections_is_not_counted(connect):
    meter = Meter(connect.port)
    connect()
    connect()
    meter.find()
    assert meter.sent() is None


def test_a_connection_is_counted_by_one_meter(connect):
    first, second = Meter(connect.port), Meter(connect.port)
    connect()
    first.find()
    second.find()
    assert first.sent() is not None
    assert second.sent() is None
    connect()
    second.find()
    mine, others = second.sent(), first.sent()
    assert mine is not None
    assert others is not None
    assert mine.connection != others.connection
    first.close()
    second.close()
