"""The typed ``run`` section of a config. A task's `Config` extends it with the task's own keys."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import ClassVar, Literal


@dataclass
class RunConfig:
    """The run section. Keys have LAVIS's names where LAVIS has them."""

    task: str = "captioning"
    """Registered name of the task."""
    runner: str = "runner_base"
    """Registered name of the runner: "runner_base" counts epochs, "runner_iter" optimizer steps."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW as in BLIP, or Muon (with AdamW for embeddings, norms and biases), which learns several times
    as much per step from scratch."""
    lr_sched: str = "linear_warmup_cosine_lr"
    """Registered name of the learning-rate schedule, evaluated at every optimizer step."""
    init_lr: float = 1e-5
    """Learning rate after the warm-up."""
    min_lr: float = 0.0
    """Learning rate at the end of the schedule."""
    warmup_lr: float | None = None
    """Learning rate at the first step of the warm-up; null for `init_lr` / 100."""
    warmup_steps: int = 0
    """Optimizer steps of the warm-up."""
    lr_decay_rate: float = 0.9
    """Factor per epoch of the schedule "linear_warmup_step_lr"."""
    lr_scale: dict[str, float] = field(default_factory=dict)
    """Part of the model -> factor on its learning rate, as {visual_encoder: 0.1}."""
    weight_decay: float = 0.05
    """Decoupled weight decay; vectors and scalars (biases, norms) do not decay."""
    beta2: float = 0.999
    """Decay of AdamW's second moment."""
    clip_grad_norm: float | None = None
    """Largest gradient norm; null for no limit."""
    accum_grad_iters: int = 1
    """Batches per optimizer step."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """DDP copies the model to each process; FSDP shards every weight, for models that do not fit otherwise.
    Checkpoints are the same."""
    ema_decay: float | None = None
    """Decay of an average of the weights, which is then validated, tested and saved as best; null for
    none."""
    amp: bool | Literal["auto", "bf16", "fp16"] = "auto"
    """Mixed precision: "bf16", "fp16", true (the better of the two on the device), false, or "auto"
    (bf16 on a GPU that has it, else off)."""
    freeze: list[str] = field(default_factory=list)
    """Parts of the model that are not trained."""
    unfreeze_last_vision_layers: int = 0
    """Number of last blocks of a frozen vision transformer that are trained nevertheless."""

    max_epoch: int = 5
    """Epochs of runner_base."""
    max_iters: int | None = None
    """Optimizer steps of runner_iter."""
    iters_per_inner_epoch: int | None = None
    """Optimizer steps between two validations of runner_iter."""
    batch_size_train: int = 32
    """Samples per process in a training batch."""
    batch_size_eval: int = 64
    """Samples per process in an evaluation batch."""
    num_workers: int = 4
    """Data-loading processes per training process."""
    drop_last: bool = True
    """Drop an incomplete last batch of an epoch, unless it is the only one."""
    train_splits: list[str] = field(default_factory=lambda: ["train"])
    """Splits to train on."""
    valid_splits: list[str] = field(default_factory=lambda: ["val"])
    """Splits to validate on during training."""
    test_splits: list[str] = field(default_factory=lambda: ["test"])
    """Splits to evaluate at the end, or with `evaluate`."""
    train_dataset_ratios: dict[str, float] = field(default_factory=dict)
    """Data set name -> weight, where several data sets are mixed."""

    val_freq: int = 1
    """Epochs between two validations (of runner_iter: segments of `iters_per_inner_epoch`)."""
    best_metric: str | None = None
    """A metric, a sum "CIDEr + Bleu_4", or a mean "mean(METEOR, CIDEr)"; null for the task's default."""
    patience: int | None = None
    """Validations without improvement before training stops; null to never stop early."""
    log_freq: int = 50
    """Optimizer steps between two log lines."""
    save_freq: int = 1
    """Epochs between two resumable checkpoints."""
    save_every_steps: int | None = None
    """Optimizer steps between two more resumable checkpoints within an epoch."""
    save_total_limit: int | None = 2
    """Resumable checkpoints to keep; null for all."""
    save_last: bool = True
    """Write a resumable checkpoint at the end."""

    seed: int = 42
    """Seed of all random numbers."""
    output_dir: str | None = None
    """Run folder; null for a new one below ``output/``, named by the time."""
    resume: Literal["auto", "never"] = "auto"
    """Continue from the newest complete checkpoint in `output_dir` ("auto"), or refuse a folder that has
    one ("never")."""
    resume_ckpt_path: str | None = None
    """Checkpoint of another run to continue from if `output_dir` has none; the data may differ."""
    max_bad_steps: int = 3
    """Steps with a non-finite loss or gradient before training stops."""
    max_bad_fraction: float = 0.01
    """Share of training images that may be unreadable before training stops."""
    compile: bool = False
    """Run the transformer layers through torch.compile."""
    evaluate: bool = False
    """Only evaluate, on the test splits."""
    report: bool = True
    """Write report.html at the end."""
    wandb_project: str | None = None
    """Weights & Biases project that the metrics are also logged to; null for none."""

    device: str = "auto"
    """One of "auto", "cuda", "cpu" and "mps"; auto and cuda use a GPU if there is one."""
    world_size: int = 1
    """Accepted for LAVIS's files: the launcher decides on the number of processes."""
    dist_url: str = "env://"
    """Accepted for LAVIS's files."""
    distributed: bool = True
    """Accepted for LAVIS's files."""
    use_dist_eval_sampler: bool = True
    """Accepted for LAVIS's files: evaluation is always divided among the processes."""

    least: ClassVar[dict[int, tuple[str, ...]]] = {
        1: (
            *("batch_size_train", "batch_size_eval", "max_epoch", "accum_grad_iters", "val_freq", "log_freq"),
            *("save_freq", "max_iters", "iters_per_inner_epoch", "save_every_steps", "save_total_limit"),
            *("patience", "max_bad_steps"),
        ),
        0: ("init_lr", "min_lr", "warmup_lr", "warmup_steps", "weight_decay", "num_workers", "seed"),
    }

    def check(self) -> list[tuple[str, str]]:
        """Return errors about values that no run can use, as (key, message)."""
        errors = [
            (name, f"must be at least {least}, found {getattr(self, name)!r}.")
            for least, names in self.least.items()
            for name in names
            if getattr(self, name) is not None and getattr(self, name) < least
        ]
        if not 0 < self.beta2 < 1:
            errors.append(("beta2", f"must lie between 0 and 1, found {self.beta2!r}."))
        if self.clip_grad_norm is not None and self.clip_grad_norm <= 0:
            errors.append(("clip_grad_norm", "must be above 0; leave it out for no limit."))
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            errors.append(("ema_decay", "must lie between 0 and 1; leave it out for no average."))
        if self.parallel == "fsdp" and self.amp == "fp16":
            errors.append(("amp", "fp16 does not work with run.parallel: fsdp; use bf16 or false."))
        if not 0 <= self.max_bad_fraction <= 1:
            errors.append(("max_bad_fraction", "must lie between 0 and 1."))
        if self.runner == "runner_iter" and self.max_iters is None:
            errors.append(("max_iters", "runner_iter needs it: how many optimizer steps to train."))
        if self.runner == "runner_base" and self.max_iters is not None:
            errors.append(("max_iters", "belongs to runner_iter; set run.runner: runner_iter."))
        if self.wandb_project and importlib.util.find_spec("wandb") is None:
            errors.append(("wandb_project", "wandb is not installed: pip install lavis-lite[wandb]."))
        if self.unfreeze_last_vision_layers and not self.freeze:
            errors.append(("unfreeze_last_vision_layers", "has no effect unless freeze names a part."))
        return errors
