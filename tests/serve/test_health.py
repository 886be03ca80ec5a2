"""gRPC's health service and server reflection, as probes and grpcurl ask them."""

import time

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from tests.serve import example
from tests.serve.example import status_of

SERVICE = "inference.GRPCInferenceService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return example.write(tmp_path_factory.mktemp("bundle") / "a")


@pytest.fixture(scope="module")
def channel(bundle):
    with example.serving("--bundle", bundle) as running, example.channel_to(running.address) as found:
        yield found


@pytest.mark.parametrize("service", ["", SERVICE])
def test_a_running_server_is_serving(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60).status == SERVING
    assert next(stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=60)).status == SERVING


def test_a_service_that_is_not_here(channel):
    stub, request = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest(service="other.Service")
    assert status_of(stub.Check, request)[0] == grpc.StatusCode.NOT_FOUND
    assert next(stub.Watch(request, timeout=60)).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.mark.skipif(not hasattr(health_pb2, "HealthListRequest"), reason="an older grpcio-health-checking has no List")
def test_the_list_has_every_service(channel):
    listed = health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest(), timeout=60).statuses
    assert {name: answer.status for name, answer in listed.items()} == {"": SERVING, SERVICE: SERVING}


def ask(channel, version, *questions):
    method = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    return [*method(iter([reflection_pb2.ServerReflectionRequest(**question) for question in questions]), timeout=60)]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_the_protocol(channel, version):
    listed, described, unknown = ask(
        channel,
        version,
        {"list_services": ""},
        {"file_containing_symbol": SERVICE},
        {"file_containing_symbol": "no.Such"},
    )
    names = [service.name for service in listed.list_services_response.service]
    assert names == ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", SERVICE]
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(data)
        for data in described.file_descriptor_response.file_descriptor_proto
    ]
    (service,) = [service for file in files for service in file.service]
    assert {"ModelInfer", "ModelStatistics"} <= {method.name for method in service.method}
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_watchers_hear_the_end_and_open_streams_do_not_hold_it_up(bundle):
    with example.serving("--bundle", bundle) as running, example.channel_to(running.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == SERVING
        method = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        reflecting = method(iter(lambda: time.sleep(0.05) or b"", None), timeout=60)
        next(reflecting)
        example.on_loop(running.stop(15))
        assert [answer.status for answer in watch] == [NOT_SERVING]


def test_with_a_token_the_health_is_not_for_everyone(bundle, tmp_path):
    (tmp_path / "token").write_text("s3cret")
    with (
        example.serving("--bundle", bundle, "--token-file", tmp_path / "token") as running,
        example.channel_to(running.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        code, _ = status_of(stub.Check, health_pb2.HealthCheckRequest())
        assert code == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=60))
