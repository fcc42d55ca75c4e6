# shellcheck shell=bash
# What the other scripts share: where tools and logs go, and how software gets onto this machine. Sourced, in $root.

# shellcheck disable=SC2154 # the script that sources this file sets it
readonly tools="$root/.tools"
readonly log="$tools/setup.log"
# shellcheck disable=SC2034 # for the messages of the other scripts
readonly log_shown=".tools/setup.log"
export PATH="$tools/bin:$PATH:$HOME/.cargo/bin:/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin"
mkdir -p "$tools/bin"

# What is built where nothing usable is found. The tests were written against these.
# shellcheck disable=SC2034 # for the other scripts
readonly nats_server_version=v2.15.3 nats_cli_version=v0.5.1

# Seconds a build of a Go program may take before it counts as not to be had.
readonly go_deadline=900
# The same for a Rust program.
readonly cargo_deadline=900

say() { # NAME, what was found or done
    printf '%-12s %s\n' "$1" "$2"
}

# Runs a command as root, where that needs no password.
as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

apt_install() { # PACKAGE...
    command -v apt-get >/dev/null || return 1
    local get=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends)
    (
        # One at a time: apt-get fails while another holds its lock. What it starts must not inherit this one.
        flock 9
        echo "== apt-get install $*"
        # The lists may be missing or older than the archive: fetch them only then.
        as_root "${get[@]}" install "$@" 9>&- ||
            { as_root "${get[@]}" update 9>&- && as_root "${get[@]}" install "$@" 9>&-; }
    ) 9>"$tools/apt.lock" >>"$log" 2>&1 </dev/null
}

# Builds a Go program, statically linked, from wherever the Go tool is configured to get modules.
go_install() { # FOLDER under .tools, MODULE@VERSION
    command -v go >/dev/null || return 1
    echo "== go install $2" >>"$log"
    CGO_ENABLED=0 GOBIN="$tools/$1" timeout "$go_deadline" go install "$2" >>"$log" 2>&1 </dev/null
}

# Builds a Rust program; not optimised, since these wait for others more than they work.
cargo_install() { # CRATE@VERSION, OPTION...
    echo "== cargo install $*" >>"$log"
    timeout "$cargo_deadline" cargo install --locked --debug --root "$tools" "$@" >>"$log" 2>&1 </dev/null
}

nats_version() { # PROGRAM; prints 2.15.2
    "$1" --version 2>/dev/null | sed -n 's/^nats-server: v//p'
}

version_at_least() { # OLDEST, ACTUAL
    [[ -n $2 && $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]
}

is_static() { # PROGRAM
    local says
    # ldd fails on what is not dynamic, which is the answer wanted here.
    says=$(ldd "$1" 2>&1 || true)
    [[ $says == *"not a dynamic executable"* || $says == *"statically linked"* ]]
}

docker_answers() {
    command -v docker >/dev/null && docker info >/dev/null 2>&1
}
