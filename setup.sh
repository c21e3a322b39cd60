#!/bin/sh
# Gets the tools that building (`./setup.sh build`) or testing (`./setup.sh test`) needs, from the
# machine's own Debian or Ubuntu packages. Does nothing, and asks nobody, when all of them are there.
#
#   ./setup.sh build         what `make run` needs
#   ./setup.sh test          that, and what `make lint`, `make test` and .ci/run need
#   ./setup.sh fuzz          what `make fuzz` needs: cargo-fuzz, and a nightly compiler for its sanitizers
#   ./setup.sh find-clang    prints the clang to compile the BPF programs with; fails if there is none
#   ./setup.sh find-format   the same for clang-format
#
# Nothing is started: a server that a test needs (redis, nginx, PostgreSQL) is started by that test,
# on a port of its own. The packages would start theirs, so that is forbidden while they install.
set -eu

here=$(cd "$(dirname "$0")" && pwd)

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# 19 first, since that is what we develop with; then newer ones; then down to 14, the first whose BPF
# back end compiles ours.
find_tool() {
    for version in 19 20 21 22 18 17 16 15 14; do
        if have "$1-$version"; then
            echo "$1-$version"
            return 0
        fi
    done
    if have "$1"; then
        major=$("$1" --version | sed -n 's/.*version \([0-9][0-9]*\)\..*/\1/p' | head -n 1)
        if [ "${major:-0}" -ge 14 ]; then
            echo "$1"
            return 0
        fi
    fi
    return 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        fail "must be root, or have sudo, to run: $*"
    fi
}

installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }
can_be_had() { apt-cache policy "$1" 2>/dev/null | grep -q '^ *Candidate: [^(]'; }

# The first package of the list that apt knows; nothing if it knows none.
first_that_can_be_had() {
    for package in "$@"; do
        if can_be_had "$package"; then
            echo "$package"
            return 0
        fi
    done
    return 1
}

missing=""
want() { missing="$missing $1"; }
want_package() { installed "$1" || want "$1"; }

refreshed=""
refresh_lists() {
    [ -z "$refreshed" ] || return 0
    refreshed=yes
    say "refreshing apt's package lists"
    as_root apt-get update -q >&2 || say "apt-get update failed; going on with the lists that are there"
}

policy=/usr/sbin/policy-rc.d
policy_written=""
forget_policy() {
    [ -z "$policy_written" ] || as_root rm -f "$policy"
    policy_written=""
}

# $1: "required" or "optional"; the packages follow. An optional one that cannot be had is named and
# passed over; what needs it says so when it is skipped.
install() {
    kind=$1
    shift
    [ $# -gt 0 ] || return 0
    have apt-get || fail "needs $*, and this is neither Debian nor Ubuntu: install them by hand"
    say "installing ($kind): $*"
    if [ ! -e "$policy" ]; then
        # invoke-rc.d(8): 101 means that the action is forbidden.
        as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
        policy_written=yes
    fi
    status=0
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=600 "$@" >&2 || status=$?
    forget_policy
    [ "$status" -eq 0 ] || [ "$kind" = optional ] || fail "apt-get could not install: $*"
    [ "$status" -eq 0 ] || say "could not install $*; going on without"
}

trap forget_policy EXIT
trap 'forget_policy; exit 130' INT TERM

# ---- Rust: the distributions' own is often older than Cargo.toml's rust-version ---------------------

rust_is_recent() {
    have cargo || return 1
    needed=$(sed -n 's/^rust-version *= *"1\.\([0-9]*\).*/\1/p' "$here/Cargo.toml")
    found=$(cd "$here" && rustc --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\).*/\1/p')
    [ "${found:-0}" -ge "${needed:?no rust-version in Cargo.toml}" ]
}

get_rust() {
    ! rust_is_recent || return 0
    PATH="$HOME/.cargo/bin:$PATH"
    export PATH
    ! rust_is_recent || return 0
    if ! have rustup; then
        refresh_lists
        if can_be_had rustup; then
            install required rustup
        else
            have curl || install required curl ca-certificates
            say "installing rustup for this user (https://rustup.rs)"
            # Not piped into a shell: a download that fails half-way must not run half-way.
            installer=$(mktemp)
            curl --proto '=https' --tlsv1.2 -sSf -o "$installer" https://sh.rustup.rs ||
                fail "rustup cannot be downloaded; install Rust as https://rustup.rs says, then run this again"
            sh "$installer" -y --profile minimal --default-toolchain none >&2
            rm -f "$installer"
        fi
    fi
    say "installing Rust's stable toolchain with rustup"
    rustup toolchain install stable --profile minimal --component rustfmt --component clippy >&2
    rustup default stable >&2
    rust_is_recent || fail "cargo and rustc are still older than Cargo.toml's rust-version: put ~/.cargo/bin first in PATH"
}

# ---- what building needs ------------------------------------------------------------------------------

get_build_tools() {
    missing=""
    have make || want make
    have gcc || want gcc
    have pkg-config || want pkg-config
    [ -e /usr/include/zlib.h ] || want zlib1g-dev
    [ -e /usr/include/libelf.h ] || want libelf-dev
    [ -e /usr/include/stdio.h ] || want libc6-dev
    have node || want nodejs
    have npm || want npm
    if ! find_tool clang >/dev/null; then
        refresh_lists
        want "$(first_that_can_be_had clang-19 clang-18 clang-17 clang-16 clang-15 clang-14 clang || echo clang)"
    fi
    if [ -n "$missing" ]; then
        refresh_lists
        # shellcheck disable=SC2086 # a list of words
        install required $missing
    fi
    find_tool clang >/dev/null || fail "no clang of version 14 or later: the BPF programs cannot be compiled"
    node_is_recent || fail "node is $(node --version 2>&1), and the page's tools need 18.18 or later: install it from https://nodejs.org"
    get_rust
}

node_is_recent() { node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 18 || (a == 18 && b >= 18) ? 0 : 1)' 2>/dev/null; }

# ---- what tests need ----------------------------------------------------------------------------------

# The first Go that can build the fixtures; tests of other releases let it fetch those (GOTOOLCHAIN).
go_is_recent() {
    have go || return 1
    minor=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge 21 ]
}

