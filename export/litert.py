"""Makes LiteRT files without TensorFlow: JAX -> StableHLO -> .tflite, and from there float16 and int8.

The same arguments give the same bytes. The libraries write to file descriptors 1 and 2, so both are silenced while a
library runs.
"""

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bottlefit_jax.cli.silence import silenced
from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.errors import UserError
from bottlefit_jax.models.network import Network
from export.folding import Folded
from export.head import float_head
from export.tracing import plain_convolutions

SIGNATURE = "serving_default"
# Every image has its own extremes of a tensor. A range for the extremes of 95 % of the images had 0.8 times the error
# of one for all of them: a finer step for all values is worth the few that saturate.
QUANTILE = 0.95


def to_tflite(
    function: Callable[[jax.Array], jax.Array], image_shape: Sequence[int], *, output_name: str = "latent"
) -> bytes:
    """Convert a function of one image to a float32 model with the input `image`.

    Args:
        function: `[1, H, W, 3]` uint8 -> float32.
        image_shape: (1, H, W, 3).
        output_name: of the model.
    """
    exported = jax.export.export(jax.jit(function), platforms=["cpu"])(
        jax.ShapeDtypeStruct(tuple(image_shape), jnp.uint8)
    )
    with _library():
        api: Any = importlib.import_module("litert_converter.converter_api_ext")
        ir: Any = importlib.import_module("litert_converter.mlir.ir")
        passes: Any = importlib.import_module("litert_converter.mlir.passmanager")
        with ir.Context() as context, ir.Location.unknown():
            api.prepare_mlir_context(context)
            module = ir.Module.parse(exported.mlir_module())
            # JAX's names of scopes and functions would become names of tensors, half a kilobyte of an int8 head.
            passes.PassManager.parse("builtin.module(strip-debuginfo)").run(module.operation)
            main = next(op for op in module.body.operations if op.attributes["sym_name"].value == "main")
            api.set_signature(main, SIGNATURE, ["image"], [output_name])
            api.run_convert_to_tfl_passes(module, passes.PassManager(), api.ConvertToTFLConfig())
            return bytes(api.export_flatbuffer_to_bytes(module.operation))


def to_float16(blob: bytes) -> bytes:
    """Give a float32 model float16 weights; it still computes in float32."""
    with _library():
        from ai_edge_quantizer import qtyping, quantizer, recipe_manager

        recipe = recipe_manager.RecipeManager()
        config = qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        )
        names = qtyping.TFLOperationName
        for operator in (names.CONV_2D, names.DEPTHWISE_CONV_2D, names.FULLY_CONNECTED):
            recipe.add_quantization_config(".*", operator, config, algorithm_key=quantizer.AlgorithmName.FLOAT_CASTING)
        result = quantizer.Quantizer(bytearray(blob), recipe.get_quantization_recipe()).quantize()
        assert result.quantized_model is not None
        return bytes(result.quantized_model)


def to_int8(blob: bytes, images: Sequence[np.ndarray], *, latent_range: tuple[float, float] | None = None) -> bytes:
    """Quantise a float32 model to int8 weights and values and a uint8 result; the mean is subtracted in float32.

    Args:
        blob: from `to_tflite` of an `integer_head`.
        images: [H, W, 3] uint8 each, to measure the ranges of the values with.
        latent_range: (low, high) that the result's 8 bits span, widened to contain 0 as `codec.static_range` does;
            None: as measured.

    Raises:
        UserError: there are no images, or one has another shape or type than the head takes.
    """
    if len(images) == 0:
        raise UserError("an int8 head needs at least one calibration image, and there are none")
    model = Interpreter(blob)
    for number, image in enumerate(images):
        if image.shape != model.input_shape or image.dtype != np.uint8:
            raise UserError(
                f"calibration image {number} is {image.dtype} {image.shape}; the head takes uint8 {model.input_shape}"
            )
    with _library():
        from ai_edge_quantizer import quantizer

        model_quantizer = quantizer.Quantizer(bytearray(blob), _int8_recipe())
        measured = [model_quantizer.calibrate({SIGNATURE: [{"image": image[None]}]}, num_threads=1) for image in images]
        ranges: dict[str, Any] = {name: _merge([result[name] for result in measured]) for name in measured[0]}
        _set_known_ranges(blob, ranges)
        if latent_range is not None:
            low, high = min(latent_range[0], 0.0), max(latent_range[1], 0.0)
            latent = ranges[model.output_name]
            latent.update(min=np.full_like(latent["min"], low), max=np.full_like(latent["max"], high))
        result = model_quantizer.quantize(ranges)
        assert result.quantized_model is not None
        return bytes(result.quantized_model)


