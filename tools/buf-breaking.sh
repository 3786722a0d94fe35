#!/usr/bin/env bash
# Compares proto/ with its own past, so that no caller of ration.v1 breaks by accident.
#
# What it compares with: every state that proto/ had in the last ten commits that changed it, not only the last one.
# A branch of several commits, each compatible with the one before, may still drop a field that its first commit
# added; and a fresh clone, where the files and the last commit are the same, would otherwise compare nothing.
# Uncommitted changes are part of what is compared.
#
# A break on purpose is one commit whose message has the line
#     Breaking-API: why callers have to change
# From that commit on, its state is the oldest that counts. The commit itself is checked before it exists, so pass
# ALLOW_BREAKING=1 for that one run of make.
set -euo pipefail
cd "$(dirname "$0")/.."

states=10

if [ "${ALLOW_BREAKING:-}" = 1 ]; then
	echo "buf breaking: not run, since ALLOW_BREAKING=1"
	exit 0
fi
if [ ! -e .git ]; then
	echo "buf breaking: nothing to compare with, since this is not a git checkout"
	exit 0
fi

commits=$(git log -"$states" --format=%H -- proto)
before=.cache/proto-before
seen=" "
compared=0
failed=0
for commit in $commits; do
	tree=$(git rev-parse --quiet --verify "$commit:proto" || true)
	# A commit that removed proto/ has no tree; a reverted change gives one that was compared already.
	if [ -n "$tree" ] && [[ "$seen" != *" $tree "* ]]; then
		seen+="$tree "
		rm -rf "$before"
		mkdir -p "$before"
		git archive "$commit" buf.yaml proto | tar -x -C "$before"
		if ! go tool -modfile=tools/buf/go.mod buf breaking --against "$before"; then
			echo "buf breaking: the above differs from commit $(git log -1 --format='%h (%s)' "$commit")" >&2
			failed=1
		fi
		compared=$((compared + 1))
	fi
	if git log -1 --format=%B "$commit" | grep -q '^Breaking-API:'; then
		break
	fi
done
rm -rf "$before"

if [ "$compared" = 0 ]; then
	echo "buf breaking: nothing to compare with, since no commit has proto/ yet"
fi
exit "$failed"