get_test_tools() {
    missing=""
    have g++ || want g++
    have gdb || want gdb
    have perf || want linux-perf
    have readelf || want binutils
    have xz || want xz-utils
    have setpriv || want util-linux
    have unshare || want util-linux
    have redis-server || want redis-server
    have redis-benchmark || want redis-tools
    have nginx || want nginx-light
    have wrk || want wrk
    have prometheus || want prometheus
    have openssl || want openssl
    have curl || want curl
    have python3 || want python3
    ls /usr/lib/postgresql/*/bin/pgbench >/dev/null 2>&1 || want postgresql
    # Older ones name files and inlined functions otherwise; what there is is kept where no better one can be had.
    have llvm-symbolizer-19 || ! can_be_had llvm-19 || want llvm
    find_tool llvm-symbolizer >/dev/null || want llvm
    find_tool clang-format >/dev/null || want clang-format
    go_is_recent || want golang
    if [ -n "$missing" ]; then
        refresh_lists
        chosen=""
        for package in $missing; do
            case $package in
                # One name on Debian, another on Ubuntu; versions differ by release.
                linux-perf) package=$(first_that_can_be_had linux-perf linux-tools-generic || echo linux-perf) ;;
                nginx-light) package=$(first_that_can_be_had nginx-light nginx || echo nginx) ;;
                llvm) package=$(first_that_can_be_had llvm-19 llvm-18 llvm-17 llvm-16 llvm-15 llvm-14 || echo llvm) ;;
                clang-format)
                    package=$(first_that_can_be_had clang-format-19 clang-format-18 clang-format-17 clang-format-16 \
                        clang-format-15 clang-format-14 || echo clang-format)
                    ;;
                golang) package=$(first_that_can_be_had golang-1.26-go golang-1.25-go golang-1.24-go golang-1.23-go \
                    golang-1.22-go golang || echo golang) ;;
            esac
            chosen="$chosen $package"
        done
        # shellcheck disable=SC2086 # a list of words
        install required $chosen
        # golang-1.N-go does not put `go` on the path by itself.
        if ! have go; then
            for folder in /usr/lib/go-1.*/bin; do
                [ ! -x "$folder/go" ] || as_root ln -sf "$folder/go" /usr/local/bin/go
            done
        fi
    fi

    # Go 1.25 and later build pprof when it is first asked for: 40 s that no test should find in its way.
    go tool pprof -h >/dev/null 2>&1 || true

    # For the run on another kernel (tests/vm/run), which is skipped with the reason without them, and others that are.
    missing=""
    have qemu-system-x86_64 || want qemu-system-x86
    have busybox || want busybox-static
    have cpio || want cpio
    # For tests that look at maps as others do; Ubuntu has it in a package that its kernel names.
    have bpftool || [ -x /usr/sbin/bpftool ] || ! can_be_had bpftool || want bpftool
    if [ -n "$missing" ]; then
        refresh_lists
        # shellcheck disable=SC2086 # a list of words
        install optional $missing
    fi

    # For the test of the page in a browser, which is skipped with the reason without one.
    if ! have chromium && ! have chromium-browser && ! have google-chrome; then
        refresh_lists
        install optional chromium fonts-dejavu-core
    fi
}

get_fuzz_tools() {
    if ! cargo +nightly --version >/dev/null 2>&1; then
        have rustup || fail "fuzzing needs a nightly compiler, which rustup installs; there is no rustup"
        say "installing Rust's nightly toolchain with rustup"
        rustup toolchain install nightly --profile minimal >&2
    fi
    cargo fuzz --version >/dev/null 2>&1 || {
        say "installing cargo-fuzz with cargo"
        cargo install --locked cargo-fuzz >&2
    }
}

case ${1:-build} in
    build)
        get_build_tools
        ;;
    test)
        get_build_tools
        get_test_tools
        ;;
    fuzz)
        get_build_tools
        get_fuzz_tools
        ;;
    find-clang)
        find_tool clang
        ;;
    find-format)
        find_tool clang-format
        ;;
    *)
        fail "usage: ./setup.sh [build|test|fuzz|find-clang|find-format]"
        ;;
esac
