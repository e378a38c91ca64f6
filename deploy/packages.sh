# Sourced by deploy/up: the packages that a cluster needs and this host lacks. Debian's names.
# test/systemd keeps a machine in which this ran, for as long as this file stays as it is.

# install_packages: what the commands below need; a host that has them all is left alone.
install_packages() {
  local need=()
  command -v containerd >/dev/null || need+=(containerd)
  command -v runc >/dev/null || need+=(runc)
  cni_bin >/dev/null || need+=(containernetworking-plugins)
  command -v iptables >/dev/null || need+=(iptables) # the bridge plugin masquerades with it
  command -v nft >/dev/null || need+=(nftables)
  command -v curl >/dev/null || need+=(curl)
  command -v etcdctl >/dev/null || need+=(etcd-client)
  command -v kubectl >/dev/null || need+=(kubernetes-client)
  command -v ip >/dev/null || need+=(iproute2)
  command -v sysctl >/dev/null || need+=(procps)
  # runc asks systemd for control groups over the system bus.
  has_systemd && ! command -v dbus-daemon >/dev/null && ! command -v dbus-broker >/dev/null && need+=(dbus)
  [ ${#need[@]} = 0 ] || apt_install "${need[@]}"
}

# install_build_packages: a compiler for ring and mimalloc, and the busybox that goes into an image.
install_build_packages() {
  local need=()
  command -v cc >/dev/null || need+=(gcc libc6-dev)
  has_static_busybox || need+=(busybox-static)
  [ ${#need[@]} = 0 ] || apt_install "${need[@]}"
}
# Debian's default busybox is linked dynamically, which an image without libraries cannot run.
has_static_busybox() {
  local busybox
  busybox=$(command -v busybox) && ! ldd "$busybox" >/dev/null 2>&1
}

apt_install() {
  command -v apt-get >/dev/null ||
    fail "this host lacks commands that the packages $* have, and has no apt-get" "install their equivalents and run deploy/up again"
  step "installing packages: $*"
  # A machine that has just booted may still hold dpkg's lock for its own upgrades.
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -qy --no-install-recommends "$@"; } >"$LOG_DIR/apt.log" 2>&1 ||
    fail "apt-get could not install: $* ($(grep -m 1 '^E: ' "$LOG_DIR/apt.log"))" "see $LOG_DIR/apt.log, install them by hand, and run deploy/up again"
}

cni_bin() { for dir in /opt/cni/bin /usr/lib/cni; do [ -x "$dir/bridge" ] && { echo "$dir"; return; }; done; return 1; }
