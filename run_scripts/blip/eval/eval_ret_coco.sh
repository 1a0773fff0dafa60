#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../run.sh" ret_coco_eval "$@"
