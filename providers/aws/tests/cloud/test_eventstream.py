"""Messages of the event-stream RPC, read back by botocore's own reader."""

from __future__ import annotations

import pytest
from botocore.eventstream import ParserError
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_aws.cloud.eventstream import Decoder, Flag, Message, MessageType, encoded

MESSAGES = st.builds(
    Message,
    st.sampled_from(MessageType),
    st.sampled_from(Flag),
    st.integers(0, 2**31 - 1),
    st.dictionaries(
        st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=20),
        st.text(max_size=50),
        max_size=3,
    ),
    st.binary(max_size=200),
)


@given(st.lists(MESSAGES, max_size=4), st.integers(1, 50))
def test_messages_arrive_whole_however_they_are_cut(sent: list[Message], size: int) -> None:
    decoder, data = Decoder(), b"".join(map(encoded, sent))
    arrived = [
        message
        for start in range(0, len(data), size)
        for message in decoder.messages(data[start : start + size])
    ]
    assert arrived == sent


def test_a_flipped_bit_is_noticed() -> None:
    data = bytearray(encoded(Message(MessageType.PING, Flag.NONE, 0, {}, b"payload")))
    data[-5] ^= 1
    with pytest.raises(ParserError):
        list(Decoder().messages(bytes(data)))
