"""Parquet: the frame for data tools, and the whole document in the file's metadata, from which the LUT loads back."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from lut_store.formats import files, json_text
from lut_store.formats.decode import from_text
from protos.errors import BadInputError

if TYPE_CHECKING:
    from lut_store.lut import Lut

METADATA_KEY = b"edgelut-lut"


def to_bytes(lut: Lut) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(lut.frame(), preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, METADATA_KEY: json_text.canonical(lut).encode()})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def from_bytes(data: bytes, source: str) -> Lut:
    """Only the file's footer is read. Raises BadInputError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.ParquetFile(io.BytesIO(data), thrift_string_size_limit=files.MAX_FILE_BYTES).metadata.metadata
    except (pa.ArrowException, OSError) as error:
        raise BadInputError(f"{source} is not a Parquet file, or is damaged: {str(error).splitlines()[0]}") from error
    document = (metadata or {}).get(METADATA_KEY)
    if document is None:
        raise BadInputError(
            f"{source} is a Parquet file without the LUT's document in its metadata ({METADATA_KEY.decode()}); "
            "load the file that edgelut saved, or the .lut"
        )
    return from_text(document, source)
