#!/usr/bin/env bash
# Install the Debian packages that are missing. An argument is PACKAGE or COMMAND:PACKAGE; the package counts as present
# when the command is found, wherever it came from.
set -euo pipefail

missing=()
for entry in "$@"; do
    package=${entry##*:}
    if [ "$entry" != "$package" ]; then
        command -v "${entry%%:*}" >/dev/null || missing+=("$package")
    else
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    fi
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if ! command -v apt-get >/dev/null; then
    echo "error: this needs what Debian calls ${missing[*]}; install it with this system's package manager" >&2
    exit 1
elif [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "error: Debian packages are missing; run as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo -n)
fi

echo "installing Debian packages: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
