"""A small embedding model of random weights, in a folder as Hugging Face lays it out; texts of it are made words."""

from __future__ import annotations

import json
import random
import struct
from array import array
from itertools import product
from pathlib import Path
from string import ascii_lowercase

HIDDEN, HEADS, LAYERS, INNER, WORDS, POSITIONS = 64, 2, 2, 128, 500, 64


def pieces() -> list[str]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "?"]
    letters = [*ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase)]
    return (special + letters + ["".join(pair) for pair in product(ascii_lowercase, repeat=2)])[:WORDS]


def _tensors(layers: int) -> list[tuple[str, list[int], float, float]]:
    """Name, shape, middle, spread."""
    found = [
        ("embeddings.word_embeddings.weight", [WORDS, HIDDEN], 0.0, 0.5),
        ("embeddings.position_embeddings.weight", [POSITIONS, HIDDEN], 0.0, 0.1),
        ("embeddings.token_type_embeddings.weight", [2, HIDDEN], 0.0, 0.1),
    ]

    def norm(name):
        found.extend([(f"{name}.weight", [HIDDEN], 1.0, 0.1), (f"{name}.bias", [HIDDEN], 0.0, 0.1)])

    norm("embeddings.LayerNorm")
    for layer in range(layers):
        of = f"encoder.layer.{layer}."
        linear = [(f"attention.self.{part}", HIDDEN, HIDDEN) for part in ("query", "key", "value")]
        linear += [
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", HIDDEN, INNER),
            ("output.dense", INNER, HIDDEN),
        ]
        for name, inputs, outputs in linear:
            found += [
                (f"{of}{name}.weight", [outputs, inputs], 0.0, inputs**-0.5),
                (f"{of}{name}.bias", [outputs], 0.0, 0.1),
            ]
        norm(f"{of}attention.output.LayerNorm")
        norm(f"{of}output.LayerNorm")
    return found


def write_model(folder: Path, seed: int = 1, layers: int = LAYERS, **own) -> Path:
    """Writes a model; keywords go into `llmcache.json`. A text takes the longer, the more layers there are."""
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_hidden_layers": layers,
        "intermediate_size": INNER,
        "vocab_size": WORDS,
        "max_position_embeddings": POSITIONS,
    }
    tokenizer = {
        "normalizer": {"type": "BertNormalizer", "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "vocab": {piece: number for number, piece in enumerate(pieces())},
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    (folder / "llmcache.json").write_text(json.dumps(own))
    chance, header, data = random.Random(seed), {}, array("f")
    for name, shape, middle, spread in _tensors(layers):
        start, count = len(data) * 4, shape[0] * (shape[1] if len(shape) > 1 else 1)
        data.extend(chance.gauss(middle, spread) for _ in range(count))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, len(data) * 4]}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data.tobytes())
    return folder


def models_option(**folders: Path) -> str:
    """The value of `llmcache.embed-models`."""
    return ";".join(f"{name}={folder}" for name, folder in folders.items())
