import onnx
import pytest
from onnx import TensorProto, helper

from bottlefit_jax.errors import UserError
from export.tensorrt_operators import check_operators, read_tables


def model_of(*kinds, opset=13, domain=""):
    nodes = [helper.make_node(kind, ["x"], [f"y{number}"], domain=domain) for number, kind in enumerate(kinds)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "y0"))
    return helper.make_model(
        helper.make_graph(nodes, "test", [x], [y]), opset_imports=[helper.make_opsetid(domain, opset)]
    )


def test_operators_that_both_versions_parse_are_accepted():
    check_operators(model_of("Relu", "Transpose", "Clip", "Identity"))


def test_every_operator_outside_the_tables_is_listed_once():
    expected = (
        r"parse: Det \(TensorRT 8\.2 and 10\), LayerNormalization \(TensorRT 8\.2\), Unique \(TensorRT 8\.2 and 10\)$"
    )
    with pytest.raises(UserError, match=expected):
        check_operators(model_of("Unique", "Relu", "Det", "LayerNormalization", "Det"))


def test_operators_of_another_domain_are_refused():
    with pytest.raises(UserError, match=r"com\.microsoft\.Relu \(TensorRT 8\.2 and 10\)"):
        check_operators(model_of("Relu", domain="com.microsoft"))


def test_a_newer_operator_set_is_refused():
    with pytest.raises(UserError, match=r"the operator set ai\.onnx 14; TensorRT 8\.2 reads ai\.onnx up to 13"):
        check_operators(model_of("Relu", opset=14))


def test_the_tables_cite_their_source():
    tables = read_tables()
    assert {version: table["newest_opset"] for version, table in tables.items()} == {"8.2": 13, "10": 20}
    for table in tables.values():
        source = table["source"]
        assert source["repository"] == "https://github.com/onnx/onnx-tensorrt"
        assert (len(source["commit"]), source["file"]) == (40, "docs/operators.md")
        known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
        unknown = {name for name in table["operators"] if name not in known}
        assert len(unknown) < 10, unknown  # TensorRT's plugins
