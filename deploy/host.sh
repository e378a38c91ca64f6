# Sourced by deploy/up: what must be true of this host before anything is changed on it.
# Each check ends deploy/up with what is wrong and what to do.

# Ports of the control plane and the node agents, in the order of ARCHITECTURE.md's table.
PORTS=(2379 2380 2381 6443 10257 10259 10250 10248 10256 10249)

check_architecture() {
  [ "$(uname -s)" = Linux ] || fail "this host runs $(uname -s)" "use Linux"
}

# Every file and port of the cluster belongs to root.
check_root() { [ "$(id -u)" = 0 ] || fail "deploy/up must run as root" "sudo deploy/up"; }

check_name() {
  NODE_NAME=${NODE_NAME:-$(hostname | tr '[:upper:]' '[:lower:]')}
  [[ $NODE_NAME =~ ^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$ ]] ||
    fail "\"$NODE_NAME\" cannot be the name of a node: only a-z, 0-9, - and . are allowed" "name one: deploy/up --node-name=NAME"
}

check_address() {
  NODE_IP=${NODE_IP:-$(default_address)}
  [ -n "$NODE_IP" ] || fail "this host has no default route, so no address to advertise" "name one of its addresses: deploy/up --node-ip=IP"
  [ -n "$(ip -o address show to "$NODE_IP")" ] ||
    fail "$NODE_IP is no address of this host$([ -f "$ENV_FILE" ] && echo ", though $ENV_FILE says so")" \
      "give the host that address again, or start anew with another: deploy/down, then deploy/up --node-ip=IP"
}
default_address() { ip -4 route get 192.0.2.255 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p' | head -1 || true; }

# A cluster of someone else's making (kubeadm's, say) is neither adopted nor overwritten. What `pki init` made here by hand
# is adopted, and so is a CA.
check_no_other_cluster() {
  [ ! -f "$ENV_FILE" ] || return 0
  local found=() file daemon
  for file in /etc/kubernetes/*.conf /etc/kubernetes/manifests/* /var/lib/etcd/*; do
    [ ! -e "$file" ] || grep -qs "server: https://$NODE_IP:6443" "$file" || found+=("$file")
  done
  [ ${#found[@]} = 0 ] || fail "this host holds another cluster's state: $(shorten "${found[@]}")" \
    "remove that cluster (kubeadm reset), or move these files away; certificates and keys in $PKI_DIR may stay and are adopted"
  has_systemd || return 0
  for daemon in "${DAEMONS[@]}"; do
    for file in /etc/systemd/system/"$daemon".service /{etc,lib,usr/lib}/systemd/system/"$daemon".service.d/*kubeadm*.conf; do
      [ ! -f "$file" ] || grep -q Ferrokube "$file" || fail "$file belongs to another $daemon" "remove it and the package it came from, then run deploy/up again"
    done
  done
}
shorten() { if [ $# -le 3 ]; then echo "$*"; else echo "$1 $2 $3 and $(($# - 3)) more"; fi; }

# A port is free, or one of our own daemons has it.
check_ports() {
  local port owner pid
  for port in "${PORTS[@]}"; do
    owner=$(ss -Hltnp "sport = :$port" | head -1)
    [ -n "$owner" ] || continue
    pid=$(sed -n 's/.*pid=\([0-9]*\).*/\1/p' <<<"$owner")
    case $(readlink "/proc/${pid:-none}/exe") in "$BIN_DIR"/*) continue ;; esac
    fail "port $port is taken by $(process_of "$pid")" "stop that process (it may be a service: systemctl status ${pid:-}) and run deploy/up again"
  done
}
process_of() { if [ -n "$1" ]; then echo "$(cat "/proc/$1/comm") (pid $1)"; else echo "another network namespace or container"; fi; }

# What the kernel needs: overlay for images, nf_tables for Services, br_netfilter so that they answer pods of the same node.
check_kernel() {
  grep -qw overlay /proc/filesystems || modprobe -q overlay ||
    fail "the kernel has no overlay file system" "$(kernel_remedy overlay)"
  nft list tables >/dev/null 2>&1 || modprobe -q nf_tables ||
    fail "the kernel has no nf_tables: kube-proxy could not make Services answer" "$(kernel_remedy nf_tables)"
  [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || modprobe -q br_netfilter ||
    fail "the kernel has no br_netfilter: pods could not reach Services of the same node" "$(kernel_remedy br_netfilter)"
}
kernel_remedy() {
  echo "see why: modprobe $1. Debian's stock kernel has it: apt-get install linux-image-$(dpkg --print-architecture 2>/dev/null || echo ARCH), reboot. A container's host must load it for the container"
}

# Pods do not swap whatever the host does (memorySwap: NoSwap), so swap is no reason to stop.
note_swap() {
  [ "$(wc -l </proc/swaps)" -le 1 ] ||
    echo "note: swap is on. The kubelet starts nevertheless (failSwapOn: false); for upstream's default: swapoff -a, and its line in /etc/fstab" >&2
}
