#!/usr/bin/env python3
"""Writes the models beside this file, as PyTorch's exporter writes such networks.

    pip install onnx==1.23.2 numpy==2.4.6
    python make_models.py

The weights are random, from a fixed seed: what is tested is the way from ONNX to packed layers.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18


class Graph:
    """Nodes and weights of one model, in the order in which they are added."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes = []
        self.weights = []

    def add(self, op, *inputs, **attributes):
        """A node with one output, whose name is returned."""
        output = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def gemm(self, x, inputs, outputs):
        """Its attributes are written out, as PyTorch does: burn-onnx makes a layer of no other."""
        values = self.random.standard_normal((outputs, inputs)) / np.sqrt(inputs)
        weight = self.constant("fc.weight", values.astype(np.float32))
        bias = self.vector("fc.bias", outputs)
        return self.add("Gemm", x, weight, bias, alpha=1.0, beta=1.0, transB=1)

    def constant(self, name, values):
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, name, *shape):
        """Values whose products with inputs of variance 1 have about variance 1."""
        fan_in = np.prod(shape[1:]) if len(shape) > 2 else shape[0]
        values = self.random.standard_normal(shape) / np.sqrt(fan_in)
        return self.constant(name, values.astype(np.float32))

    def vector(self, name, length, mean=0.0, deviation=0.1):
        values = mean + deviation * self.random.standard_normal(length)
        return self.constant(name, values.astype(np.float32))

    def save(self, name, input_type, input_shape, output, output_shape):
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("input", input_type, input_shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_shape)],
            self.weights,
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, Path(__file__).with_name(f"{name}.onnx"))


def cnn():
    """Convolutions (plain, depthwise, pointwise) with batch norms, a pool, a Gemm at the end."""
    graph = Graph(seed=1)

    def conv(x, name, inputs, outputs, kernel, groups=1, stride=1):
        weight = graph.weight(f"{name}.weight", outputs, inputs // groups, kernel, kernel)
        x = graph.add(
            "Conv",
            x,
            weight,
            kernel_shape=[kernel] * 2,
            pads=[kernel // 2] * 4,
            strides=[stride] * 2,
            group=groups,
        )
        x = graph.add(
            "BatchNormalization",
            x,
            graph.vector(f"{name}.norm.weight", outputs, mean=1.0),
            graph.vector(f"{name}.norm.bias", outputs),
            graph.vector(f"{name}.norm.mean", outputs),
            graph.constant(
                f"{name}.norm.variance",
                graph.random.uniform(0.5, 1.5, outputs).astype(np.float32),
            ),
            epsilon=1e-5,
        )
        return graph.add("Relu", x)

    x = conv("input", "stem", 3, 8, 3, stride=2)
    x = conv(x, "depthwise", 8, 8, 3, groups=8)
    x = conv(x, "pointwise", 8, 16, 1)
    x = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = conv(x, "last", 16, 16, 3)
    x = graph.add("GlobalAveragePool", x)
    x = graph.add("Flatten", x, axis=1)
    x = graph.gemm(x, 16, 10)
    graph.save("cnn", TensorProto.FLOAT, [2, 3, 16, 16], x, [2, 10])


def attention():
    """One encoder layer over token embeddings, and a classifier of its first token."""
    graph = Graph(seed=2)
    batch, tokens, width, heads, hidden, words = 2, 8, 16, 2, 32, 24
    head = width // heads

    def linear(x, name, inputs, outputs):
        x = graph.add("MatMul", x, graph.weight(f"{name}.weight", inputs, outputs))
        return graph.add("Add", x, graph.vector(f"{name}.bias", outputs))

    def norm(x, name):
        scale = graph.vector(f"{name}.weight", width, mean=1.0)
        bias = graph.vector(f"{name}.bias", width)
        return graph.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-5)

    def split(x, name, order):
        shape = graph.constant(name, np.array([batch, tokens, heads, head]))
        return graph.add("Transpose", graph.add("Reshape", x, shape), perm=order)

    words = graph.constant(
        "embedding.weight", graph.random.standard_normal((words, width)).astype(np.float32)
    )
    places = graph.random.standard_normal((1, tokens, width)).astype(np.float32)
    x = graph.add("Gather", words, "input", axis=0)
    x = graph.add("Add", x, graph.constant("positions", places))
    x = norm(x, "norm1")

    query = split(linear(x, "query", width, width), "query.shape", [0, 2, 1, 3])
    key = split(linear(x, "key", width, width), "key.shape", [0, 2, 3, 1])
    value = split(linear(x, "value", width, width), "value.shape", [0, 2, 1, 3])
    scores = graph.add("MatMul", query, key)
    scale = graph.constant("scale", np.array(np.sqrt(head), np.float32))
    scores = graph.add("Softmax", graph.add("Div", scores, scale), axis=-1)
    mixed = graph.add("Transpose", graph.add("MatMul", scores, value), perm=[0, 2, 1, 3])
    shape = graph.constant("mixed.shape", np.array([batch, tokens, width]))
    mixed = graph.add("Reshape", mixed, shape)
    x = norm(graph.add("Add", x, linear(mixed, "output", width, width)), "norm2")

    # GELU, as it is written where the opset has none.
    inner = linear(x, "inner", width, hidden)
    ratio = graph.add("Div", inner, graph.constant("root", np.array(np.sqrt(2), np.float32)))
    error = graph.add("Add", graph.add("Erf", ratio), graph.constant("one", np.float32(1)))
    gelu = graph.add("Mul", graph.add("Mul", inner, error), graph.constant("half", np.float32(0.5)))
    x = norm(graph.add("Add", x, linear(gelu, "outer", hidden, width)), "norm3")

    first = graph.add("Gather", x, graph.constant("first", np.int64(0)), axis=1)
    logits = graph.gemm(first, width, 4)
    graph.save("attention", TensorProto.INT64, [batch, tokens], logits, [batch, 4])


def recurrent():
    """An LSTM in both directions, a GRU, and a classifier of the last step."""
    graph = Graph(seed=3)
    steps, batch, inputs, hidden = 5, 2, 6, 8

    def layer(x, op, inputs, directions, gates, **attributes):
        def matrix(name, columns):
            values = graph.random.standard_normal((directions, gates * hidden, columns))
            values = (values / np.sqrt(columns)).astype(np.float32)
            return graph.constant(f"{op}.{name}", values)

        weights = matrix("W", inputs), matrix("R", hidden)
        bias = graph.random.standard_normal((directions, 2 * gates * hidden)) / 10
        bias = graph.constant(f"{op}.B", bias.astype(np.float32))
        x = graph.add(op, x, *weights, bias, hidden_size=hidden, **attributes)
        # [steps, directions, batch, hidden] to [steps, batch, directions · hidden]
        shape = np.array([steps, batch, directions * hidden])
        shape = graph.constant(f"{op}.shape", shape)
        return graph.add("Reshape", graph.add("Transpose", x, perm=[0, 2, 1, 3]), shape)

    x = layer("input", "LSTM", inputs, 2, 4, direction="bidirectional")
    x = layer(x, "GRU", 2 * hidden, 1, 3, linear_before_reset=1)
    last = graph.add("Gather", x, graph.constant("last", np.int64(-1)), axis=0)
    logits = graph.gemm(last, hidden, 4)
    graph.save("recurrent", TensorProto.FLOAT, [steps, batch, inputs], logits, [batch, 4])


if __name__ == "__main__":
    cnn()
    attention()
    recurrent()
