#!/usr/bin/env bash
# Writes price/builtin.tsv, the price book that ships, from two public lists as PyPI packages them: prices from
# genai-prices, and the longest answers of models from litellm, both under the MIT licence. With the versions below it
# writes the same file again. For newer figures raise them here, with the day on which that genai-prices came out.
set -euo pipefail
cd "$(dirname "$0")/../.."

prices=0.2.3
published=2026-11-10
lengths=1.109.1

dir=.cache/prices
rm -rf "$dir"
mkdir -p "$dir"
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: "genai-prices==$prices"
"$dir/venv/bin/python" tools/prices/export.py >"$dir/genai-prices.json"
# Of litellm only one file is needed, and nothing that it depends on.
"$dir/venv/bin/python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: --no-deps \
	--dest "$dir" "litellm==$lengths"
"$dir/venv/bin/python" -m zipfile --extract "$dir"/litellm-*.whl "$dir/litellm"
go run ./price/internal/makebook --out price/builtin.tsv --date "$published" \
	--prices "$dir/genai-prices.json" --prices-from "genai-prices $prices" \
	--lengths "$dir/litellm/litellm/model_prices_and_context_window_backup.json" --lengths-from "litellm $lengths"
