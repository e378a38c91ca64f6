# Sourced by deploy/up: the container runtime. Under systemd the host's containerd, whose configuration is kept where an
# administrator wrote one; elsewhere a containerd of our own.

start_runtime() {
  if has_systemd; then
    CRI_SOCKET=/run/containerd/containerd.sock
    use_system_containerd
  else
    CRI_SOCKET=$RUN_DIR/containerd.sock
    containerd_config false <"$DEPLOY_DIR/config/containerd.toml" >"$CONF_DIR/containerd.toml"
    start_process containerd "containerd --config $CONF_DIR/containerd.toml"
  fi
  step "containerd on $CRI_SOCKET"
  wait_for 30 ctr --address "$CRI_SOCKET" version || fail "containerd does not answer on $CRI_SOCKET" "$(log_hint containerd)"
  wait_for 10 serves_cri ||
    fail "containerd on $CRI_SOCKET serves no CRI" "take cri out of disabled_plugins in its configuration, systemctl restart containerd, and run deploy/up again"
}
serves_cri() { ctr --address "$CRI_SOCKET" plugins list | awk '$2 == "cri" && $NF == "ok" { found = 1 } END { exit !found }'; }

# containerd_config SYSTEMD_CGROUP: the template with this host's values.
containerd_config() {
  sed -e "s|@CRI_SOCKET@|$CRI_SOCKET|" -e "s|@PAUSE_IMAGE@|$PAUSE_IMAGE|" -e "s|@CNI_BIN@|$(cni_bin)|" \
    -e "s|@RESTRICT_OOM@|$(lacks_sys_resource && echo true || echo false)|" -e "s|@SYSTEMD_CGROUP@|$1|"
}
# Without CAP_SYS_RESOURCE (bit 24) no process may lower its oom_score_adj, and every sandbox would fail.
lacks_sys_resource() { [ $(((0x$(awk '/^CapEff/ {print $2}' /proc/self/status) >> 24) & 1)) = 0 ]; }

use_system_containerd() {
  if is_replaceable; then
    mkdir -p /etc/containerd
    [ ! -s "$CONTAINERD_CONF" ] || is_ours || cp -p "$CONTAINERD_CONF" "$CONTAINERD_CONF.before-ferrokube"
    configure containerd "$CONTAINERD_CONF" 644 \
      < <(echo "$CONTAINERD_MARK"; sed '/^#/d; /^root/d; /^state/d' "$DEPLOY_DIR/config/containerd.toml" | containerd_config true)
  else
    echo "note: $CONTAINERD_CONF is yours and stays as it is; pods use its sandbox_image and its cgroup driver" >&2
  fi
  [ -z "${CHANGED[containerd]:-}" ] || systemctl restart containerd || fail "containerd does not start" "$(log_hint containerd)"
  systemctl enable --quiet --now containerd || fail "containerd does not start" "$(log_hint containerd)"
}

# Absent, empty, ours, or a package's own: Debian's names no sandbox image that can be had without a registry,
# Docker's switches CRI off.
is_replaceable() {
  [ -s "$CONTAINERD_CONF" ] || return 0
  is_ours || is_packaged || grep -q '^disabled_plugins = \["cri"\]' "$CONTAINERD_CONF"
}
is_ours() { [ "$(head -1 "$CONTAINERD_CONF")" = "$CONTAINERD_MARK" ]; }
is_packaged() {
  local packaged
  packaged=$(dpkg-query -W -f '${Conffiles}\n' containerd containerd.io 2>/dev/null | awk -v file="$CONTAINERD_CONF" '$1 == file { print $2; exit }')
  [ -n "$packaged" ] && [ "$packaged" = "$(md5sum <"$CONTAINERD_CONF" | cut -d' ' -f1)" ]
}
