# Sourced by ./start and ./check, which set $root: finds Python and keeps a virtual environment up to date.
# shellcheck shell=sh

: "${root:?}"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
# Compiled modules are kept, whatever the caller's habits, since a second start is mostly imports; but out of sight.
export PYTHONPYCACHEPREFIX="$root/.cache/pycache"
unset PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH VIRTUAL_ENV

say() { # SENTENCE: a step that is done, or what is about to take long
    printf '  %s\n' "$1" >&2
}

fail() { # WHAT HOW...: say what is wrong and, a line each, what helps, and end
    printf '  ✗ %s\n' "$1" >&2
    shift
    for line; do printf '    %s\n' "$line" >&2; done
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

has_apt() { command -v apt-get >/dev/null 2>&1; }

apt_command() { # PACKAGE...: print the command that installs them
    if ! has_apt; then
        printf 'install these with the package manager of your system: %s\n' "$*"
    elif is_root; then
        printf 'apt-get install -y --no-install-recommends %s\n' "$*"
    else
        printf 'sudo apt-get install -y --no-install-recommends %s\n' "$*"
    fi
}

apt_install() { # PACKAGE...: install them as root without a question; the package lists may be missing or old
    say "installing $* ..."
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
        { quietly apt-get update &&
            quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }
}

quietly() { # COMMAND...: run it, and keep what it prints in case that it fails
    mkdir -p "$root/.cache"
    "$@" >"$root/.cache/install.log" 2>&1 </dev/null
}

show_log() { tail -n 20 "$root/.cache/install.log" | sed 's/^/    | /' >&2; }

need_git() {
    git --version >/dev/null 2>&1 || fail "git is missing, and manifests come out of Git:" "$(apt_command git)"
}

# A Python counts only if it runs: shims of version managers exist and then say that there is no such command.
runs() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

makes_environments() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

pythons() { # print what to try, the best first; for root the system's own first, which other accounts can run too
    for name in python3.14 python3.13 python3.12 python3.11 python3; do
        if is_root; then printf '%s\n' "/usr/local/bin/$name" "/usr/bin/$name"; fi
    done
    printf '%s\n' python3.14 python3.13 python3.12 python3.11 python3
}

find_python() { # set $python
    python=${CRON_OBSERVER_PYTHON:-}
    if [ -n "$python" ]; then
        runs "$python" || fail "CRON_OBSERVER_PYTHON=$python is no Python 3.11 or newer that runs"
        ! makes_environments "$python" || return 0
    fi
    for candidate in $(test -n "$python" || pythons); do
        runs "$candidate" || continue
        python=${python:-$candidate}
        if makes_environments "$candidate"; then
            python=$candidate
            return
        fi
    done
    [ -n "$python" ] || fail "no Python 3.11 or newer runs here:" "$(apt_command python3 python3-venv)"
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if is_root && has_apt && apt_install "$package" && makes_environments "$python"; then return; fi
    fail "$python cannot make virtual environments:" "$(apt_command "$package")"
}

make_environment() { # FOLDER LOCK: make or renew the environment from requirements/LOCK unless it is as it should be
    environment=$1 lock=$root/requirements/$2 bootstrap=$root/requirements/bootstrap.txt
    stamp="$environment $(cat "$lock" "$bootstrap" "$root/pyproject.toml" "$root/sdk/pyproject.toml" | cksum)"
    ! is_current || return 0
    mkdir -p "$root/.cache"
    if command -v flock >/dev/null 2>&1; then # two first starts at once must not build on top of each other
        (
            flock -n 9 || { say "another ./start or ./check prepares an environment; waiting ..." && flock 9; }
            is_current || build_environment 9>&-
        ) 9>"$root/.cache/environment.lock" || exit 1
    else
        build_environment
    fi
}

is_current() {
    [ "$(cat "$environment/cron-observer.stamp" 2>/dev/null)" = "$stamp" ] &&
        "$environment/bin/python" -c 'import cron_observer, importlib.util as u, sys; sys.exit(not u.find_spec("litestar"))' \
            >/dev/null 2>&1
}

build_environment() {
    began=$(date +%s)
    choose_cache
    if [ -e "$environment" ] && [ ! -e "$environment/cron-observer.ours" ]; then
        adopt_environment
    else
        find_python
        say "✓ $("$python" --version)  $(command -v "$python")"
        rm -rf "$environment"
        mkdir -p "$environment"
        : >"$environment/cron-observer.ours" # first, so that what a kill leaves half made is known as ours
        quietly "$python" -m venv "$environment" ||
            { show_log && fail "$python could not make $environment" "see above"; }
    fi
    say "installing the locked packages into $environment ..."
    if ! { install_tools && install_locked && install_checkout; }; then
        show_log
        fail "the packages of requirements/ could not be installed" "see above, then start again"
    fi
    printf '%s\n' "$stamp" >"$environment/cron-observer.stamp"
    say "✓ environment  $environment  ($(($(date +%s) - began)) s)"
}

# Somebody else's environment in our place is used as it is, and only added to.
adopt_environment() {
    rm -f "$environment/cron-observer.stamp"
    if runs "$environment/bin/python"; then
        "$environment/bin/python" -m pip --version >/dev/null 2>&1 ||
            quietly "$environment/bin/python" -m ensurepip || :
        ! "$environment/bin/python" -m pip --version >/dev/null 2>&1 || return 0
    fi
    fail "$environment is not ours, and has no Python 3.11 with pip:" "mv '$environment' '$environment.old'"
}

# uv and pip keep what they download below HOME, if there is one to write to.
choose_cache() {
    cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}
    if ! mkdir -p "$cache" 2>/dev/null || [ ! -w "$cache" ]; then
        export UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1
    fi
}

pip_install() { quietly "$environment/bin/python" -m pip install "$@"; }

uv_install() {
    [ -x "$environment/bin/uv" ] && quietly "$environment/bin/uv" pip install --python "$environment/bin/python" "$@"
}

# uv is many times as fast as pip. Where it is not to be had, or does not know the index that pip is set to, pip serves.
install_tools() {
    pip_install --require-hashes -r "$bootstrap" && return
    awk '/^[^ ]/ { uv = /^uv==/ } !uv' "$bootstrap" >"$root/.cache/bootstrap-without-uv.txt"
    pip_install --require-hashes -r "$root/.cache/bootstrap-without-uv.txt"
}

install_locked() { uv_install --require-hashes -r "$lock" || pip_install --require-hashes -r "$lock"; }

install_checkout() {
    set -- --no-build-isolation --no-deps -e "$root/sdk" -e "$root"
    uv_install "$@" || pip_install "$@"
}
