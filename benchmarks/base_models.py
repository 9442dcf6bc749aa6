"""Which architectures keep packed conversations apart, and what of them carries LoRA.

`make bench-models`. Architectures of transformers are built tiny and at random, their weights
drawn widely enough that what it attends to shows, and asked as a model is asked when it is loaded
(`silo_agent.training.ranks.packing_check`), in float32 and in bfloat16.
"""

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from infra.base_model.linear_modules_child import takes_lora
from silo_agent.training.ranks.packing_check import (
    BatchCheck,
    PackingCheck,
    check_batching,
    check_packing,
)

RESULTS = Path(".consortia/bench/base-models.json")
SEEDS = (0, 1, 2)
CPU = torch.device("cpu")

# What configurations call the same few sizes.
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embed_dim", "dim"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 128),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1),
    "head_dim": 8,
    "vocab_size": 128,
    "initializer_range": 0.2,
    "sliding_window": 8,
    "word_embed_proj_dim": 32,
    "rotary_dim": 4,
}
_SPECIAL: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "falcon": {"alibi": False, "head_dim": None, "new_decoder_architecture": False},
    "falcon, alibi": {"alibi": True, "head_dim": None, "new_decoder_architecture": False},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gpt_oss": {"layer_types": ["sliding_attention", "full_attention"]},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"]},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 64},
    "mamba": {"state_size": 8, "intermediate_size": 64, "time_step_rank": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 16},
    "falcon_mamba": {"state_size": 8, "intermediate_size": 64, "time_step_rank": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8},
    "qwen3_next": {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    },
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
    "llama4_text": {
        "attention_chunk_size": 16,
        "intermediate_size_mlp": 64,
        "moe_layers": [1],
        "layer_types": ["chunked_attention", "full_attention"],
    },
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "shared_intermediate_size": 64,
        "mamba_chunk_size": 16,
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "lru_width": 32},
    "bert": {"is_decoder": False},
    "phi": {"partial_rotary_factor": 0.5},
    "stablelm": {"partial_rotary_factor": 0.5},
    "nemotron": {"partial_rotary_factor": 0.5},
    "persimmon": {"partial_rotary_factor": 0.5},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"], "mamba_d_state": 8, "chunk_size": 16},
}
ARCHITECTURES = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3"),
    *("smollm3", "olmo2", "olmo3", "cohere", "cohere2", "granite", "starcoder2", "stablelm"),
    *("nemotron", "glm4", "exaone4", "ministral", "mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss"),
    *("llama4_text", "olmoe", "granitemoe", "gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode"),
    *("codegen", "opt", "bloom", "mpt", "falcon", "falcon, alibi", "persimmon", "biogpt", "xglm"),
    *("lfm2", "mamba", "mamba2", "falcon_mamba", "jamba", "qwen3_next", "granitemoehybrid"),
    *("recurrent_gemma", "rwkv", "openai-gpt", "ctrl", "bert"),
)


@dataclass(frozen=True)
class Found:
    """One architecture: what packing changes, relative to the spread of logits, largest of all
    seeds, what a micro-batch does (of conversations packed as the model may be), and how many
    modules carry LoRA. `fault` where it could not be asked."""

    architecture: str
    neighbours: float = 0.0
    neighbours_bfloat16: float = 0.0
    alone: float = 0.0
    alone_bfloat16: float = 0.0
    ahead: float = 0.0
    beside: float = 0.0
    beside_bfloat16: float = 0.0
    padded: float = 0.0
    padded_bfloat16: float = 0.0
    modules: int = 0
    left_out: dict[str, str] | None = None
    covered: float = 0.0
    fault: str = ""


def tiny_model(architecture: str, seed: int) -> Any:
    """A model of two layers with random weights."""
    kind = architecture.split(",")[0]
    defaults = AutoConfig.for_model(kind)
    known = {name: value for name, value in _SIZES.items() if hasattr(defaults, name)}
    stated = {**known, **_SPECIAL.get(architecture, {})}
    config = AutoConfig.for_model(kind, **{n: v for n, v in stated.items() if v is not None})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    if not hasattr(defaults, "initializer_range"):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and name.endswith("weight"):
                    parameter.normal_(0, 0.2)
    return model.eval()


def _asked(architecture: str, dtype: torch.dtype) -> list[tuple[PackingCheck, BatchCheck]]:
    found = []
    for seed in SEEDS:
        model = tiny_model(architecture, seed).to(dtype)
        packing = check_packing(model, CPU)
        batching = check_batching(model, CPU, together=packing.keeps_apart)
        found.append((packing, batching))
    return found


def ask(architecture: str) -> Found:
    """All that is asked of one architecture."""
    try:
        full, batched = zip(*_asked(architecture, torch.float32), strict=True)
        half, batched_half = zip(*_asked(architecture, torch.bfloat16), strict=True)
        model = tiny_model(architecture, 0)
        modules, left_out = takes_lora(model.to("meta"))
    except Exception as error:
        return Found(architecture, fault=f"{type(error).__name__}: {error}".split("\n")[0][:200])
    total = sum(parameter.numel() for parameter in model.parameters())
    return Found(
        architecture,
        neighbours=max(check.neighbours for check in full),
        neighbours_bfloat16=max(check.neighbours for check in half),
        alone=max(check.alone for check in full),
        alone_bfloat16=max(check.alone for check in half),
        ahead=max(check.ahead for check in full),
        beside=max(check.neighbours for check in batched),
        beside_bfloat16=max(check.neighbours for check in batched_half),
        padded=max(check.alone for check in batched),
        padded_bfloat16=max(check.alone for check in batched_half),
        modules=len(modules),
        left_out=left_out,
        covered=sum(inputs * outputs for _, inputs, outputs in modules) / total,
    )


def main(names: Iterable[str]) -> None:
    """Ask, print the table, keep the figures."""
    found = []
    for name in names:
        found.append(ask(name))
        each = found[-1]
        line = each.fault or (
            f"{each.neighbours:.1e} | {each.neighbours_bfloat16:.1e} | {each.alone:.1e} | "
            f"{each.alone_bfloat16:.1e} | {each.ahead:.1e} | "
            f"{each.beside:.1e} | {each.beside_bfloat16:.1e} | "
            f"{each.padded:.1e} | {each.padded_bfloat16:.1e} | "
            f"{each.modules} | {100 * each.covered:.0f} % | {each.left_out or ''}"
        )
        sys.stdout.write(f"| {name} | {line} |\n")
        sys.stdout.flush()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(each) for each in found], indent=1))


if __name__ == "__main__":
    main(sys.argv[1:] or ARCHITECTURES)
