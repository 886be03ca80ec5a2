"""The names of the protocol, and a server's words as text."""

from tritonclient.grpc import service_pb2

from bottlefit_jax.protocol import names
from bottlefit_jax.protocol.text import one_line


def test_the_service_has_its_published_name():
    assert service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name == names.SERVICE


def test_what_a_server_says_becomes_one_line_without_control_characters():
    assert one_line("a\n\x1b[31mb\t c") == "a [31mb c"
    assert one_line("x" * 500) == "x" * 300 + "…"
    assert one_line("x" * 10_000_000, 10) == "x" * 10 + "…"
