"""The typed ``run`` section of a config. A task's `Config` extends it with the task's own keys."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class RunConfig:
    """How to run: the keys are LAVIS's where LAVIS has one.

    Attributes:
        task: registered name of the task.
        runner: "runner_base" counts epochs, "runner_iter" iterations.
        optimizer: "adamw", as BLIP is trained, or "muon" (with AdamW for embeddings, norms and biases),
            which learns several times as much a step from nothing.
        lr_sched: registered name of the schedule, evaluated at every optimizer step.
        warmup_lr: where the warm-up starts; None for `init_lr` / 100.
        warmup_steps: optimizer steps of warm-up.
        lr_decay_rate: factor an epoch of "linear_warmup_step_lr".
        lr_scale: part of the model -> factor on its learning rate, as {visual_encoder: 0.1}.
        beta2: second-moment decay of AdamW.
        clip_grad_norm: largest gradient norm; None for no limit.
        accum_grad_iters: batches an optimizer step.
        parallel: "ddp" gives each process the whole model, "fsdp" a part of every weight, for models
            that are too large otherwise. Checkpoints are the same.
        ema_decay: keep an average of the weights that moves by 1 minus this at a step, and validate,
            test and keep as best the average; None for none.
        amp: "bf16", "fp16", true (the better of the two that the device has), false, or "auto"
            (bf16 on a GPU that has it, else off).
        freeze: parts of the model that do not train.
        unfreeze_last_vision_layers: of a frozen vision transformer, the last N blocks train after all.
        max_epoch: of runner_base. `max_iters`, `iters_per_inner_epoch`: of runner_iter, in
            optimizer steps.
        batch_size_train: images of one process in one batch; `batch_size_eval` likewise.
        drop_last: leave out an incomplete last batch of an epoch (never the only one).
        train_dataset_ratios: data set name -> weight, where several are mixed.
        val_freq: epochs between validations.
        best_metric: a metric, a sum "CIDEr + Bleu_4", or a mean "mean(METEOR, CIDEr)"; None for the
            task's own.
        patience: validations without improvement before the run stops early; None for never.
        log_freq: optimizer steps between log lines.
        save_freq: epochs between resumable checkpoints; `save_every_steps` adds more in between.
        save_total_limit: resumable checkpoints to keep; None for all.
        save_last: write a resumable checkpoint at the end.
        seed: of everything random.
        output_dir: the run's folder; None makes one named by the time under ``output/``.
        resume: "auto" continues from the newest whole checkpoint in `output_dir`; "never" refuses a
            folder that has any.
        resume_ckpt_path: checkpoint of another run to continue from when the folder has none; the data
            may be other data then.
        max_bad_steps: steps with a loss or gradient that is not finite before the run stops.
        max_bad_fraction: share of training images that may be unreadable before the run stops.
        compile: run the transformer layers through torch.compile.
        evaluate: only evaluate, on the test splits.
        report: write report.html at the end.
        wandb_project: project of Weights & Biases that is told the run's numbers, too; None for none.
        device: "auto", "cuda", "cpu", "mps"; auto and cuda take a GPU if there is one.
        world_size, dist_url, distributed, use_dist_eval_sampler: accepted from LAVIS's files;
            the launcher decides how many processes there are, and evaluation is always shared out.
    """

    task: str = "captioning"
    runner: str = "runner_base"

    optimizer: Literal["adamw", "muon"] = "adamw"
    lr_sched: str = "linear_warmup_cosine_lr"
    init_lr: float = 1e-5
    min_lr: float = 0.0
    warmup_lr: float | None = None
    warmup_steps: int = 0
    lr_decay_rate: float = 0.9
    lr_scale: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 0.05
    beta2: float = 0.999
    clip_grad_norm: float | None = None
    accum_grad_iters: int = 1
    parallel: Literal["ddp", "fsdp"] = "ddp"
    ema_decay: float | None = None
    amp: bool | Literal["auto", "bf16", "fp16"] = "auto"
    freeze: list[str] = field(default_factory=list)
    unfreeze_last_vision_layers: int = 0

    max_epoch: int = 5
    max_iters: int | None = None
    iters_per_inner_epoch: int | None = None
    batch_size_train: int = 32
    batch_size_eval: int = 64
    num_workers: int = 4
    drop_last: bool = True
    train_splits: list[str] = field(default_factory=lambda: ["train"])
    valid_splits: list[str] = field(default_factory=lambda: ["val"])
    test_splits: list[str] = field(default_factory=lambda: ["test"])
    train_dataset_ratios: dict[str, float] = field(default_factory=dict)

    val_freq: int = 1
    best_metric: str | None = None
    patience: int | None = None
    log_freq: int = 50
    save_freq: int = 1
    save_every_steps: int | None = None
    save_total_limit: int | None = 2
    save_last: bool = True

    seed: int = 42
    output_dir: str | None = None
    resume: Literal["auto", "never"] = "auto"
    resume_ckpt_path: str | None = None
    max_bad_steps: int = 3
    max_bad_fraction: float = 0.01
    compile: bool = False
    evaluate: bool = False
    report: bool = True
    wandb_project: str | None = None

    device: str = "auto"
    world_size: int = 1
    dist_url: str = "env://"
    distributed: bool = True
    use_dist_eval_sampler: bool = True

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about values that no run can honour."""
        at_least_one = ("batch_size_train", "batch_size_eval", "max_epoch", "accum_grad_iters")
        at_least_one += ("val_freq", "log_freq", "save_freq", "max_iters", "iters_per_inner_epoch")
        at_least_one += ("save_every_steps", "save_total_limit", "patience", "max_bad_steps")
        at_least_zero = ("init_lr", "min_lr", "warmup_lr", "warmup_steps", "weight_decay", "num_workers")
        at_least_zero += ("seed",)
        limits = [(name, 1) for name in at_least_one] + [(name, 0) for name in at_least_zero]
        complaints = [
            (name, f"must be at least {limit}, found {getattr(self, name)!r}.")
            for name, limit in limits
            if getattr(self, name) is not None and getattr(self, name) < limit
        ]
        if not 0 < self.beta2 < 1:
            complaints.append(("beta2", f"must lie between 0 and 1, found {self.beta2!r}."))
        if self.clip_grad_norm is not None and self.clip_grad_norm <= 0:
            complaints.append(("clip_grad_norm", "must be above 0; leave it out for no limit."))
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            complaints.append(("ema_decay", "must lie between 0 and 1; leave it out for no average."))
        if self.parallel == "fsdp" and self.amp == "fp16":
            complaints.append(("amp", "fp16 does not go with run.parallel: fsdp; use bf16 or false."))
        if not 0 <= self.max_bad_fraction <= 1:
            complaints.append(("max_bad_fraction", "must lie between 0 and 1."))
        if self.runner == "runner_iter" and self.max_iters is None:
            complaints.append(("max_iters", "runner_iter needs it: how many optimizer steps to train."))
        if self.runner == "runner_base" and self.max_iters is not None:
            complaints.append(("max_iters", "belongs to runner_iter; set run.runner: runner_iter."))
        if self.wandb_project and importlib.util.find_spec("wandb") is None:
            complaints.append(("wandb_project", "wandb is not installed: pip install lavis-lite[wandb]."))
        if self.unfreeze_last_vision_layers and not self.freeze:
            complaints.append(("unfreeze_last_vision_layers", "has no meaning unless freeze names a part."))
        return complaints
