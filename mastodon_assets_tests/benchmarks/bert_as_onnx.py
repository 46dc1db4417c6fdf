"""Conversion of a BERT in Hugging Face's layout to ONNX.

    python -m mastodon_assets_tests.benchmarks.bert_as_onnx FOLDER OUT --inner 3 4 5

Reads `config.json`, `model.safetensors` and `tokenizer.json`; writes `OUT/model.onnx` and
`OUT/tokenizer.json`, a folder for SENTIMENT_EMBEDDING_DIR. Needs no PyTorch. `--inner` adds outputs
for these layers, counted from 1.
"""

import argparse
import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

# The first with LayerNormalization and Gelu as operators.
_OPSET = 20


class _Graph:
    """The nodes and weights of a model; a value has the name of the node that computes it."""

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._weights = weights

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def constant(self, values: NDArray[Any] | np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def weight(self, name: str) -> str:
        return self.constant(self._weights[name])

    def dense(self, value: str, name: str) -> str:
        product = self.add("MatMul", value, self.constant(self._weights[f"{name}.weight"].T))
        return self.add("Add", product, self.weight(f"{name}.bias"))

    def normalized(self, value: str, name: str, epsilon: float) -> str:
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", value, scale, bias, epsilon=epsilon)


def convert(source: Path, target: Path, inner: Collection[int] = ()) -> None:
    """Write the two files in `target` from the three in `source`."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    model = bert(config, load_file(source / "model.safetensors"), inner)
    onnx.checker.check_model(model)
    target.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target / "model.onnx")
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")


def bert(
    config: Mapping[str, Any], weights: Mapping[str, NDArray[Any]], inner: Collection[int]
) -> onnx.ModelProto:
    """Build the encoder of Devlin et al. 2018, from the weights of Hugging Face's BertModel.

    Inputs are input_ids and attention_mask, both int64 of shape (texts, tokens). Outputs are
    last_hidden_state and `hidden_states.N` for each of the layers `inner`.
    """
    graph = _Graph(weights)
    heads, epsilon = config["num_attention_heads"], config["layer_norm_eps"]
    each = config["hidden_size"] // heads
    hidden = _embedded(graph, epsilon)
    # Added to the scores: zero for a token, practically minus infinity for padding.
    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    mask = graph.add("Sub", mask, graph.constant(np.float32(1)))
    mask = graph.add("Mul", mask, graph.constant(np.float32(10_000)))
    mask = graph.add("Unsqueeze", mask, graph.constant(np.array([1, 2])))
    split = graph.constant(np.array([0, 0, heads, each]))
    joined = graph.constant(np.array([0, 0, heads * each]))
    scale = graph.constant(np.float32(each**-0.5))
    given = {}
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        query, key, value = (
            graph.add("Reshape", graph.dense(hidden, f"{layer}.attention.self.{part}"), split)
            for part in ("query", "key", "value")
        )
        scores = graph.add(
            "MatMul",
            graph.add("Transpose", query, perm=[0, 2, 1, 3]),
            graph.add("Transpose", key, perm=[0, 2, 3, 1]),
        )
        scores = graph.add("Add", graph.add("Mul", scores, scale), mask)
        seen = graph.add(
            "MatMul",
            graph.add("Softmax", scores, axis=-1),
            graph.add("Transpose", value, perm=[0, 2, 1, 3]),
        )
        seen = graph.add("Reshape", graph.add("Transpose", seen, perm=[0, 2, 1, 3]), joined)
        seen = graph.dense(seen, f"{layer}.attention.output.dense")
        hidden = graph.normalized(
            graph.add("Add", seen, hidden), f"{layer}.attention.output.LayerNorm", epsilon
        )
        wide = graph.add("Gelu", graph.dense(hidden, f"{layer}.intermediate.dense"))
        wide = graph.dense(wide, f"{layer}.output.dense")
        hidden = graph.normalized(
            graph.add("Add", wide, hidden), f"{layer}.output.LayerNorm", epsilon
        )
        if number + 1 in inner:
            given[f"hidden_states.{number + 1}"] = hidden
    given = {"last_hidden_state": hidden, **given}
    for name, value in given.items():
        graph.nodes.append(helper.make_node("Identity", [value], [name]))
    shape = ["texts", "tokens"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape)
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [*shape, config["hidden_size"]])
        for name in given
    ]
    made = helper.make_graph(graph.nodes, "bert", inputs, outputs, graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)


def _embedded(graph: _Graph, epsilon: float) -> str:
    words = graph.add("Gather", graph.weight("embeddings.word_embeddings.weight"), "input_ids")
    count = graph.add("Gather", graph.add("Shape", "input_ids"), graph.constant(np.array(1)))
    places = graph.add("Range", graph.constant(np.array(0)), count, graph.constant(np.array(1)))
    positions = graph.add("Gather", graph.weight("embeddings.position_embeddings.weight"), places)
    # A single text has token type 0.
    kind = graph.add(
        "Gather",
        graph.weight("embeddings.token_type_embeddings.weight"),
        graph.constant(np.array(0)),
    )
    summed = graph.add("Add", graph.add("Add", words, positions), kind)
    return graph.normalized(summed, "embeddings.LayerNorm", epsilon)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="FOLDER")
    parser.add_argument("target", type=Path, metavar="OUT")
    parser.add_argument("--inner", type=int, nargs="+", default=(), metavar="LAYER")
    arguments = parser.parse_args()
    convert(arguments.source, arguments.target, arguments.inner)


if __name__ == "__main__":
    main()
