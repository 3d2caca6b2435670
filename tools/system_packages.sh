#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# See to it that the programs in a list (requirements/system.txt) are there: installed with apt-get where we are root (or sudo
# asks for nothing), else named, with what to type. What stays missing is an error only where CI=true.
set -eu
cd "$(dirname "$0")/.."

list=${1:-requirements/system.txt}
say() { echo "system packages: $*" >&2; }
wanted() { sed 's/#.*//' "$list" | awk 'NF'; }

is_there() { # package least-version command
  if command -v dpkg-query >/dev/null 2>&1; then
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$1" 2>/dev/null) || return 1
    [ "${installed% *}" = installed ] || return 1
    [ "$2" = - ] || dpkg --compare-versions "${installed#* }" ge "$2"
  else
    [ "$3" = - ] || command -v "$3" >/dev/null 2>&1
  fi
}

missing() { # one package a line
  wanted | while read -r package version command; do
    is_there "$package" "$version" "$command" || echo "$package"
  done
}

# The newest version that apt can have now, empty if none.
candidate() { apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ && $2 != "(none)" {print $2}'; }

needs_backports() { # of the missing ones: is there one whose candidate is too old?
  for package in $1; do
    version=$(wanted | awk -v package="$package" '$1 == package {print $2}')
    [ "$version" = - ] && continue
    available=$(candidate "$package")
    [ -n "$available" ] && dpkg --compare-versions "$available" ge "$version" || return 0
  done
  return 1
}

# Debian's backports suite, from the mirror that apt uses for this release already.
add_backports() {
  codename=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_CODENAME:-}") || return 0
  [ -n "$codename" ] || return 0
  origins=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages')
  echo "$origins" | grep -q " $codename-backports main\$" && return 0
  mirror=$(echo "$origins" | awk -v release="$codename" '$2 == release && $3 == "main" {print $1; exit}')
  [ -n "$mirror" ] || return 0
  file=/etc/apt/sources.list.d/privyseal-backports.sources
  say "adding $codename-backports in $file"
  {
    printf 'Types: deb\nURIs: %s\nSuites: %s-backports\nComponents: main\n' "$mirror" "$codename"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ ! -e "$keyring" ] || echo "Signed-By: $keyring"
  } | tools/as_root.sh tee "$file" >/dev/null
  update
}

update() { tools/apt_get.sh update || say "apt-get update failed; going on with the lists there are"; }

install() { # the list of missing packages
  update
  if needs_backports "$1"; then
    add_backports
  fi
  for package in $1; do
    version=$(wanted | awk -v package="$package" '$1 == package {print $2}')
    suite=
    if [ "$version" != - ] && ! dpkg --compare-versions "$(candidate "$package")" ge "$version"; then
      suite="/$(. /etc/os-release && echo "$VERSION_CODENAME")-backports"
    fi
    set -- "$@" "$package$suite"
  done
  shift
  say "installing $*"
  tools/apt_get.sh install -y --no-install-recommends "$@" && return
  for package in "$@"; do
    tools/apt_get.sh install -y --no-install-recommends "$package" || say "$package cannot be had here"
  done
}

lacking=$(missing)
[ -n "$lacking" ] || exit 0
if tools/apt_get.sh --version 2>/dev/null; then
  install "$lacking"
  lacking=$(missing)
  [ -n "$lacking" ] || exit 0
fi
# Line breaks become spaces for the reader.
names=$(echo $lacking)
say "missing: $names; the tests that need them will be skipped"
say "to have them, type: sudo apt-get update && sudo apt-get install $names (least versions: $list)"
[ "${CI:-}" != true ] || exit 1
