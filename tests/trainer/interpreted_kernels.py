"""Run by test_low_rank.py in a process of its own: Triton decides at its import whether kernels are interpreted."""

import torch

from finetune_trainer import low_rank_kernels, low_rank_products
from finetune_trainer.keyed_dropout import Mask, column_keys, row_key, token_keys


def main() -> None:
    """Compare every product at sizes that fill tiles and that do not."""
    torch.manual_seed(0)
    compared = 0
    for tokens, columns, ranks in ((150, 300, 24), (64, 128, 16)):
        keys = token_keys([row_key(1, 2, row) for row in (5, 6)], [tokens - 20, 20])
        for mask in (None, Mask(keys, column_keys(columns, 3), 0.2)):
            x, down, slope = torch.randn(tokens, columns), torch.randn(ranks, columns), torch.randn(tokens, ranks)
            for name, arguments in (("project", (x, down)), ("weight_slope", (x, slope))):
                got, want = (getattr(module, name)(*arguments, mask, 2.0) for module in MODULES)
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
                compared += 1
            totals = torch.ones(tokens, columns), torch.ones(tokens, columns)
            for module, total in zip(MODULES, totals, strict=True):
                module.add_product(total, slope, down.T.contiguous().T, mask, 0.5)
            torch.testing.assert_close(*totals, rtol=1e-4, atol=1e-4)
            compared += 1
    print(f"{compared} comparisons")


MODULES = (low_rank_kernels, low_rank_products)

if __name__ == "__main__":
    main()
