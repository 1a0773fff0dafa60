"""What every task has, and the names that earlier tasks were written with."""

from __future__ import annotations

import logging

import torch

from lavis_lite import tasks
from lavis_lite.tasks import StepOutput


def test_the_former_name_of_a_steps_output_works_and_names_the_new_one(caplog):
    caplog.set_level(logging.WARNING)
    loss, weight = torch.tensor(2.0), torch.tensor(3.0)
    output = tasks.TrainStep(loss, weight, {"temperature": 0.07})
    assert output == StepOutput(loss=loss, report={"temperature": 0.07}, weight=weight)
    assert [record.message for record in caplog.records] == [
        "lavis_lite.tasks.TrainStep is now called StepOutput(loss, report, weight)."
    ]
