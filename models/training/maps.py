"""The maps of the shipped lesion networks, on which the classifier stands, and the file that they become together."""

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime
import torch
from onnx import compose
from torch import Tensor, nn

from models.training.export import export
from models.training.member import LOGITS
from models.training.networks import Both, Classifier, Classifiers

# The last map on the way up is as large as the first, so it takes longest, and tells no more.
_MAP = re.compile(
    r"/networks\.(\d+)/(stem/stem\.2|encoder\.\d+/encoder\.\d+\.1|decoder\.[1-9]\d*/decoder\.\d+\.2)/Relu_output_0"
)


class Maps:
    """The networks of a committee's ONNX file, cut to their maps on the way down and up.

    Parameters
    ----------
    path: Path
        A committee of `UNet`, from `export_committee`.
    size: tuple[int, int]
        Rows and columns of the images that it is to see now.

    Attributes
    ----------
    model: onnx.ModelProto
        One input "image", and the maps as outputs, network by network.
    size: tuple[int, int]
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        model = onnx.load(path)
        made = {name for node in model.graph.node for name in node.output}
        found = sorted((int(match[1]), match[0]) for match in map(_MAP.fullmatch, made) if match)
        # Of a map in 8 bits, what the next convolution sees of it.
        quantised = [f"{name}_DequantizeLinear_Output" for _, name in found]
        names = [name if name in made else plain for name, (_, plain) in zip(quantised, found, strict=True)]
        # Shapes that were inferred for images of another size.
        del model.graph.value_info[:]
        for dimension, length in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], size, strict=True):
            dimension.dim_value = length
        del model.graph.output[:]
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4) for name in names
        )
        self.model = onnx.utils.Extractor(model).extract_model(["image"], names)
        self.size = size
        self._networks = len({network for network, _ in found})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            self.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: Tensor) -> list[list[Tensor]]:
        """The maps of each network, shape (images, channels, rows, columns) each; several threads may ask at once."""
        maps = [torch.from_numpy(map_) for map_ in self._session.run(None, {"image": images.contiguous().numpy()})]
        each = len(maps) // self._networks
        return [maps[start : start + each] for start in range(0, len(maps), each)]


def export_classifiers(maps: Maps, classifiers: Sequence[Classifier], path: Path) -> None:
    """Write one ONNX file that shows images and their mirror images to the networks, and classifies what they see.

    Parameters
    ----------
    maps: Maps
    classifiers: Sequence[Classifier]
        One for each network.
    path: Path
        Gets an input "image" and an output "logits", shape (images, 1): the mean of all classifiers' answers.
    """
    image = torch.zeros(1, 1, *maps.size)
    seen = [map_ for network in maps(Both()(image)) for map_ in network]
    numbered = [f"map_{number}" for number in range(len(seen))]
    both = compose.add_prefix(
        _exported(Both(), [image], ["image"], ["both"]), "both/", rename_inputs=False, rename_outputs=False
    )
    networks = compose.add_prefix(maps.model, "maps/")
    answer = _exported(Classifiers(classifiers), seen, numbered, [LOGITS])
    networks.ir_version = both.ir_version = answer.ir_version
    whole = compose.merge_models(both, networks, [("both", "maps/image")])
    outputs = [output.name for output in whole.graph.output]
    whole = compose.merge_models(whole, answer, list(zip(outputs, numbered, strict=True)))
    # Each part called its number of images the same.
    del whole.graph.value_info[:]
    onnx.checker.check_model(whole)
    onnx.save(whole, path)


def _exported(
    network: nn.Module, examples: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    with TemporaryDirectory() as folder:
        export(network, examples, Path(folder) / "model.onnx", inputs, outputs)
        return onnx.load(Path(folder) / "model.onnx")
