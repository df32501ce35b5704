"""What has to be known of an ONNX file before ONNX Runtime opens it."""

from collections.abc import Iterator

_NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Fields of each protobuf message of onnx.proto that lead to tensors."""

_EXTERNAL_DATA = 13
_DATA_LOCATION = 14
"""Fields of a TensorProto; either says that the tensor's values are in another file."""

_GRAPH, _NODE, _OUTPUT, _OPERATION = 7, 1, 12, 4
"""Fields of a ModelProto, of a GraphProto (two), and of a NodeProto, whose inputs are field 1 and outputs field 2."""

_PASSING = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operations that leave values as they are."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""


def has_external_data(content: bytes) -> bool:
    """Whether any tensor of a model keeps its values in another file.

    Walks the protobuf messages themselves, so that neither the onnx package nor ONNX Runtime touches a path that the
    file names.

    Parameters
    ----------
    content: bytes
        The ONNX file.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        Raised if the content is no protobuf message.
    """
    if not content:
        raise ValueError("it is empty")
    waiting = [("model", memoryview(content))]
    while waiting:
        kind, message = waiting.pop()
        for field, value in _fields(message):
            if kind == "tensor" and field in (_EXTERNAL_DATA, _DATA_LOCATION) and value != 0:
                return True
            nested = _NESTED[kind].get(field)
            if nested is not None and isinstance(value, memoryview):
                waiting.append((nested, value))
    return False


def last_operation(content: bytes) -> str:
    """Operation that makes the first output of a model, but for those that only pass on or reshape; "" if unknown.

    Parameters
    ----------
    content: bytes
        The ONNX file, which `has_external_data` could read.
    """
    made: dict[bytes, tuple[str, bytes]] = {}
    output = b""
    for graph in _messages(memoryview(content), _GRAPH):
        output = output or next((bytes(name) for one in _messages(graph, _OUTPUT) for name in _messages(one, 1)), b"")
        for node in _messages(graph, _NODE):
            operation = b"".join(map(bytes, _messages(node, _OPERATION))).decode(errors="replace")
            source = next(map(bytes, _messages(node, 1)), b"")
            made |= {bytes(name): (operation, source) for name in _messages(node, 2)}
    operation = ""
    # A cycle, which is no network, ends as well.
    for _ in range(len(made)):
        operation, output = made.get(output, ("", b""))
        if operation not in _PASSING:
            break
    return operation


def _messages(message: memoryview, field: int) -> Iterator[memoryview]:
    """The messages or texts in one field of a protobuf message."""
    return (value for number, value in _fields(message) if number == field and isinstance(value, memoryview))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every field of a protobuf message; fixed-width values as bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        wire = key & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            length, position = _varint(message, position)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
        if position + length > len(message):
            raise ValueError("it ends in the middle of a field")
        yield key >> 3, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A variable-length integer and the position after it."""
    value = shift = 0
    while position < len(message) and shift < 70:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number does not end")
