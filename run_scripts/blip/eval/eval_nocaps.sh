#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../run.sh" nocaps_eval "$@"
