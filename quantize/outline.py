"""A GGUF file without its weights: the real header, and a hole of the right size behind it.

llama.cpp's quantiser and memory planner read headers alone, so that a model can be planned before
anything of it is converted.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from appliance.core.files import replacing
from quantize.convert import add_facts, clean_name
from quantize.origin import Origin
from quantize.tokenizer import read_vocabulary
from quantize.vocabulary import add_vocabulary

_ALIGNMENT = 32


def outline(origin: Origin, target: Path) -> int:
    """Write the outline of `origin`'s F16 file, byte for byte as long; its size.

    Raises:
        ModelRejected: it cannot be converted with proof.
    """
    made, vocabulary = origin.plan, read_vocabulary(origin.checkpoint)
    shapes = {tensor.name: tensor.shape for tensor in made.tensors}
    shapes |= {name: values.shape for name, values in made.extra.items()}
    with replacing(target) as draft:
        writer = GGUFWriter(draft, made.arch)
        try:
            title = vocabulary.title(clean_name(origin.model.name))
            add_facts(writer, made, "F16", title, origin.facts)
            add_vocabulary(writer, vocabulary, origin.checkpoint.chat_template)
            length = 0
            for name, shape in shapes.items():
                kind = "F16" if len(shape) > 1 else "F32"
                size = math.prod(shape) * (2 if kind == "F16" else 4)
                length += padded(size)
                writer.add_tensor_info(
                    name, shape, np.dtype(np.float32), size, raw_dtype=GGMLQuantizationType[kind]
                )
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            stream = (writer.fout or [])[0]
            whole = padded(stream.tell()) + length
            stream.truncate(whole)
        finally:
            writer.close()
    return whole


def padded(size: int) -> int:
    """`size` up to the next multiple of GGUF's default alignment."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT
