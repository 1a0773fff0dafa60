#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../run.sh" retrieval_coco_ft "$@"
