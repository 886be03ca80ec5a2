"""The guide's table of metrics, the dashboard and the alerts, against what a real server exports."""

import json
import re
import sys
import urllib.request

import grpc
import numpy as np
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bottlefit_jax.serve.load import main as load
from tests.edge.conftest import SIZE
from tests.operations import ROOT, device, table, write
from tests.operations.test_certificates import make_files
from tests.serve import example

FOLDER = ROOT / "docs" / "service"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
RULES = [
    rule for group in yaml.safe_load((FOLDER / "prometheus-rules.yml").read_text())["groups"] for rule in group["rules"]
]
TARGET = {"job", "instance"}  # labels that Prometheus adds
UP = {"up": TARGET}  # its own metric
QUERIES = {
    **{
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    },
    **{rule["alert"]: rule["expr"] for rule in RULES},
}


@pytest.fixture(scope="module")
def families(bundle, tmp_path_factory):
    """The metrics of a server with TLS that has answered and refused calls."""
    folder = tmp_path_factory.mktemp("server")
    make_files(folder)
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    one = write(folder / "bundles" / "digits-1", bundle)
    files = {"tls_cert": folder / "server.pem", "tls_key": folder / "server.key", "tls_client_ca": folder / "ca.pem"}
    own = {"tls_ca": folder / "ca.pem", "tls_cert": folder / "device.pem", "tls_key": folder / "device.key"}
    with example.serving(parents=[folder / "bundles"], metrics_port=0, repository_port=0, **files) as server:
        with device(one, f"localhost:{server.port}", **own) as client:
            client.infer(image)
            client.infer(image)
        assert load(["--server", f"127.0.0.1:{server.repository_port}", "nothing"]) == 2
        with example.channel_to(f"127.0.0.1:{server.repository_port}") as channel:
            code, _ = example.status_of(example.raw_method(channel, "ModelInfer"), b"\xff")
            assert code == grpc.StatusCode.INVALID_ARGUMENT
        with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=60) as response:
            return list(text_string_to_metric_families(response.read().decode()))


@pytest.fixture(scope="module")
def exported(families):
    """Name of a series -> the labels that it has in one sample or another."""
    series = {}
    for family in families:
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    return series


def test_the_guide_lists_every_metric_with_its_type_and_labels(families):
    found = {}
    for family in families:
        if family.samples and not all(sample.name.endswith("_created") for sample in family.samples):
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found[_name(family)] = (family.type, labels)
    listed = {row[0].strip("`"): (row[1], {label for label in row[2].split(", ") if label}) for row in table("metric")}
    if sys.platform != "linux":
        listed = {name: row for name, row in listed.items() if not name.startswith("process_")}
    assert found == listed


def _name(family):
    """The name that a query has, without what a histogram adds."""
    names = {sample.name for sample in family.samples}
    return f"{family.name}_total" if f"{family.name}_total" in names else family.name


def _selectors(query):
    """(metric, labels) of all selectors of a query, and all labels that it groups or joins by."""
    selectors, grouped = [], set()

    def visit(node):
        if isinstance(node, promql_parser.MatrixSelector):
            visit(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            selectors.append((node.name, {matcher.name for matcher in node.matchers.matchers}))
        elif isinstance(node, promql_parser.AggregateExpr):
            grouped.update(node.modifier.labels if node.modifier else ())
            visit(node.expr)
        elif isinstance(node, promql_parser.BinaryExpr):
            if node.modifier is not None and node.modifier.matching is not None:
                grouped.update(node.modifier.matching.labels)
            visit(node.lhs)
            visit(node.rhs)
        elif isinstance(node, promql_parser.Call):
            for argument in node.args:
                visit(argument)
        elif isinstance(node, promql_parser.ParenExpr | promql_parser.UnaryExpr | promql_parser.SubqueryExpr):
            visit(node.expr)
        else:
            assert isinstance(node, promql_parser.NumberLiteral | promql_parser.StringLiteral), node

    visit(promql_parser.parse(query.replace("$__rate_interval", "1m")))
    return selectors, grouped


def unknown_in(query, known):
    """The metrics and labels of a query that are not among the known ones."""
    selectors, grouped = _selectors(query)
    unknown = {name for name, _ in selectors if name not in known}
    labels = [known.get(name, set()) | TARGET for name, _ in selectors]
    unknown |= {label for (_, used), has in zip(selectors, labels, strict=True) for label in used - has}
    return unknown | (grouped - set().union(*labels))


@pytest.mark.skipif(sys.platform != "linux", reason="process_* is there on Linux alone")
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_every_query_has_metrics_and_labels_that_a_server_exports(query, exported):
    assert unknown_in(query, {**exported, **UP}) == set()


def test_a_query_of_something_else_is_found(exported):
    for query, unknown in (
        ("sum by (verb) (rate(bottlefit_requests_total[1m]))", {"verb"}),
        ('bottlefit_queue_length{status="OK"} > 1', {"status"}),
        ("histogram_quantile(0.5, rate(bottlefit_queue_seconds[1m]))", {"bottlefit_queue_seconds"}),
        ("bottlefit_build_info unless on (host) bottlefit_model_info", {"host"}),
    ):
        assert unknown_in(query, exported) == unknown


def test_the_statuses_in_the_queries_are_grpcs():
    names = {code.name for code in grpc.StatusCode}
    used = {
        status
        for query in QUERIES.values()
        for found in re.findall(r'status!?=~?"(.*?)"', query)
        for status in found.split("|")
    }
    assert used <= names
    assert len(used) > 5


def test_legends_and_summaries_have_labels_that_their_queries_leave():
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            used = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            by = re.search(r"by \(([^)]*)\)", target["expr"])
            assert by is None or used <= set(by[1].split(", ")), panel["title"]
    for rule in RULES:
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        by = re.search(r"by \(([^)]*)\)", rule["expr"])
        assert by is None or used <= set(by[1].split(", ")), rule["alert"]


def test_the_dashboard_can_be_imported_into_any_grafana(exported):
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    used = {*re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"]))}
    assert used - {"__rate_interval"} <= variables.keys()
    for panel in [*DASHBOARD["panels"], *(each for each in variables.values() if each["type"] == "query")]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for variable in variables.values():
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+).*, (\w+)\)", variable["definition"]).groups()
            assert label in exported[metric] | TARGET
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    squares = [(x + i, y + j) for x, y, w, h in places for i in range(w) for j in range(h)]
    assert len(squares) == len(set(squares))  # no panel lies on another
    assert max(x for x, _ in squares) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_guide_has_every_alert_and_each_says_what_to_do():
    assert [row[0].strip("`") for row in table("alert")] == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["annotations"].keys() == {"summary", "do"}
        assert rule["labels"]["severity"] in ("warning", "critical")
