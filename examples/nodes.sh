# What the examples share: three nodes on loopback in a folder that is thrown away. Sourced by each `run`.
#
# HOTWARM names the program to use; without it the repository's own is built. KEEP=1 leaves everything running.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/hotwarm-example.XXXXXX")
nodes=()

if [ -z "${HOTWARM:-}" ]; then
    cargo build --release --locked --quiet --manifest-path "$root/Cargo.toml" -p hotwarm
    HOTWARM=$root/target/release/hotwarm
fi

# Ends the nodes, then the guards that the nodes left behind (members outlive their agent), each by its pid.
finish() {
    local pid
    if [ "${KEEP:-0}" = 1 ]; then
        echo "left running; nodes: ${nodes[*]}; folder: $work"
        return
    fi
    for pid in "${nodes[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait "${nodes[@]}" 2>/dev/null || true
    # A guard holds the lock in its member's folder for as long as it lives; told to end, it ends its member first.
    for pid in $(guards); do kill "$pid" 2>/dev/null || true; done
    until [ -z "$(guards)" ]; do sleep 0.1; done
    rm -rf "$work"
}

guards() { find /proc/[0-9]*/fd -lname "$work/*/guard.lock" 2>/dev/null | cut -d/ -f3 | sort -u || true; }

trap finish EXIT
trap 'exit 130' INT TERM

# start_nodes CONFIG: checks the file and runs nodes a, b and c from it. EXAMPLE in it becomes this example's folder, WORK the throw-away one.
start_nodes() {
    local node
    sed -e "s|/EXAMPLE|$here|g; s|/WORK|$work|g; s|/HOTWARM|$HOTWARM|g" "$1" >"$work/hotwarm.toml"
    "$HOTWARM" check "$work/hotwarm.toml" >"$work/check" 2>&1 || { cat "$work/check" >&2; exit 1; }
    mkdir -m 700 "$work/a" "$work/b" "$work/c"
    # The right to found the cluster, once. `hotwarm join` puts it there on real machines.
    echo "this node may bootstrap the cluster, once" >"$work/a/bootstrap"
    for node in a b c; do
        "$HOTWARM" run --config "$work/hotwarm.toml" --node "$node" >"$work/$node.log" 2>&1 &
        nodes+=($!)
    done
}

# wait_for WHAT COMMAND...: until the command succeeds, at most 30 s.
wait_for() {
    local what=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 300 ]; then
            echo "waited 30 s for $what; the last lines of the nodes:" >&2
            tail -n 5 "$work"/*.log >&2
            exit 1
        fi
        sleep 0.1
    done
}

# decisions SINCE: what the nodes decided and why, as node a wrote it, from line SINCE on.
decisions() { tail -n "+$1" "$work/${2:-a}.log" | grep -E "reason=" | cut -c1-160 || true; }
