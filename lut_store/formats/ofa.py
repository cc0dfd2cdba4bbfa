"""The latency tables of ProxylessNAS (arXiv 1812.00332) and once-for-all (arXiv 1908.09791): YAML, milliseconds.

Written and read as `search/utils/latency_estimator.py` of proxylessnas and `ProxylessNASLatencyTable` in
`ofa/nas/efficiency_predictor/latency_lookup_table.py` of once-for-all do (the layout of their ``mobile_trim.yaml``): a
mapping from ``expanded_conv-input:HxWxC-output:HxWxC-expand:E-kernel:K-stride:S-idskip:B``, ``Conv-…`` (a k3
convolution), ``Conv_1-…`` (1×1) or ``Logits-…`` (pool and classifier) to a mapping with the key ``mean``. Read, not
written: the keys of once-for-all's `MBv3LatencyTable`, whose ``expand`` is the hidden channels and which end in
``-se:0-hs:0``, with ``AvgPool2D-…`` beside ``Logits-…``. Neither has groups, so that grouped blocks have no key; both
leave out a removed block. The projects hold no energies; a file of the same layout in millijoules is edgelut's own use
of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, NoReturn

from lut_store.formats.files import text_of
from lut_store.formats.operators import MAX_ENTRIES, SHOWN, Scheme, Table, number
from protos.errors import BadInputError
from protos.types import BlockSpec

if TYPE_CHECKING:
    import yaml

FORMAT = "ofa"
MAX_DEPTH = 4  # an operator's mapping may hold lists or mappings of somebody's own beside the mean


def parts(spec: BlockSpec) -> tuple[tuple[str, ...], ...]:
    """Operator → keys (operators.Scheme)."""
    if spec.groups > 1:
        return ()
    taken = f"{spec.input_height}x{spec.input_width}x{spec.in_channels}"
    shapes = f"input:{taken}-output:{spec.output_height}x{spec.output_width}x{spec.out_channels}"
    if spec.kind == "mbconv":
        residual = int(spec.stride == 1 and spec.in_channels == spec.out_channels)
        rest = f"kernel:{spec.kernel}-stride:{spec.stride}-idskip:{residual}"
        hidden = spec.in_channels * spec.expansion
        return (
            (f"expanded_conv-{shapes}-expand:{spec.expansion}-{rest}",),
            (f"expanded_conv-{shapes}-expand:{hidden}-{rest}-se:0-hs:0",),
        )
    if spec.kind == "conv" and spec.kernel == 3:
        return ((f"Conv-{shapes}",),)
    if spec.kind == "conv" and (spec.kernel, spec.stride) == (1, 1):
        return ((f"Conv_1-{shapes}",),)
    if spec.kind == "pool_linear":
        pool = f"AvgPool2D-input:{taken}-output:1x1x{spec.in_channels}"
        logits = f"Logits-input:1x1x{spec.in_channels}-output:{spec.out_channels}"
        return ((f"Logits-input:{taken}-output:{spec.out_channels}",), (pool, logits))
    return ()


def read(data: bytes, source: str) -> Table:
    """Key → mean, read event by event: nothing is built of the file, no tag is obeyed, no alias followed."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Reader(source, yaml.parse(text_of(data, source), Loader=loader)).table()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise BadInputError(f"{source}, line {line}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        problem = str(error).splitlines()[0] if str(error) else "nested too deeply"
        raise BadInputError(f"{source}: not valid YAML: {problem}") from error


class _Reader:
    """A mapping of mappings, as a stream of parser events."""

    def __init__(self, source: str, events: Iterator[yaml.Event]) -> None:
        self._source = source
        self._events = events

    def table(self) -> Table:
        import yaml

        found: dict[str, Decimal] = {}
        event = self._next()
        while isinstance(event, (yaml.StreamStartEvent, yaml.DocumentStartEvent)):
            event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            raise BadInputError(f"{self._source} is empty")
        if not isinstance(event, yaml.MappingStartEvent):
            self._fail(event, "the file must be a mapping from operators to their latencies")
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event)
            if key in found:
                self._fail(event, f"the operator {key[:SHOWN]!r} stands twice")
            if len(found) >= MAX_ENTRIES:
                self._fail(event, f"more than {MAX_ENTRIES} operators, which no table has")
            found[key] = self._mean(key)
        while not isinstance(event := self._next(), yaml.StreamEndEvent):
            if not isinstance(event, yaml.DocumentEndEvent):
                self._fail(event, "a second document; a table is one")
        return found

    def _mean(self, key: str) -> Decimal:
        import yaml

        start = self._next()
        if not isinstance(start, yaml.MappingStartEvent):
            self._fail(start, f"{key[:SHOWN]} must hold a mapping with the key 'mean', in milliseconds")
        mean: Decimal | None = None
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            name = self._key(event)
            value = self._next()
            if name != "mean":
                self._pass_over(value)
            elif not isinstance(value, yaml.ScalarEvent):
                self._fail(value, f"{key[:SHOWN]}: the mean must be a number")
            elif mean is not None:
                self._fail(value, f"{key[:SHOWN]}: the mean stands twice")
            else:
                mean = number(value.value, f"{self._source}, line {_line(value)}, {key[:SHOWN]}")
        if mean is None:
            self._fail(start, f"{key[:SHOWN]} has no key 'mean'")
        return mean

    def _pass_over(self, event: yaml.Event) -> None:
        """A value that is not read, with all that is inside it."""
        import yaml

        depth = 0
        while True:
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                self._fail(event, "nested too deeply for a table")
            if depth <= 0:
                return
            event = self._next()

    def _key(self, event: yaml.Event) -> str:
        import yaml

        if not isinstance(event, yaml.ScalarEvent):
            self._fail(event, "a key must be a plain word")
        text: str = event.value
        return text

    def _next(self) -> yaml.Event:
        import yaml

        event = next(self._events)
        if isinstance(event, yaml.AliasEvent):
            self._fail(event, "an alias; write the operator's numbers themselves")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._fail(event, f"the tag {str(tag)[:SHOWN]} has no meaning in a table")
        return event

    def _fail(self, event: yaml.Event, problem: str) -> NoReturn:
        raise BadInputError(f"{self._source}, line {_line(event)}: {problem}")


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else event.start_mark.line + 1


def write(entries: Mapping[str, str]) -> str:
    """YAML that the two projects read with any loader."""
    return "".join(f"{_plain(key)}:\n  mean: {value}\n" for key, value in entries.items()) or "{}\n"


def _plain(key: str) -> str:
    """A key as a plain scalar; one that was read from somebody's file in quotes."""

    return key if re.fullmatch(r"[A-Za-z][\w.:-]*\w", key) and ": " not in key else json.dumps(key)


SCHEME = Scheme(FORMAT, parts, read, write, free_skip=True)
