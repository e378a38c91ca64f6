# Sourced by deploy/up and deploy/down: where things lie, and how one daemon is started and stopped.
# Two ways to run a daemon, one description of it: the unit files in deploy/systemd. Where systemd is PID 1
# they are installed; elsewhere their ExecStart line is run under a restart loop.

BIN_DIR=/opt/ferrokube/bin
CONF_DIR=/etc/ferrokube
ENV_FILE=$CONF_DIR/cluster.env
RUN_DIR=/run/ferrokube
LOG_DIR=/var/log/ferrokube
PKI_DIR=/etc/kubernetes/pki
ADMIN_CONF=/etc/kubernetes/admin.conf
CNI_CONF=/etc/cni/net.d/10-ferrokube.conflist
MODULES_FILE=/etc/modules-load.d/ferrokube.conf
SYSCTL_FILE=/etc/sysctl.d/90-ferrokube.conf
CONTAINERD_CONF=/etc/containerd/config.toml
# The first line of a configuration that deploy/up wrote; deploy/down restores what was there before.
CONTAINERD_MARK="# Written by Ferrokube's deploy/up."
DAEMONS=(etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)
PAUSE_IMAGE=localhost/ferrokube/pause:0.1

# A shell that su opened, or cron, lacks these.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

DEPLOY_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO_DIR=$(dirname "$DEPLOY_DIR")

has_systemd() { [ -d /run/systemd/system ]; }

# step TITLE: one line per step; the elapsed time shows where start-up time goes.
step() { printf '%5.1fs  %s\n' "$(elapsed)" "$*"; }
elapsed() { awk -v now="$EPOCHREALTIME" -v start="$STARTED" 'BEGIN { print now - start }'; }
# fail WHAT REMEDY: every failure says what to do.
fail() { printf '\nerror: %s\n  what to do: %s\n' "$1" "$2" >&2; exit 1; }

# wait_for SECONDS COMMAND...: true as soon as the command is.
wait_for() {
  local deadline=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.1
  done
}

# exec_start UNIT: the command line of a unit file, continuation lines joined.
exec_start() {
  awk '/^ExecStart=/ { sub(/^ExecStart=/, ""); on = 1 } on { more = sub(/\\$/, ""); printf "%s", $0; if (!more) exit }' \
    "$DEPLOY_DIR/systemd/$1.service"
}

# has_changed NAME: its binary, unit or configuration is another than before, so that a running daemon restarts.
declare -A CHANGED=()
has_changed() { CHANGED[$1]=yes; }

# configure NAME FILE MODE: standard input becomes FILE. Not at the end of a pipe: a subshell would forget the change.
configure() {
  local new
  new=$(mktemp)
  cat >"$new"
  cmp -s "$new" "$2" || { install -m "$3" "$new" "$2"; has_changed "$1"; }
  rm -f "$new"
}

# start_daemon NAME: through systemd, or under a restart loop whose process group is one daemon.
start_daemon() {
  if has_systemd; then
    configure "$1" "/etc/systemd/system/$1.service" 644 <"$DEPLOY_DIR/systemd/$1.service"
    systemctl daemon-reload
    systemctl enable --quiet "$1"
    systemctl reset-failed "$1" 2>/dev/null || true
    systemctl "$([ -n "${CHANGED[$1]:-}" ] && echo restart || echo start)" --no-block "$1"
  else
    [ -z "${CHANGED[$1]:-}" ] || stop_daemon "$1"
    start_process "$1" "$(exec_start "$1")"
  fi
}

# start_process NAME COMMAND-LINE: the command line is expanded by the shell with cluster.env in force.
start_process() {
  is_running "$1" && return
  setsid bash -c 'set -a; [ -f "$3" ] && . "$3"; set +a
    while :; do eval "$2"; echo "$(date -u +%FT%TZ) $1 exited with code $?; starting it again" >&2; sleep 1; done' \
    "supervise-$1" "$1" "$2" "$ENV_FILE" >>"$LOG_DIR/$1.log" 2>&1 </dev/null &
  echo $! >"$RUN_DIR/$1.pid"
  disown
}

is_running() { [ -f "$RUN_DIR/$1.pid" ] && kill -0 "$(cat "$RUN_DIR/$1.pid")" 2>/dev/null; }

# stop_daemon NAME: TERM to the loop and to the daemon, KILL after ten seconds.
stop_daemon() {
  if has_systemd && [ -f "/etc/systemd/system/$1.service" ]; then
    systemctl disable --now --quiet "$1"
    rm -f "/etc/systemd/system/$1.service"
  elif is_running "$1"; then
    local loop children
    loop=$(cat "$RUN_DIR/$1.pid")
    children=$(pgrep -P "$loop" || true)
    kill -KILL "$loop"
    for child in $children; do kill -TERM "$child" 2>/dev/null; done
    for child in $children; do wait_for 10 process_gone "$child" || kill -KILL "$child" 2>/dev/null; done
  fi
  rm -f "$RUN_DIR/$1.pid"
}
process_gone() { ! kill -0 "$1" 2>/dev/null; }

# log_hint NAME: the command that shows why a daemon does not come up.
log_hint() { if has_systemd; then echo "journalctl -u $1 -n 30 --no-pager"; else echo "tail -n 30 $LOG_DIR/$1.log"; fi; }
