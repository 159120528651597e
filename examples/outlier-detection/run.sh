#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
backends one=127.0.0.1:10031 two=127.0.0.1:10032 three=127.0.0.1:10033
control_plane
run wellspring apply -f shop.yaml
proxy
want "one" curl -s http://127.0.0.1:10030/
run curl -s -X POST "http://127.0.0.1:10031/_fault?status=500"
for i in $(seq 40); do run curl -s -o /dev/null http://127.0.0.1:10030/ >/dev/null; done
want "failed_outlier_check" wellspring health catalog
for i in $(seq 20); do want "t" curl -s http://127.0.0.1:10030/ >/dev/null; done
