#!/usr/bin/env bash
# Run a recipe of projects/ by its name: train, evaluate, clean, or run a whole loop, as the recipe says.
#
#   run_scripts/run.sh caption_coco_ft run.max_epoch=3 run.batch_size_train=16
#   NPROC=8 run_scripts/run.sh pretrain_14m
#   run_scripts/run.sh bootstrap_shapes --seeds 1 2 3
#
# key=value words are settings over the recipe. Words that begin with a dash go to train.py as they are
# (--options, --import), or to bootstrap.py where the recipe is a loop.
# NPROC is how many processes (GPUs) run; run_scripts/launch.sh lists the other variables.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:?name a recipe of projects/: run_scripts/run.sh caption_coco_ft}
shift

recipe=$(find projects/blip -name "$name.yaml")
if [[ -z "$recipe" ]]; then
  names=$(find projects/blip -name "*.yaml" -exec basename {} .yaml \; | sort)
  nearest=$("${PYTHON:-python}" -c \
    'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 3, 0.4), sep=" or ")' \
    "$name" $names)
  echo "$name: no such recipe.${nearest:+ Did you mean $nearest?} Known:" $names >&2
  exit 1
fi

export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if grep -q "^table:\|^base:" "$recipe"; then  # a loop of recipes
  exec "${PYTHON:-python}" projects/blip/capfilt/bootstrap.py "$recipe" "$@"
fi
if [[ $# -gt 0 && "$1" != -* ]]; then
  set -- --options "$@"
fi
exec run_scripts/launch.sh train.py --cfg-path "$recipe" "$@"
