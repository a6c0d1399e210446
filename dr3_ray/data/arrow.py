"""Reading an Arrow file that may be damaged or made to harm: mapped, checked whole, and never decompressed."""

import struct
from pathlib import Path

import pyarrow as pa

from dr3_ray.errors import first_line, raise_out_of_memory

MAGIC = b"ARROW1\0\0"  # what a file starts with; the messages of a stream follow
HEADER, COMPRESSION = 2, 3  # slots in the tables Message and RecordBatch of Arrow's Message.fbs


def read_batch(path: Path, schema: pa.Schema) -> pa.RecordBatch:
    """Read the one record batch of a file; its buffers are views of the mapped file.

    Raises:
        ValueError: the file is not readable, has other columns, nulls, several batches, or is compressed.
        UserError: there is no memory for it.
    """
    try:
        with pa.memory_map(str(path)) as file:
            content = file.read_buffer()
        if content.size < len(MAGIC) or content[: len(MAGIC)].to_pybytes() != MAGIC:
            raise ValueError("is not a readable Arrow file")
        messages = pa.ipc.MessageReader.open_stream(pa.BufferReader(content[len(MAGIC) :]))
        layout = pa.ipc.read_schema(messages.read_next_message())
        if _fields(layout) != _fields(schema):
            raise ValueError("does not have the columns that the manifest's spaces ask for")
        message = messages.read_next_message()
        if message.type != "record batch":
            raise ValueError(f"has a {message.type} where its rows should be")
        if is_compressed(message):
            raise ValueError("is compressed, which cannot be mapped")
        batch = pa.ipc.read_record_batch(message, layout)
        _refuse_more(messages)
        batch.validate(full=True)
    except (pa.ArrowException, OSError, MemoryError, StopIteration, EOFError, struct.error) as error:
        raise_out_of_memory(error)
        raise ValueError(f"is not a readable Arrow file ({first_line(error)})") from None
    for name in schema.names:
        column = batch.column(name)
        values = column.values if pa.types.is_fixed_size_list(column.type) else column
        if column.null_count or values.null_count:
            raise ValueError(f"has nulls in {name}")
    return batch


def is_compressed(message: pa.ipc.Message) -> bool:
    """Return whether the body of a record batch is compressed, by its metadata (a flatbuffer) alone."""
    metadata = message.metadata.to_pybytes()
    (root,) = struct.unpack_from("<I", metadata)
    slot = _slot(metadata, root, HEADER)
    batch = slot + struct.unpack_from("<I", metadata, slot)[0]
    return _slot(metadata, batch, COMPRESSION) != 0


def _slot(flatbuffer: bytes, table: int, number: int) -> int:
    """Return the offset of a table's field; 0 if the field is missing.

    Arrow has checked the flatbuffer when it read the message.
    """
    vtable = table - struct.unpack_from("<i", flatbuffer, table)[0]
    at = 4 + 2 * number
    if at >= struct.unpack_from("<H", flatbuffer, vtable)[0]:
        return 0
    (offset,) = struct.unpack_from("<H", flatbuffer, vtable + at)
    return table + offset if offset else 0


def _fields(schema: pa.Schema) -> list[tuple[str, pa.DataType, bool]]:
    """Return names, types and whether there may be nulls; in one order, as columns are found by name."""
    return sorted(((field.name, field.type, field.nullable) for field in schema), key=lambda field: field[0])


def _refuse_more(messages: pa.ipc.MessageReader) -> None:
    try:
        messages.read_next_message()
    except StopIteration:
        return
    raise ValueError("has more than one record batch")