def local_tflite(module: Network, variables: Mapping[str, Any], folded: Folded) -> bytes:
    """Convert the whole student without its quantiser to a float32 model: raw image -> logits `[1, classes]`.

    Args:
        module: a student.
        variables: its collections.
        folded: its encoder.
    """
    encode = float_head(folded)
    module = module.clone(dtype=jnp.float32)

    def logits(image: jax.Array) -> jax.Array:
        with plain_convolutions():
            latent = encode(image)
            return module.apply(variables, latent, image_size=folded.image_size, method="decode")[0]  # pyright: ignore

    return to_tflite(logits, (1, *folded.image_size, 3), output_name="logits")


def _int8_recipe() -> list[dict[str, Any]]:
    """Make the recipe: int8 with weights by channel, a uint8 result, and the subtraction of the mean in float32."""
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    names = qtyping.TFLOperationName
    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(".*", names.ALL_SUPPORTED, 8, 8)
    result = qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=8,
            symmetric=False,
            granularity=qtyping.QuantGranularity.TENSORWISE,
            dtype=qtyping.TensorDataType.UINT,
        ),
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=8, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE
        ),
        compute_precision=qtyping.ComputePrecision.INTEGER,
        explicit_dequantize=False,
    )
    recipe.add_quantization_config(".*", names.OUTPUT, result)
    recipe.add_quantization_config(".*", names.SUB, None, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
    return recipe.get_quantization_recipe()


def _merge(measured: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Make one range of a tensor from its ranges on each image.

    The quantizer itself takes a moving average, which depends on the order of the images and loses all extremes.
    """
    low, high = (np.stack([np.asarray(image[key], np.float32) for image in measured]) for key in ("min", "max"))
    return {
        **measured[0],
        "min": np.quantile(low, 1 - QUANTILE, axis=0).astype(np.float32),
        "max": np.quantile(high, QUANTILE, axis=0).astype(np.float32),
    }


def _set_known_ranges(blob: bytes, ranges: dict[str, Any]) -> None:
    """Give pixels the range 0..255, in which int8 holds them exactly, and moved values the range of their source.

    With another range than its source's, an operator that only moves values would need a conversion.
    """
    schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromPackedBuf(blob, 0)
    graph, kinds = model.subgraphs[0], schema.BuiltinOperator
    moving = (kinds.RESHAPE, kinds.PAD, kinds.SLICE, kinds.CONCATENATION, kinds.TRANSPOSE, kinds.MAX_POOL_2D)
    for operator in graph.operators:
        kind = model.operatorCodes[operator.opcodeIndex].builtinCode
        source, result = (graph.tensors[ends[0]].name.decode() for ends in (operator.inputs, operator.outputs))
        if kind in moving:
            ranges[result] = ranges[source]
        elif kind == kinds.CAST and (known := ranges.get(result)):
            ranges[result] = known | {"min": np.zeros_like(known["min"]), "max": np.full_like(known["max"], 255)}


@contextmanager
def _library() -> Iterator[None]:
    """Silence a library while it runs; a missing one is a UserError."""
    try:
        with silenced(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImportError as error:
        raise UserError(f"export needs {error.name}: pip install 'bottlefit-jax[export]'") from error
