"""Muon for the matrices, AdamW for the rest: what small models learn fastest with from random weights."""

from collections import defaultdict

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments


class Muon(torch.optim.Muon):
    """
    [`torch.optim.Muon`] with steps scaled to the size of AdamW's. All matrices of one shape are turned at once, and on
    CPUs in float32 unless `bf16`: not all of those multiply bfloat16 in reasonable time.
    """

    def __init__(self, matrices: list[nn.Parameter], lr: float, weight_decay: float, bf16: bool = False):
        super().__init__(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.bf16 = bf16

    @torch.no_grad()
    def step(self) -> None:
        """One step."""
        for group in self.param_groups:
            of_shape = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    of_shape[matrix.shape].append(matrix)
            for (rows, columns), matrices in of_shape.items():
                updates = torch.stack([self._momentum(matrix, group) for matrix in matrices])
                directions = self._orthogonalize(updates, group).to(matrices[0].dtype)
                step = -0.2 * max(rows, columns) ** 0.5 * group["lr"]
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(matrices, list(directions), alpha=step)

    def _momentum(self, matrix: nn.Parameter, group: dict) -> torch.Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix.grad)
        mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
        return matrix.grad.lerp(mean, group["momentum"]) if group["nesterov"] else mean

    def _orthogonalize(self, matrices: torch.Tensor, group: dict) -> torch.Tensor:
        """The Newton-Schulz iteration of the reference, for (matrices, rows, columns)."""
        a, b, c = group["ns_coefficients"]
        is_tall = matrices.shape[1] > matrices.shape[2]
        x = matrices.to(torch.bfloat16 if self.bf16 or matrices.device.type != "cpu" else torch.float32)
        x = x.mT if is_tall else x
        x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=group["eps"])
        for _ in range(group["ns_steps"]):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x.mT if is_tall else x


class MuonWithAdamW(torch.optim.Optimizer):
    """
    Two optimizers as one: [`Muon`] for the matrices of linear layers, [`torch.optim.AdamW`] without weight
    decay for all else: embeddings, convolutions, norms, biases, queries. One learning rate serves both.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); Liu et al., "Muon is
    scalable for LLM training" (arXiv 2502.16982) for the scale.

    Args:
        model (`nn.Module`): Parameters with a gradient are optimized.
        lr (`float`): The learning rate.
        weight_decay (`float`): Of the matrices.
        betas (`tuple[float, float]`), eps (`float`): AdamW's.
        bf16 (`bool`, *optional*, defaults to `False`): Whether Muon turns matrices in bfloat16 on CPUs, too.

    Raises:
        ValueError: no matrix learns, or parameters are sharded: each matrix is needed whole.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        eps: float,
        bf16: bool = False,
    ):
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if any(isinstance(parameter, DTensor) for parameter in learned):
            raise ValueError("Muon needs each matrix whole, but the parameters are sharded: train without FSDP.")
        head = model.get_output_embeddings()
        linear = {module.weight for module in model.modules() if isinstance(module, nn.Linear) and module is not head}
        matrices = [parameter for parameter in learned if parameter in linear]
        if not matrices:
            raise ValueError("Muon is for the matrices of linear layers, of which none is trained.")
        others = [parameter for parameter in learned if parameter not in linear]
        self._parts = [Muon(matrices, lr, weight_decay, bf16)]
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=lr, betas=betas, eps=eps, weight_decay=0.0))
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure=None):
        """One step of both. `closure` is evaluated first, with gradients, where there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state  # loading a state replaces both
            part.step()
        return loss


def muon_of(arguments: TrainingArguments) -> tuple:
    """`optimizer_cls_and_kwargs` of [`~transformers.Trainer`] for [`MuonWithAdamW`], with the numbers of arguments."""
    options = {"lr": arguments.learning_rate, "weight_decay": arguments.weight_decay, "eps": arguments.adam_epsilon}
    options |= {"betas": (arguments.adam_beta1, arguments.adam_beta2), "bf16": arguments.bf16}
    return lambda: MuonWithAdamW, options
