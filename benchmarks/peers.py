"""Peers on the same model and rows, as their users run them; started by `speed.py`, each in its own environment.

Usage: python benchmarks/peers.py trl|unsloth MODEL [--settings article,packed,small] [--steps 20]

Prints a line of JSON for each setting: real (not padding) tokens a second after five steps, and the peak of what
torch has allocated. `article` is 8 rows a step, `packed` 4 x 2,048 tokens a step, `small` the same with checkpointing.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable
from typing import Any

WARM = 5
ROWS_A_STEP = {"article": 8, "packed": 4, "small": 4}
ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    """Measure one peer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=MAKERS)
    parser.add_argument("model")
    parser.add_argument("--settings", default="article,packed,small")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    for setting in options.settings.split(","):
        try:
            figures = measure(options.peer, options.model, setting, options.steps)
        except Exception as error:  # a peer that fails at one setting is still measured at the others
            figures = {"error": repr(error)[:300]}
        print(json.dumps({"peer": options.peer, "setting": setting, **figures}), flush=True)
        free_memory()


def measure(peer: str, model: str, setting: str, steps: int) -> dict[str, Any]:
    """Train, and count real tokens and time after the warm-up."""
    trainer = MAKERS[peer](model, setting, steps)  # Unsloth is imported before torch
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ends.append(time.monotonic())

    ends: list[float] = []
    tokens: list[int] = []
    plain = trainer.training_step

    def counted(model: Any, inputs: Any, *more: Any, **settings: Any) -> Any:
        mask = inputs.get("attention_mask")
        real = mask.sum() if mask is not None and mask.dim() == 2 else inputs["input_ids"].numel()
        tokens.append(int(real))
        return plain(model, inputs, *more, **settings)

    trainer.add_callback(Clock())
    trainer.training_step = counted
    trainer.train()
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    seconds, steps = ends[-1] - ends[WARM - 1], len(ends) - WARM
    return {
        "tokensPerSecond": round(sum(tokens[WARM:]) / seconds),
        "tokensPerStep": round(sum(tokens[WARM:]) / steps),
        "peakGiB": round(peak, 2),
    }


def free_memory() -> None:
    """What is left of one setting is no part of the next one's peak."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def rows() -> Any:
    """The rows as TRL takes them when they are tokenised already."""
    from datasets import Dataset
    from workload import make_rows

    return Dataset.from_list(
        [{"input_ids": ids, "completion_mask": [0] * prompt + [1] * (len(ids) - prompt)} for prompt, ids in make_rows()]
    )


def arguments(setting: str, steps: int, **more: Any) -> Any:
    """What both peers are told."""
    import torch
    from trl import SFTConfig

    card = torch.cuda.is_available()  # without one, only to see that the script runs
    packed = setting != "article"
    return SFTConfig(
        output_dir="/tmp/finetune-peer", max_steps=steps, per_device_train_batch_size=ROWS_A_STEP[setting],
        gradient_accumulation_steps=1,
        max_length=2048 if packed else 1024, packing=packed, optim="paged_adamw_8bit" if card else "adamw_torch",
        use_cpu=not card, learning_rate=2e-5, weight_decay=0.01, bf16=True, logging_steps=1000, dataset_num_proc=1,
        save_strategy="no", report_to=[], completion_only_loss=True, **more,
    )  # fmt: skip


def make_trl(model: str, setting: str, steps: int) -> Any:
    """TRL's trainer with its fastest kernels; the article's dropout."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTTrainer

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    again = setting != "packed"
    told = arguments(
        setting, steps, gradient_checkpointing=again, use_liger_kernel=torch.cuda.is_available(),
        gradient_checkpointing_kwargs={"use_reentrant": False} if again else None,
    )  # fmt: skip
    adapter = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            model, quantization_config=quantization, dtype=torch.bfloat16, device_map="auto"
        ),
        args=told,
        train_dataset=rows(),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=adapter,
    )


def make_unsloth(model: str, setting: str, steps: int) -> Any:
    """Unsloth's loader and kernels; without dropout, which it is slow with."""
    from unsloth import FastLanguageModel  # isort: skip  # before trl, which it changes
    import torch
    from trl import SFTTrainer

    base, tokenizer = FastLanguageModel.from_pretrained(
        model, max_seq_length=2048, load_in_4bit=True, dtype=torch.bfloat16
    )
    adapted = FastLanguageModel.get_peft_model(
        base, r=16, lora_alpha=32, lora_dropout=0.0, target_modules=ADAPTED, bias="none", random_state=0,
        use_gradient_checkpointing=False if setting == "packed" else "unsloth",
    )  # fmt: skip
    return SFTTrainer(model=adapted, args=arguments(setting, steps), train_dataset=rows(), processing_class=tokenizer)


MAKERS: dict[str, Callable[[str, str, int], Any]] = {"trl": make_trl, "unsloth": make_unsloth}

if __name__ == "__main__":
    main()
