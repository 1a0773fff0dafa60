#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../run.sh" caption_coco_eval "$@"
