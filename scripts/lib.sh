# Sourced by the scripts here: root check, set-up of missing packages, clean-up at exit.
# Needs nothing beyond bash and what a minimal Debian 12 ships.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
cargo_oldest="1.95"

say() { printf '\n== %s\n' "$*"; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

require_root() {
    [ "$(id -u)" = 0 ] || fail "needs root: it installs Debian packages, makes network namespaces and loads XDP programs. Run it with sudo."
}

# Clean-up steps run in reverse order, however the script ends.
cleanup_steps=()
on_exit() { cleanup_steps=("$*" "${cleanup_steps[@]}"); }
run_cleanup() {
    local status=$? step
    trap '' INT TERM HUP
    trap - EXIT
    for step in "${cleanup_steps[@]}"; do eval "$step" || true; done
    exit "$status"
}
trap run_cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

cargo_is_new_enough() {
    local version
    version=$("$1" --version 2>/dev/null) || return 1
    version=${version#cargo }
    printf '%s\n%s\n' "$cargo_oldest" "${version%% *}" | sort --check --version-sort 2>/dev/null
}

# Puts the first cargo that is new enough at the head of PATH.
use_cargo() {
    local cargo
    for cargo in "$(command -v cargo)" "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" /usr/bin/cargo; do
        if [ -x "$cargo" ] && cargo_is_new_enough "$cargo"; then
            PATH="$(dirname "$cargo"):$PATH"
            hash -r
            return 0
        fi
    done
    return 1
}

busybox_is_static() { has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }
cargo_has() { use_cargo && cargo "$1" --version >/dev/null 2>&1; }
has() { command -v "$1" >/dev/null; }

# need TEST PACKAGES WHY: remembers the packages when the test fails.
missing=()
need() {
    eval "$1" 2>/dev/null && return
    echo "missing: $2 ($3)"
    # shellcheck disable=SC2206 # a list of package names
    missing+=($2)
}

need_for() {
    case $1 in
    build)
        need use_cargo "cargo-web rustc-web" "Rust $cargo_oldest or newer"
        need "has cc" "gcc libc6-dev" "linker and C headers"
        need "has clang" clang "compiles the XDP classifier"
        need "[ -e /usr/include/bpf/bpf_helpers.h ]" libbpf-dev "headers of the XDP classifier"
        need "[ -e /usr/include/linux/bpf.h ]" linux-libc-dev "headers of the XDP classifier"
        need "[ -e /etc/ssl/certs/ca-certificates.crt ]" ca-certificates "cargo fetches crates over TLS"
        ;;
    network) need "has ip && has tc" iproute2 "network namespaces and veth pairs" ;;
    guest)
        need "has qemu-system-x86_64" qemu-system-x86 "runs the Linux guest"
        need busybox_is_static busybox-static "first process of the guest"
        need "has modprobe" kmod "module order of the guest's kernel"
        need "has cpio" cpio "initial file system of the guest"
        need "has python3" python3 "the guest runner and the programs in the guest"
        need "has tipc" iproute2 "the tipc tool, used in the guest"
        ;;
    # Baselines of the bench, by the names of its features. Clang, which the build needs, brings libclang.
    iceoryx2) ;;
    xsk-rs)
        need "has m4" m4 "the dispatcher of libxdp"
        need "has make" make "builds libbpf"
        need "has pkg-config" pkg-config "finds the libraries of libbpf"
        need "[ -e /usr/include/libelf.h ]" libelf-dev "headers of libbpf"
        need "[ -e /usr/include/zlib.h ]" zlib1g-dev "headers of libbpf"
        ;;
    zeromq)
        need "has pkg-config" pkg-config "finds libzmq"
        need "pkg-config --exists libzmq" libzmq3-dev "the library of ZeroMQ"
        ;;
    fuzz) need "has c++" "g++ libc6-dev" "compiles libFuzzer" ;;
    test)
        need "has python3" python3 "system tests"
        need "cargo_has fmt" rustfmt-web "format check"
        need "cargo_has clippy" rust-web-clippy "lints"
        need "has git" git "lists the files that the house rules are for"
        need "has valgrind" valgrind "counts the instructions of hot paths"
        need "[ -e /usr/lib/ccache/cc ]" ccache "compiles the C of crates once for all profiles"
        ;;
    programs)
        need "[ -x /usr/bin/python3 ]" python3 "programs that are run under xtipc"
        need "/usr/bin/python3 -c 'import test.test_socket'" "$(python_of_debian)-testsuite" "Python's own tests of TIPC"
        need "has ld && has objcopy" binutils "links the C library"
        need "has pkg-config" pkg-config "finds the C library"
        need "has c++" "g++ libc6-dev" "the C header in C++"
        need "has mandoc" mandoc "checks the manual pages"
        need "has go" golang-go "examples in Go"
        need "perl -MFFI::Platypus -e 1 2>/dev/null" "perl libffi-platypus-perl" "examples in Perl"
        need "ruby -rfiddle -e 1 2>/dev/null" ruby "examples in Ruby"
        need "has gdc" gdc "examples in D"
        ;;
    *) fail "no set-up named $1 (build, network, guest, fuzz, test, programs; iceoryx2, xsk-rs, zeromq)" ;;
    esac
}

# The package of the library of Debian's Python, whatever its version is, or will be once it is installed.
python_of_debian() {
    /usr/bin/python3 -c 'import sys; print("libpython%d.%d" % sys.version_info[:2])' 2>/dev/null ||
        apt-cache depends python3-minimal | sed -n 's/.*Depends: \(python3\.[0-9]*\)-minimal/lib\1/p' | head -n 1
}

# Debian 12 has its newer Rust in the security archive, which installers configure but a bare debootstrap does not.
offer_security_archive() {
    local id codename site
    id=$(. /etc/os-release && echo "$ID") codename=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
    [ "$id" = debian ] && [[ " ${missing[*]} " == *" rustc-web "* ]] || return 0
    apt-get indextargets --format '$(RELEASE)' | grep --quiet "^$codename-security$" && return
    site=$(apt-get indextargets --format '$(SITE)' | grep --max-count=1 '/debian/*$') || return 0
    echo "adding the archive $codename-security to /etc/apt/sources.list.d (Rust $cargo_oldest or newer)"
    printf 'deb %s-security %s-security main\n' "${site%%/}" "$codename" \
        >"/etc/apt/sources.list.d/$codename-security.list"
}

# setup TOPIC...: installs what the topics need and the machine lacks.
setup() {
    local topic
    missing=()
    for topic in "$@"; do need_for "$topic"; done
    if [ ${#missing[@]} -gt 0 ]; then
        mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort --unique)
        say "apt-get install ${missing[*]}"
        offer_security_archive
        apt-get -q=2 update || fail "apt-get update failed"
        DEBIAN_FRONTEND=noninteractive apt-get -q=2 install --no-install-recommends "${missing[@]}" >/dev/null ||
            fail "could not install ${missing[*]}"
        hash -r
        missing=()
        for topic in "$@"; do need_for "$topic"; done
        [ ${#missing[@]} = 0 ] || fail "installed, but still missing: ${missing[*]} (too old in apt's sources?)"
    fi
    for topic in "$@"; do
        # The guest's kernel is looked up in the package lists, which a new machine may not have.
        if [ "$topic" = guest ] && ! apt-cache show linux-image-amd64 >/dev/null 2>&1; then
            apt-get -q=2 update || fail "apt-get update failed"
        fi
        [ "$topic" != build ] || use_cargo
    done
}
