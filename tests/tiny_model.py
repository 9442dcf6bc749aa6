"""A random two-layer Llama with a tokenizer and a chat template, small enough for every test.

It is the same, byte for byte, for the same seed: random weights, no pretrained ones.
"""

import json
from pathlib import Path

from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

HIDDEN, INTERMEDIATE, LAYERS, VOCABULARY = 32, 64, 2, 512

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

SENTENCES = (
    "What does the handbook say about a lost card?",
    "Block the card at once and order a new one, free of charge.",
    "Which chapter holds diseases of the circulatory system?",
    "Chapter nine holds the codes from I00 to I99.",
    "How long does a transfer between two banks take?",
    "A transfer takes one working day, or ten seconds if it is instant.",
)


def make_tiny_model(directory: Path, seed: int = 0) -> Path:
    """Write config, safetensors weights and tokenizer into `directory` and return it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    directory.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(directory)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        # Large enough that a random model's loss depends visibly on what it attends to.
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def tiny_adapter_layout(rank: int = 4, seed: int = 7, *, use_rslora: bool = False) -> AdapterLayout:
    """LoRA on every linear module of the tiny model."""
    key_value = HIDDEN // 2
    shapes = {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (HIDDEN, key_value),
        "self_attn.v_proj": (HIDDEN, key_value),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (HIDDEN, INTERMEDIATE),
        "mlp.up_proj": (HIDDEN, INTERMEDIATE),
        "mlp.down_proj": (INTERMEDIATE, HIDDEN),
    }
    targets = tuple(
        AdapterTarget(
            module=f"model.layers.{layer}.{name}", in_features=inputs, out_features=outputs
        )
        for layer in range(LAYERS)
        for name, (inputs, outputs) in shapes.items()
    )
    return AdapterLayout(
        rank=rank, alpha=2 * rank, seed=seed, targets=targets, use_rslora=use_rslora
    )


def write_records(path: Path, count: int, seed: int = 0) -> Path:
    """Write `count` prompt-answer records of differing lengths as JSONL and return `path`."""
    questions, answers = SENTENCES[0::2], SENTENCES[1::2]
    lines = [
        json.dumps(
            {
                "prompt": f"{questions[(seed + n) % 3]} Case {seed + n}.",
                "answer": " ".join([answers[(seed + n) % 3]] * (1 + n % 2)),
            }
        )
        for n in range(count)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def _write_tokenizer(directory: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(directory)
