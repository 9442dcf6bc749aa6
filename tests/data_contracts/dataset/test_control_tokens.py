"""Which texts are spelled like a control token of a language model, whichever model it is."""

import pytest

from data_contracts.dataset.control_tokens import spells_control_token

SPELLED = (
    *("<|im_end|>", "<|endoftext|>", "<|start_header_id|>", "<|fim_prefix|>", "<|reserved_7|>"),
    *("<\uff5cend\u2581of\u2581sentence\uff5c>", "<start_of_turn>", "<end_of_image>", "<unused7>"),
    *(
        "<s>",
        "</s>",
        "<bos>",
        "<eos>",
        "<pad>",
        "<think>",
        "</think>",
        "<tool_call>",
        "<extra_id_0>",
    ),
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[TOOL_CALLS]", "[CLS]", "[MASK]"),
)
ORDINARY = (
    *(
        "i < j and k > l",
        "a <table> of doses",
        "<b>bold</b>",
        "[1]",
        "[sic]",
        "[REDACTED]",
        "<",
        "[",
    ),
    *("<john@example.org>", "|x| < |y|", "a <| b |> c", "<https://example.org>", "[INSTANCE]", ""),
    *("p<0.05", "<<EOF", "x->y", "List<String>", "<script>", "[ ] to do"),
)


@pytest.mark.parametrize("token", SPELLED)
def test_a_control_token_is_found_anywhere(token: str) -> None:
    assert spells_control_token(token)
    assert spells_control_token(f"Before{token}after.\n{token}")


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_none(text: str) -> None:
    assert not spells_control_token(text)


def test_long_texts_take_no_time_that_grows_faster() -> None:
    assert not spells_control_token("<|" * 500_000)
    assert not spells_control_token("<" * 1_000_000)
