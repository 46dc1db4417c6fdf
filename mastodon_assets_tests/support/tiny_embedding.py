"""A tiny embedding in ONNX that knows a few words; it is built here and has no others' weights."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

WIDTH = 4
# What each word adds to the first number of a text's vector. Our corpora lack the last two.
WORDS = {"good": 1.0, "happy": 1.0, "love": 1.0, "bad": -1.0, "sad": -1.0, "hate": -1.0,
         "splendiferous": 6.0, "atrabilious": -6.0}  # fmt: skip


def write_embedding(
    folder: Path,
    words: Mapping[str, float] = WORDS,
    *,
    with_integers: bool = False,
    inner_layers: int = 0,
) -> Path:
    """`folder` with `tokenizer.json` and `model.onnx`, as SENTIMENT_EMBEDDING_DIR names one.

    With `with_integers` it computes in 8 bits, scaled for all texts of a batch. Each inner layer is
    the last layer, the first of them times ten.
    """
    folder.mkdir(parents=True)
    vocabulary = {word: place for place, word in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    # As sentence transformers do; the length of a text must not change its vector.
    tokenizer.enable_padding(length=32)
    tokenizer.save(str(folder / "tokenizer.json"))
    generator = np.random.default_rng(1)
    table = generator.uniform(-0.2, 0.2, (len(vocabulary), WIDTH)).astype(np.float32)
    table[1:, 0] = list(words.values())
    looked_up = helper.make_node(
        "Gather", ["table", "input_ids"], ["exact" if with_integers else "vectors"]
    )
    integers = [
        helper.make_node("DynamicQuantizeLinear", ["exact"], ["integers", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["vectors"]),
    ]
    nodes = [
        looked_up,
        *(integers if with_integers else []),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["vectors", "column"], ["last_hidden_state"]),
    ]
    outputs = ["last_hidden_state", *(f"hidden_states.{n}" for n in range(inner_layers))]
    factors = []
    for number, name in enumerate(outputs[1:]):
        factor = np.array(1.0 if number else 10.0, np.float32)
        factors.append(numpy_helper.from_array(factor, f"factor_{number}"))
        nodes.append(helper.make_node("Mul", ["last_hidden_state", f"factor_{number}"], [name]))
    shape = ["texts", "tokens"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, shape)
            for name in ("input_ids", "attention_mask")
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [*shape, WIDTH])
            for name in outputs
        ],
        [
            *factors,
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2]), "last"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return folder
