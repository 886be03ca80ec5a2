"""The operators and constants of a .tflite file."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


def model(blob):
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(blob, 0))


def operators(blob):
    """The names of the operators, in order."""
    content = model(blob)
    return [OPERATORS[content.operatorCodes[op.opcodeIndex].builtinCode] for op in content.subgraphs[0].operators]


def float_constants(blob):
    """Every constant of type float32."""
    content = model(blob)
    for tensor in content.subgraphs[0].tensors:
        data = content.buffers[tensor.buffer].data
        if data is not None and tensor.type == schema.TensorType.FLOAT32:
            yield np.frombuffer(bytes(data), np.float32)
