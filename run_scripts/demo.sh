#!/usr/bin/env bash
# Train a small captioner on drawn scenes, test it, caption a folder, and write one report.
set -euo pipefail
cd "$(dirname "$0")/.."
output=${1:-output/demo}

echo "1/4  Train and test (data is drawn at first use)"
python train.py --cfg-path projects/blip/train/caption_shapes.yaml \
  --options run.output_dir="$output" datasets.shapes_caption.folder="$output/data"

echo "2/4  Caption the images of a folder"
lavis-lite caption "$output/data/images/test" --checkpoint "$output" --output "$output/captions.json"

echo "3/4  Write the report"
lavis-lite report "$output" --captions "$output/captions.json"

echo "4/4  What came of it"
lavis-lite metrics "$output"
