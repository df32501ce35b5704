"""One network of a committee's ONNX file, alone."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import onnx

LOGITS = "logits"
"""Name of a network's output."""


def member_name(number: int) -> str:
    """Name, within a committee's file, of what one of its networks answers."""
    return f"fold_{number}"


def write_member(source: Path, target: Path, number: int) -> None:
    """Write a folder with the model.onnx and model.json of one network of a committee.

    Parameters
    ----------
    source, target: Path
        Folders of the committee and of the network alone, which is made.
    number: int
        Which network: the fold that it has not seen.
    """
    shutil.copytree(source, target)
    keep_output(target / "model.onnx", member_name(number))
    sign(target, json.loads((target / "model.json").read_text()))


def keep_output(path: Path, name: str) -> None:
    """Leave one output of an ONNX file, in place.

    Parameters
    ----------
    path: Path
    name: str
        Of an output, or of a map within that has the shape of the first output.
    """
    model = onnx.load(path)
    outputs = model.graph.output
    kept = onnx.ValueInfoProto()
    kept.CopyFrom(outputs[0])
    kept.name = name
    del outputs[:]
    outputs.append(kept)
    onnx.save(model, path)


def sign(folder: Path, manifest: dict[str, Any]) -> None:
    """Write model.json with the sha256 of the model.onnx beside it."""
    manifest["sha256"] = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(manifest, indent=2) + "\n")
