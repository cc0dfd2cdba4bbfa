"""The token that carries an invitation."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.errors import BadInputError
from protos.tokens import PREFIX, Token

WORDS = st.text(min_size=1, max_size=40)
ADDRESSES = st.builds(
    "{}:{}".format, st.from_regex(r"[a-z0-9.-]{1,30}|\[[0-9a-f:]{2,20}\]", fullmatch=True), st.integers(1, 65535)
)
TOKENS = st.builds(
    Token,
    ADDRESSES,
    ADDRESSES,
    st.sampled_from(("agent", "operator")),
    WORDS,
    WORDS,
    st.from_regex("[0-9a-f]{64}", fullmatch=True),
)


@given(TOKENS)
def test_a_token_is_one_word_and_comes_back_whole(token: Token) -> None:
    text = token.text()
    assert text.split() == [text]
    assert text.replace(".", "").replace("-", "").replace("_", "").isalnum()
    assert Token.read(f"  {text}\n") == token


@given(TOKENS, st.data())
def test_a_token_that_was_cut_or_mistyped_is_refused_or_read_as_something_else(
    token: Token, data: st.DataObject
) -> None:
    text = token.text()
    where = data.draw(st.integers(0, len(text) - 1))
    with contextlib.suppress(BadInputError):
        assert isinstance(Token.read(text[:where]), Token)
    with contextlib.suppress(BadInputError):
        assert isinstance(Token.read(text[:where] + data.draw(st.characters()) + text[where + 1 :]), Token)


@given(st.text() | st.text().map(PREFIX.__add__))
def test_any_text_is_a_token_or_a_sentence(text: str) -> None:
    with contextlib.suppress(BadInputError):
        assert isinstance(Token.read(text), Token)


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(BadInputError, match="copy the whole word that `coordinator enroll` printed"):
        Token.read("hello")
